"""Congestion control against a simulated link with a queue and losses."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from iwcodec.client.link.congestion_control import (
    LADDER,
    LOSS_RUNG,
    LOSSY_FRAMES,
    RUNG_KBPS,
    CongestionControl,
    SendParameters,
)

FPS = 25
HEADERS, FRAME_BYTES = 109, 10
REPORT_S = 0.5


def kbps(sending: SendParameters) -> float:
    """Approximate rate of a rung, with sources and headers."""
    frames = FPS / sending.stride
    payload = FRAME_BYTES * (1 + sending.repeats) * frames / (1 + sending.coarseness / 2)
    return 8 * (frames / sending.message_frames * HEADERS + payload) / 1000 + sending.source_kbps


@dataclass
class Path:
    """A queue in front of a link of `capacity` kbps that loses a share of all messages."""

    capacity: float
    loss: float = 0.0
    queued_kbit: float = 0.0
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(3))

    def carry(self, sending: SendParameters) -> tuple[float, float]:
        """Traffic of one report interval -> (share of messages lost, queueing delay in seconds)."""
        self.queued_kbit = max(0.0, self.queued_kbit + (kbps(sending) - self.capacity) * REPORT_S)
        messages = max(1, round(FPS / sending.stride / sending.message_frames * REPORT_S))
        return float(self.rng.binomial(messages, self.loss)) / messages, self.queued_kbit / self.capacity


def drive(
    control: CongestionControl, path: Path, start_s: float, duration_s: float
) -> list[tuple[SendParameters, float]]:
    """Parameters and queueing delay of each report interval."""
    out = []
    for n in range(round(duration_s / REPORT_S)):
        sending = control.sending
        lost, queued = path.carry(sending)
        control.report(start_s + n * REPORT_S, lost, queued)
        out.append((sending, queued))
    return out


def test_rungs_are_sorted_by_rate() -> None:
    rates = [kbps(sending) for sending in LADDER]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 4


def test_wide_link_is_used_fully() -> None:
    assert all(sending == LADDER[0] for sending, _ in drive(CongestionControl(), Path(60), 0, 60))


def test_narrow_link_is_not_overfilled() -> None:
    """Settles on a rung that fits, and rarely tries the next one."""
    history = drive(CongestionControl(), Path(10), 0, 240)
    settled = history[80:]
    assert np.mean([kbps(sending) <= 10 for sending, _ in settled]) > 0.9
    assert np.mean([queued < 0.3 for _, queued in settled]) > 0.9
    assert np.mean([kbps(sending) for sending, _ in settled]) > 7


def test_climbs_after_the_link_has_recovered() -> None:
    control = CongestionControl()
    drive(control, Path(5), 0, 30)
    assert kbps(control.sending) <= 5
    drive(control, Path(60), 30, 90)
    assert control.sending == LADDER[0]


def test_never_stalls() -> None:
    """Some frames per second remain, however narrow the link."""
    history = drive(CongestionControl(), Path(0.5), 0, 60)
    assert history[-1][0] == LADDER[-1]
    assert FPS / history[-1][0].stride > 3


def test_loss_leads_to_repetition_not_to_fewer_frames() -> None:
    for loss in (0.1, 0.3):
        control = CongestionControl()
        history = drive(control, Path(60, loss), 0, 60)
        assert np.mean([sending.repeats >= 1 for sending, _ in history[20:]]) > 0.95
        assert (np.mean([sending.repeats == 2 for sending, _ in history[20:]]) > 0.8) == (loss == 0.3)
        assert all(sending.stride == 1 and sending.coarseness == 0 for sending, _ in history)
        last = replace(history[-1][0], repeats=0)
        assert any(replace(last, message_frames=rung.message_frames) == rung for rung in LADDER[: LOSS_RUNG + 1])
        if loss == 0.1:
            assert np.mean([sending.message_frames == LOSSY_FRAMES for sending, _ in history[20:]]) > 0.9
        drive(control, Path(60), 60, 60)
        assert control.sending == LADDER[0]


def test_sources_are_small_from_a_low_rung_until_the_first() -> None:
    control = CongestionControl()
    drive(control, Path(5), 0, 30)
    assert control.small
    history: list[bool] = []
    for n in range(90):
        drive(control, Path(60), 30 + n, 1)
        history.append(control.small == (control.sending != LADDER[0]))
    assert all(history)
    assert not control.small


def test_losses_of_a_full_queue_do_not_lead_to_repetition() -> None:
    """Repetition would keep it full."""
    control = CongestionControl()
    for n in range(20):
        control.report(n * REPORT_S, 0.3, 0.9)
    assert control.sending.repeats == 0


def test_messages_span_at_most_a_quarter_of_a_second() -> None:
    """Messages have 2 to 5 frames, and the first frame waits at most 0.25 s, also at low frame rates."""
    assert {sending.message_frames for sending in LADDER} == {2, 3, 4, 5}
    assert all((sending.message_frames - 1) * sending.stride / FPS <= 0.25 for sending in LADDER)


def test_queue_at_our_own_end_is_congestion() -> None:
    control = CongestionControl()
    for n in range(4):
        control.report(n * REPORT_S, 0, 0, blocked=True)
    assert control.sending == LADDER[2]


def test_outage() -> None:
    """The last rung is used during an outage, and the former rung after it."""
    control = CongestionControl()
    drive(control, Path(60), 0, 10)
    control.silence(11)
    assert control.sending == LADDER[0]
    control.silence(13)
    assert control.sending == LADDER[-1]
    control.report(15, 0.9, 0.0)
    assert control.sending == LADDER[0]


def test_loss_alone_is_not_congestion() -> None:
    lossy, narrow = CongestionControl(), CongestionControl()
    drive(lossy, Path(100.0, loss=0.3), 0.0, 20.0)
    assert not lossy.congested
    drive(narrow, Path(8.0), 0.0, 20.0)
    assert narrow.congested


@pytest.mark.parametrize(
    ("max_kbps", "rung"), [(None, 0), (20.0, 0), (14.0, 1), (10.0, 2), (6.5, 3), (5.0, 4), (1.0, 5)]
)
def test_the_users_limit_is_the_highest_rung_that_fits(max_kbps: float | None, rung: int):
    control = CongestionControl()
    control.max_kbps = max_kbps
    assert control.sending == LADDER[rung]
    assert len(RUNG_KBPS) == len(LADDER)


def test_frames_are_not_repeated_beyond_the_users_limit():
    control = CongestionControl()
    for n in range(20):
        control.report(float(n), 0.5, 0.0)
    assert control.sending.repeats == 2
    control.max_kbps = 14.0
    assert control.sending.repeats == 0
