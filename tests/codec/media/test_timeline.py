"""Frame rates, leaps of the clock, and lengths of files."""

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iwcodec.codec.media.audio.samples import read_samples
from iwcodec.codec.media.timeline import MAX_RATE, StreamClock, frame_rate, read_timeline
from iwcodec.codec.media.types import AUDIO_RATE, Tracks
from iwcodec.codec.media.video import at_constant_rate, probe, read_video
from support.media.clips import grey_ramp, tone, write_clip


def stating(*rates: Fraction | None) -> Any:
    rates = (*rates, None, None, None)[:3]
    return SimpleNamespace(
        average_rate=rates[0], guessed_rate=rates[1], base_rate=rates[2], time_base=Fraction(1, 90_000)
    )


def test_impossible_rates_fall_back_to_the_next_or_25() -> None:
    assert frame_rate(stating(None, Fraction(1000), Fraction(90000)), []) == 25
    assert frame_rate(stating(None, Fraction(29_997, 1000)), []) == 30
    assert frame_rate(stating(Fraction(29_970_1, 10_000)), []) == Fraction(30000, 1001)
    assert frame_rate(stating(Fraction(0), Fraction(30)), []) == 30


def intervals(times: list[float]) -> list[float]:
    return list(np.diff(sorted(times)))


@pytest.mark.parametrize(
    ("times", "rate"),
    [
        ([n / 24 + 6 * (n > 24) for n in range(48)], 24),  # a pause
        ([n / 24 for n in range(48) if n < 12 or n > 36 or n % 3], 24),  # dropped pictures
        ([n / 24 for n in range(96) if n % 2], 12),
        ([n / 30 for n in range(60)] + [2 + n / 60 for n in range(60)], 60),  # a phone that changes its rate
        ([n / 240 for n in range(100)], 120),
        ([n / 1000 for n in range(100)], Fraction(1000, 9)),
        ([n / 144 for n in range(100)], 72),
        ([3.0 * n for n in range(5)], 1),  # slides
        ([round(n / 24, 3) for n in range(40)], 24),  # milliseconds, as in Matroska
        ([round(n * 1001 / 24000, 3) for n in range(400)], Fraction(24000, 1001)),
    ],
)
def test_the_rate_is_the_densest_usual_one(times: list[float], rate: Fraction) -> None:
    wrong = stating(Fraction(len(times)) / Fraction(times[-1] + 0.04).limit_denominator(1000))
    assert frame_rate(wrong, intervals(times)) == rate


def test_a_stated_rate_that_agrees_with_the_pictures_is_taken() -> None:
    times = [round(n / 24.5, 3) for n in range(100)]
    assert frame_rate(stating(Fraction(49, 2)), intervals(times)) == Fraction(49, 2)
    exact = [n / 24 for n in range(48)]  # a fragmented file: its mean is that of the header
    assert frame_rate(stating(Fraction(23_746, 1000), Fraction(24)), intervals(exact)) == 24


@settings(max_examples=40)
@given(st.lists(st.floats(1e-4, 100), min_size=1, max_size=50))
def test_every_rate_is_in_range(gaps: list[float]) -> None:
    assert 1 <= frame_rate(stating(), gaps) <= MAX_RATE


def test_a_jump_of_the_timestamps_is_removed() -> None:
    clock = StreamClock((-2.0,))
    assert clock(2.0, 0.04) == 0.0
    assert clock(2.5, 0.04) == 0.5
    assert clock(90_002.5, 0.04) == pytest.approx(0.54)
    assert clock(90_002.54, 0.04) == pytest.approx(0.58)
    assert clock(None, 0.04) == pytest.approx(0.62)


def test_a_leap_back_continues_the_timeline() -> None:
    clock = StreamClock((0.0, 2.0))
    times = [clock(stamp, 0.04) for stamp in (1.92, 1.96, 0.0, 0.04, 0.02)]
    assert times == pytest.approx([1.92, 1.96, 2.0, 2.04, 2.02])
    assert clock(0.0, 0.04) == 2.0  # not enough for a leap
    unknown = StreamClock((0.0,))
    assert [unknown(stamp, 0.04) for stamp in (1.96, 0.0)] == pytest.approx([1.96, 2.0])


def test_sound_before_the_first_picture_is_no_leap() -> None:
    clock = StreamClock((-0.7,))
    assert clock(0.0, 0.02) == pytest.approx(-0.7)


def joined(tmp_path: Path, *parts: Path) -> Path:
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def test_joined_files_keep_all_pictures_and_their_sound(tmp_path: Path) -> None:
    """Their clock leaps back at the join. In the first part the sound ends before the pictures."""
    first = write_clip(tmp_path / "1.ts", grey_ramp(24), fps=24, codec="mpeg2video", sound=tone(0.5), rate=48_000)
    beep = np.concatenate([np.zeros(24_000, np.float32), tone(0.3, 48_000)])
    second = write_clip(tmp_path / "2.ts", grey_ramp(24), fps=24, codec="mpeg2video", sound=beep, rate=48_000)
    path = joined(tmp_path, first, second)
    assert probe(path).fps == 24
    assert probe(path).duration_s == pytest.approx(2.0, abs=0.01)
    times = [frame.time_s for frame in read_video(path)]
    np.testing.assert_allclose(times, np.arange(48) / 24, atol=2e-3)
    assert len(list(at_constant_rate(read_video(path), Fraction(24)))) == 48
    sound = np.concatenate(list(read_samples(path)))
    level = np.abs(sound.astype(int))
    beeps = np.flatnonzero(level > level.max() / 2) / AUDIO_RATE
    assert beeps[beeps > 0.6].min() == pytest.approx(1.5, abs=0.05)
    middle = [frame.time_s for frame in read_video(path, start=1.5)]
    np.testing.assert_allclose(middle, np.arange(36, 48) / 24, atol=2e-3)


def test_a_leap_among_reordered_pictures_is_found(tmp_path: Path) -> None:
    """Some pictures from behind the leap are decoded before it. What lies between is no hour of a still picture."""
    times = [n / 25 + 3600 * (n > 13) for n in range(25)]
    path = write_clip(tmp_path / "leap.mkv", grey_ramp(25), times_s=times)
    timeline = read_timeline(path, Tracks())
    assert timeline.leaps == 1
    assert timeline.duration_s == pytest.approx(1.0, abs=0.01)
    read = [frame.time_s for frame in read_video(path)]
    np.testing.assert_allclose(read, np.arange(25) / 25, atol=5e-3)


def test_a_file_that_changes_is_measured_anew(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv", grey_ramp(10))
    assert read_timeline(path, Tracks()).packets == 10
    write_clip(path, grey_ramp(20))
    assert read_timeline(path, Tracks()).packets == 20


def test_pictures_of_avi_have_the_times_of_their_order(tmp_path: Path) -> None:
    """AVI has no timestamps of display: FFmpeg gives pictures those of the order in which they are coded."""
    path = write_clip(tmp_path / "b.avi", grey_ramp(24), fps=24, sound=tone(1.0), rate=48_000)
    assert read_timeline(path, Tracks()).decode_lead is not None
    times = [frame.time_s for frame in read_video(path)]
    np.testing.assert_allclose(times, np.arange(24) / 24, atol=1e-3)
    pictures = list(at_constant_rate(read_video(path), Fraction(24)))
    assert len(pictures) == 24
    assert np.all(np.diff([picture.mean() for picture in pictures]) > 0)
    plain = write_clip(tmp_path / "p.avi", grey_ramp(24), fps=24, codec="mpeg4")
    assert read_timeline(plain, Tracks()).decode_lead is None


def test_sound_after_the_pictures_is_measured(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "long.mp4", grey_ramp(24), fps=24, sound=tone(3.0))
    assert probe(path).sound_end_s == pytest.approx(3.0, abs=0.1)
    assert probe(write_clip(tmp_path / "mute.mp4", grey_ramp(24))).sound_end_s is None
