"""Source policy: what lasts becomes a source, at a price that follows the bytes spent."""

import numpy as np
import pytest

from iwcodec.codec.media.quality import psnr
from iwcodec.codec.media.types import Picture
from iwcodec.codec.sources.source_policy import (
    BURST_BYTES,
    BYTES_PER_S,
    CANDIDATES,
    HIGH_PRICE,
    IN_FLIGHT_BYTES_PER_S,
    IN_FLIGHT_S,
    JUDGE_INTERVAL_S,
    LOW_PRICE,
    Judgement,
    Price,
    SourcePolicy,
)
from support.codec.stub_runtime import StubRuntime, picture

SIZE = 300


class Stream:
    """A stream whose frames are judged: those that a source shows exactly at 35 dB, others at 22 dB."""

    def __init__(self) -> None:
        self.runtime = StubRuntime()
        self.policy = SourcePolicy(self.runtime)
        self.at_s = 0.0
        self.added: list[tuple[float, Picture]] = []
        self.add(picture(100))

    def add(self, of: Picture) -> None:
        source = self.runtime.prepare(of)
        self.policy.add(len(self.added), (source, 35.0), self.at_s, SIZE)
        self.added.append((self.at_s, of))

    def judge(self, of: Picture, helps: bool = True) -> Picture | None:
        """Judge a frame; add the source that is wanted, and return it."""
        self.at_s += JUDGE_INTERVAL_S
        known = [source for source in self.policy.library.sources() if np.array_equal(source.picture, of)]
        nearest = (known or self.policy.library.sources())[0]
        quality_db = 35.0 if known and helps else 22.0
        self.policy.judge(of, Judgement(of, quality_db, nearest), self.at_s)
        wanted = self.policy.wanted(self.at_s)
        if wanted is not None:
            self.add(wanted)
        return wanted


def test_what_is_shown_well_needs_no_source() -> None:
    stream = Stream()
    assert not any(stream.judge(picture(100)) is not None for _ in range(100))


def test_what_lasts_becomes_a_source_once() -> None:
    stream = Stream()
    wanted = [stream.judge(picture(160)) for _ in range(50)]
    first = next(n for n, one in enumerate(wanted) if one is not None)
    assert first <= 3
    assert np.array_equal(stream.added[1][1], picture(160))
    assert all(one is None for one in wanted[first + 1 :])


def test_the_frame_that_shows_most_of_the_last_seconds_is_taken() -> None:
    """Not the present one, which shows something that passes."""
    stream = Stream()
    for _ in range(60):  # saves up nothing
        stream.policy._price.pay(SIZE, stream.at_s)
    while not stream.added[1:]:
        shown = [picture(160)] * (CANDIDATES - 1) + [picture(220)]
        for one in shown:
            stream.judge(one)
    assert np.array_equal(stream.added[1][1], picture(160))


def test_a_source_on_its_way_is_not_wanted_again() -> None:
    """Receivers do not have it yet, so frames are still as bad as before."""
    stream = Stream()
    while stream.judge(picture(160)) is None:
        pass
    frames = int((IN_FLIGHT_S + SIZE / IN_FLIGHT_BYTES_PER_S) / JUDGE_INTERVAL_S)
    assert frames
    for _ in range(frames):
        assert stream.judge(picture(160), helps=False) is None


def test_sources_that_do_not_help_become_rare() -> None:
    """As with blur or noise: frames are as bad as before although a source shows them."""
    stream = Stream()
    for n in range(150):
        stream.judge(picture(160 + n % 3), helps=False)
    times = [at_s for at_s, _ in stream.added]
    assert sum(at_s > 30 for at_s in times) <= 1


def test_the_rate_of_sources_is_bounded_where_everything_is_new() -> None:
    stream = Stream()
    for n in range(150):
        stream.judge(picture(40 + (67 * n) % 200))
    spent = SIZE * sum(at_s > 20 for at_s, _ in stream.added)
    assert 0.5 * BYTES_PER_S * 40 < spent < 1.5 * BYTES_PER_S * 40


def test_the_price_follows_what_is_saved_up() -> None:
    price = Price()
    assert price.at(0.0) == pytest.approx(LOW_PRICE)
    price.pay(int(BURST_BYTES), 0.0)
    assert price.at(0.0) == pytest.approx(HIGH_PRICE)
    assert LOW_PRICE < price.at(BURST_BYTES / BYTES_PER_S / 2) < HIGH_PRICE
    assert price.at(2 * BURST_BYTES / BYTES_PER_S) == pytest.approx(LOW_PRICE)
    price.pay(int(2 * BURST_BYTES), 100.0)
    assert price.at(100.0) > HIGH_PRICE


def test_the_psnr_of_sources_is_measured() -> None:
    policy = SourcePolicy(StubRuntime())
    original = picture(100)
    coded = np.clip(original.astype(int) + 4, 0, 255).astype(np.uint8)
    policy.add(0, policy.prepare(original, coded), 0.0, SIZE)
    assert policy.source_db == pytest.approx(psnr(coded, original))


def test_frames_are_judged_at_an_interval() -> None:
    policy = SourcePolicy(StubRuntime())
    assert sum(policy.due(n / 25) for n in range(100)) == 10
