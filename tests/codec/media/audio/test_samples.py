"""Reading sound aligned to the pictures."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from iwcodec.codec.media.audio.samples import aligned, read_samples
from iwcodec.codec.media.timeline import StreamClock
from iwcodec.codec.media.types import AUDIO_RATE
from iwcodec.codec.media.video import probe, sample_clip
from support.media.clips import all_samples, grey_ramp, peak_time, tone, write_clip


def audio_frame(samples: np.ndarray, time_s: float) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
    frame.sample_rate, frame.time_base, frame.pts = AUDIO_RATE, Fraction(1, AUDIO_RATE), round(time_s * AUDIO_RATE)
    return frame


def test_a_file_without_sound_gives_no_samples() -> None:
    assert list(read_samples(sample_clip())) == []


def test_sound_that_starts_late_is_preceded_by_silence(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv", grey_ramp(25), sound=tone(0.5), sound_start_s=0.3, pixels="yuv444p")
    samples = all_samples(path)
    assert peak_time(samples) == pytest.approx(0.3, abs=0.005)
    assert len(samples) / AUDIO_RATE == pytest.approx(0.8, abs=0.005)
    info = probe(path)
    assert info.audio.start_s == pytest.approx(0.3, abs=0.005)


def test_sound_from_the_middle_and_of_limited_length(tmp_path: Path) -> None:
    sound = np.concatenate([np.zeros(round(0.6 * 44_100), np.float32), tone(0.4)])
    path = write_clip(tmp_path / "a.mp4", grey_ramp(25), sound=sound)
    samples = all_samples(path, start=0.4, duration_s=0.5)
    assert len(samples) == AUDIO_RATE // 2
    assert peak_time(samples) == pytest.approx(0.2, abs=0.005)


def test_gaps_are_filled_and_overlaps_dropped() -> None:
    def frame(time_s: float, level: int) -> av.AudioFrame:
        return audio_frame(np.full(4800, level, np.int16), time_s)

    pieces = [frame(-0.05, 1), frame(0.05, 2), frame(0.151, 3), frame(0.5, 4), frame(0.55, 5)]
    samples = np.concatenate(list(aligned(pieces, StreamClock((0.0,)), start=0.0)))
    runs = [(int(level), int((samples == level).sum())) for level in range(6)]
    # 3 is one millisecond late, which counts as rounding; the half of 5 that overlaps with 4 is dropped.
    assert runs == [(0, 24000 - 3 * 4800 + 2400), (1, 2400), (2, 4800), (3, 4800), (4, 4800), (5, 2400)]
    assert len(samples) == round(0.65 * AUDIO_RATE)


def test_a_long_pause_of_the_sound_is_silence_while_the_pictures_continue() -> None:
    """A participant who is muted or joins late is not a fault of the file's clock."""

    def length_s(*starts_s: float, end_s: float) -> float:
        pieces = [audio_frame(np.full(AUDIO_RATE, 9, np.int16), at) for at in starts_s]
        return sum(map(len, aligned(pieces, StreamClock((0.0,), end_s=end_s), 0.0))) / AUDIO_RATE

    assert length_s(0, 71, end_s=80) == 72
    assert length_s(75, end_s=80) == 76
    assert length_s(0, 4000, end_s=80) == 2  # a jump of the clock: the pictures end before
