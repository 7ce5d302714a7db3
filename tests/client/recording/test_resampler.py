"""Keypoints at a constant frame rate from frames at arbitrary times."""

from fractions import Fraction

import numpy as np
import pytest

from iwcodec.client.recording.resampler import KeypointResampler
from iwcodec.client.video.jitter_buffer import TimedFrame


def at(stamp_s: float, value: float) -> TimedFrame:
    return TimedFrame(0, stamp_s, np.full((2, 3), value, np.float32))


def values(resampler: KeypointResampler, *frames: TimedFrame) -> list[float]:
    return [round(float(one.keypoints[0, 0]), 3) for frame in frames for one in resampler.add(frame)]


def test_frames_at_the_frame_rate_stay_unmodified() -> None:
    assert values(KeypointResampler(Fraction(25)), *(at(7 + n / 25, n) for n in range(5))) == [0, 1, 2, 3, 4]


def test_frames_at_other_times_are_interpolated() -> None:
    assert values(KeypointResampler(Fraction(10)), at(1.0, 0), at(1.15, 3), at(1.3, 6)) == [0, 2, 4, 6]


def test_long_gaps_are_held_and_late_frames_ignored() -> None:
    assert values(KeypointResampler(Fraction(2)), at(0, 1), at(2.0, 5), at(1.5, 9), at(2.5, 7)) == [1, 1, 1, 1, 1, 7]


def test_a_new_clock_continues_without_a_gap() -> None:
    resampler = KeypointResampler(Fraction(10))
    assert values(resampler, at(0, 0), at(0.1, 1), at(5000.0, 2), at(5000.1, 3)) == [0, 1, 2, 3]


def test_a_restarted_sender_continues_after_its_pause() -> None:
    """With stamps that begin anew, and are smaller than before."""
    resampler = KeypointResampler(Fraction(10))
    assert values(resampler, at(50, 0), at(50.1, 1)) == [0, 1]
    resampler.restart(0.3)
    assert values(resampler, at(1, 2), at(1.1, 3)) == [1, 1, 1, 2, 3]
    assert resampler.start_s == pytest.approx(1 - 0.5)
