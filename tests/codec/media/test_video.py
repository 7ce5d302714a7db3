"""Reading pictures, and resampling them to a constant rate."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iwcodec.codec.errors import MediaError
from iwcodec.codec.media.types import VideoFrame
from iwcodec.codec.media.video import at_constant_rate, probe, read_video, sample_clip
from support.media.clips import BLUE, GREEN, GREY, RED, corners, grey_ramp, quarters, write_clip


def test_probe_describes_the_sample() -> None:
    info = probe(sample_clip())
    assert (info.width, info.height, info.frames) == (640, 360, 200)
    assert info.fps == Fraction(24000, 1001)
    assert info.audio is None
    assert info.rotation == 0


def test_read_video_delivers_every_picture_in_order() -> None:
    times = []
    for frame in read_video(sample_clip()):
        assert frame.picture.shape == (360, 640, 3)
        assert frame.picture.dtype == np.uint8
        assert frame.picture.flags.c_contiguous
        times.append(frame.time_s)
    np.testing.assert_allclose(times, np.arange(200) * 1001 / 24000, atol=1e-4)


def test_read_video_from_the_middle() -> None:
    first = next(read_video(sample_clip(), start=5.0))
    assert 5.0 - 0.03 < first.time_s < 5.0 + 0.03
    whole = {round(f.time_s, 3): f.picture for f in read_video(sample_clip())}
    np.testing.assert_array_equal(first.picture, whole[round(first.time_s, 3)])


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "size"),
    [
        ("a.mp4", "libx264", "yuv444p", (97, 65)),
        ("a.mkv", "ffv1", "bgr0", (33, 31)),
        ("a.mkv", "ffv1", "yuv422p10le", (98, 67)),
        ("a.mkv", "ffv1", "gray", (51, 49)),
        ("a.gif", "gif", "rgb8", (65, 63)),
        ("a.webm", "libvpx-vp9", "yuv420p", (97, 65)),
        ("a.avi", "mjpeg", "yuvj420p", (97, 65)),
    ],
)
def test_any_format_and_odd_size_is_read(
    tmp_path: Path, name: str, codec: str, pixels: str, size: tuple[int, int]
) -> None:
    source = quarters(*size)
    path = write_clip(tmp_path / name, [source] * 5, codec=codec, pixels=pixels)
    info = probe(path)
    assert (info.width, info.height, info.fps) == (*size, 25)
    pictures = list(at_constant_rate(read_video(path), info.fps))
    assert len(pictures) == 5
    for picture in pictures:
        assert picture.shape == source.shape
        if pixels != "gray":
            assert corners(picture) == [RED, GREEN, BLUE, GREY]


def test_a_truncated_file_is_read_up_to_the_cut(tmp_path: Path) -> None:
    path = tmp_path / "cut.mp4"
    path.write_bytes(sample_clip().read_bytes()[:300_000])  # its index is at the front
    frames = list(read_video(path))
    assert 50 < len(frames) < 200


def test_damage_in_the_middle_is_skipped(tmp_path: Path) -> None:
    data = bytearray(sample_clip().read_bytes())
    data[200_000:200_500] = np.random.default_rng(1).bytes(500)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    assert len(list(read_video(path))) > 150


def frames_at(times: list[float]) -> Iterator[VideoFrame]:
    return (VideoFrame(time, picture) for time, picture in zip(times, grey_ramp(len(times), 4, 4), strict=True))


def levels(pictures: Iterator[np.ndarray]) -> list[int]:
    """The frame numbers in the pictures of `grey_ramp`."""
    return [round((float(p.mean()) - 20) / 8) for p in pictures]


def test_a_regular_video_passes_unchanged() -> None:
    for fps in (Fraction(25), Fraction(30000, 1001), Fraction(24000, 1001)):
        rounded = [round(float(n / fps), 3) for n in range(25)]  # milliseconds, as Matroska stores them
        assert levels(at_constant_rate(frames_at(rounded), fps)) == list(range(25))


def test_a_picture_is_shown_until_the_next_one() -> None:
    times = [0.0, 0.05, 0.055, 0.06, 0.2, 0.24]
    assert levels(at_constant_rate(frames_at(times), Fraction(25))) == [0, 3, 3, 3, 3, 4, 5]
    after_a_pause = [0.0, 0.04, 1.0, 1.04]
    assert levels(at_constant_rate(frames_at(after_a_pause), Fraction(25))) == [0] + 24 * [1] + [2, 3]


@settings(max_examples=40)
@given(st.lists(st.floats(-0.1, 0.1), min_size=2, max_size=12), st.floats(0, 1))
def test_inaccurate_timestamps_neither_drop_nor_repeat_pictures(errors: list[float], phase: float) -> None:
    """Errors in periods, at any phase of the grid."""
    times = [(n + phase + error) / 25 for n, error in enumerate(errors)]
    shown = levels(at_constant_rate(frames_at(times), Fraction(25)))
    assert shown[-len(times) :] == list(range(len(times)))


def test_of_a_faster_video_every_nth_picture_is_kept() -> None:
    for factor in (2, 3, 4):
        times = [n / (25 * factor) for n in range(24)]
        shown = levels(at_constant_rate(frames_at(times), Fraction(25)))
        assert len(shown) == 24 / factor
        assert set(np.diff(shown[:-1])) == {factor}


def test_the_first_picture_fills_the_time_before_it() -> None:
    assert levels(at_constant_rate(frames_at([0.1, 0.14]), Fraction(25))) == [0, 0, 0, 0, 1]


def test_the_last_picture_is_shown_as_long_as_the_file_says(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "slides.mp4", grey_ramp(4), fps=Fraction(1, 5))
    assert len(list(at_constant_rate(read_video(path), Fraction(1)))) == 20
    assert probe(path).duration_s == pytest.approx(20)


def test_repeats_are_the_same_object() -> None:
    pictures = list(at_constant_rate(frames_at([0.0, 0.2]), Fraction(25)))
    assert pictures[0] is pictures[1]
    assert pictures[0] is not pictures[-1]


def test_the_grid_may_start_later() -> None:
    times = [n / 25 for n in range(10)]
    assert levels(at_constant_rate(frames_at(times), Fraction(25), start=0.2)) == [5, 6, 7, 8, 9]


@settings(max_examples=40)
@given(st.lists(st.floats(0, 3), min_size=1, max_size=20))
def test_pictures_keep_their_order_and_their_time(times: list[float]) -> None:
    times = sorted(times)
    shown = levels(at_constant_rate(frames_at(times), Fraction(10)))
    assert shown == sorted(shown)
    for n, level in enumerate(shown):
        assert level == 0 or times[level] <= (n + 1) / 10  # not before its time
        later = [time for time in times[level + 1 :] if time < (n - 1) / 10]
        assert not later  # no later one is due
    assert len(shown) >= round((times[-1] - 1e-6) * 10)


def test_variable_frame_rate_file(tmp_path: Path) -> None:
    times = [0.0, 0.033, 0.067, 0.1, 0.3, 0.333, 0.5, 0.9, 0.933]
    path = write_clip(tmp_path / "a.mkv", grey_ramp(9), times_s=times)
    frames = list(read_video(path))
    np.testing.assert_allclose([f.time_s for f in frames], times, atol=1e-3)
    shown = levels(at_constant_rate(iter(frames), Fraction(30)))
    assert len(shown) in (29, 30)
    assert shown[:12] == [0, 1, 2, 3, 3, 3, 3, 3, 3, 4, 5, 5]


def test_animated_webp_is_refused_by_name(tmp_path: Path) -> None:
    """FFmpeg's decoder knows only still pictures."""
    path = tmp_path / "a.webp"
    with av.open(str(path), "w", format="webp") as out:
        stream = out.add_stream("libwebp_anim", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for picture in grey_ramp(3, 32, 32):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")))
        out.mux(stream.encode(None))
    with pytest.raises(MediaError, match="is an animated WebP, which FFmpeg cannot decode"):
        probe(path)
