"""Source policy: a frame that is shown badly becomes a source, at a threshold that follows the bytes spent."""

import numpy as np
import pytest

from iwcodec.codec.media.quality import psnr
from iwcodec.codec.sources.source_policy import (
    BURST_BYTES,
    BYTES_PER_S,
    HIGH_THRESHOLD,
    JUDGE_INTERVAL_S,
    LOW_THRESHOLD,
    MIN_INTERVAL_S,
    Judgement,
    SourcePolicy,
    Threshold,
)
from support.codec.stub_runtime import StubRuntime, picture

SIZE = 300
GOOD_DB, BAD_DB = 35.0, 22.0


class Stream:
    """A stream whose frames are judged, with sources of GOOD_DB."""

    def __init__(self) -> None:
        self.runtime = StubRuntime()
        self.policy = SourcePolicy(self.runtime)
        self.at_s = 0.0
        self.added_s: list[float] = []
        self.add()

    def add(self) -> None:
        self.policy.add(len(self.added_s), (self.runtime.prepare(picture(100)), GOOD_DB), self.at_s, SIZE)
        self.added_s.append(self.at_s)

    def judge(self, quality_db: float) -> bool:
        """Judge a frame that peers see at a PSNR; add it if it is wanted. Returns whether it was."""
        self.at_s += JUDGE_INTERVAL_S
        wants = self.policy.wants(Judgement(picture(100), quality_db), self.at_s)
        if wants:
            self.add()
        return wants


def test_what_is_shown_well_needs_no_source() -> None:
    stream = Stream()
    assert not any(stream.judge(GOOD_DB) for _ in range(100))


def test_what_the_network_loses_makes_no_source() -> None:
    """Frames are below the sources all the time, although these show them."""
    stream = Stream()
    assert not any(stream.judge(GOOD_DB - 2 + 0.1 * (n % 3)) for n in range(100))


def test_what_no_source_shows_has_one_as_soon_as_the_last_has_arrived() -> None:
    stream = Stream()
    for _ in range(3):
        stream.judge(GOOD_DB)
    assert stream.judge(BAD_DB)


def test_while_a_source_is_on_its_way_none_is_wanted() -> None:
    """Receivers do not have it yet, so frames are still as bad as before."""
    stream = Stream()
    while not stream.judge(BAD_DB):
        pass
    frames = int(MIN_INTERVAL_S / JUDGE_INTERVAL_S)
    assert frames
    for _ in range(frames):
        assert not stream.judge(BAD_DB)
    assert stream.judge(BAD_DB)


def test_what_is_saved_up_goes_to_small_gains() -> None:
    """And only that: after a source another one is not worth it for some time."""
    stream = Stream()
    wanted = [stream.judge(GOOD_DB if n % 10 == 0 else GOOD_DB - 1.5) for n in range(500)]
    assert 0.7 * BYTES_PER_S < SIZE * sum(wanted[250:]) / (250 * JUDGE_INTERVAL_S) < 1.3 * BYTES_PER_S
    assert not any(stream.judge(GOOD_DB - 0.9 * LOW_THRESHOLD) for _ in range(100))


def test_noise_that_sources_have_too_makes_none() -> None:
    stream = Stream()
    noisy = stream.runtime.prepare(picture(100))
    for n in range(20):
        stream.policy.add(n, (noisy, 25.0), stream.at_s, 0)
    assert not any(stream.judge(25.0) for _ in range(100))


def test_the_rate_of_sources_is_bounded_where_everything_is_new() -> None:
    stream = Stream()
    for _ in range(250):
        stream.judge(BAD_DB)
    spent = SIZE * sum(at_s > 40 for at_s in stream.added_s)
    assert 0.7 * BYTES_PER_S * 60 < spent < 1.3 * BYTES_PER_S * 60


def test_the_threshold_follows_what_is_saved_up() -> None:
    threshold = Threshold()
    assert threshold.at(0.0) == pytest.approx(LOW_THRESHOLD)
    threshold.pay(int(BURST_BYTES), 0.0)
    assert threshold.at(0.0) == pytest.approx(HIGH_THRESHOLD)
    assert LOW_THRESHOLD < threshold.at(BURST_BYTES / BYTES_PER_S / 2) < HIGH_THRESHOLD
    assert threshold.at(2 * BURST_BYTES / BYTES_PER_S) == pytest.approx(LOW_THRESHOLD)
    threshold.pay(int(2 * BURST_BYTES), 100.0)
    assert threshold.at(100.0) > HIGH_THRESHOLD


def test_the_psnr_of_sources_is_measured() -> None:
    policy = SourcePolicy(StubRuntime())
    original = picture(100)
    coded = np.clip(original.astype(int) + 4, 0, 255).astype(np.uint8)
    policy.add(0, policy.prepare(original, coded), 0.0, SIZE)
    assert policy.source_db == pytest.approx(psnr(coded, original))


def test_frames_are_judged_at_an_interval() -> None:
    policy = SourcePolicy(StubRuntime())
    assert sum(policy.due(n / 25) for n in range(100)) == 10
