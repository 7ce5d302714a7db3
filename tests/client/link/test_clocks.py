"""Clock offset from reports."""

import pytest

from iwcodec.client.link.clocks import WINDOW_S, Clocks

AHEAD_S = 77.0
"""By how much the peer's clock is ahead of ours."""


def exchange(clocks: Clocks, now_s: float, there_s: float, back_s: float, held_s: float = 0.1) -> None:
    """Take the peer's answer to a report of ours; it arrives now, after the given times on the way."""
    sent_s = now_s - there_s - held_s - back_s
    answered_ms = round(1000 * (now_s - back_s + AHEAD_S))
    clocks.take(round(1000 * now_s), answered_ms, round(1000 * sent_s), round(1000 * held_s), now_s)


def test_offset() -> None:
    clocks = Clocks()
    assert clocks.local_s(1.0) is None
    exchange(clocks, 100.0, 0.03, 0.03)
    assert clocks.local_s(200.0) == pytest.approx(200.0 - AHEAD_S, abs=0.002)


def test_sample_with_the_shortest_round_trip_is_used() -> None:
    """A queue in one direction would shift the offset by half its delay."""
    clocks = Clocks()
    exchange(clocks, 100.0, 0.02, 0.02)
    exchange(clocks, 101.0, 1.5, 0.02)
    assert clocks.local_s(200.0) == pytest.approx(200.0 - AHEAD_S, abs=0.002)
    exchange(clocks, 101.0 + WINDOW_S, 0.4, 0.2)  # the others are too old
    assert clocks.local_s(200.0) == pytest.approx(200.0 - AHEAD_S - 0.1, abs=0.002)


def test_implausible_samples_are_discarded() -> None:
    clocks = Clocks()
    clocks.take(1000, 5, 4000, 0, 1.0)  # an echo of what we have not sent yet
    clocks.take(100_000, 5, 0, 0, 100.0)  # a round trip of 100 s
    clocks.take(1000, 5, None, 0, 1.0)
    assert clocks.local_s(1.0) is None


def test_echo() -> None:
    clocks = Clocks()
    assert clocks.echo(5.0) == (None, 0.0)
    clocks.take(1000, 4321, None, 0, 1.0)
    assert clocks.echo(1.25) == (4321, 0.25)
