"""Writing video files: lossless or close, complete or not at all."""

import os
import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from iwcodec.codec.errors import MediaError
from iwcodec.codec.media.types import AUDIO_RATE
from iwcodec.codec.media.video import probe, read_video
from iwcodec.codec.media.writer import VideoWriter, check_target, check_writable
from support.media.clips import BLUE, GREEN, GREY, RED, all_samples, grey_ramp, plain


def noise_clip(count: int = 5, width: int = 64, height: int = 48) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (count, height // 8, width // 8, 3), np.uint8)
    return [np.ascontiguousarray(c.repeat(8, 0).repeat(8, 1)) for c in coarse]


def written(path: Path, pictures: list[np.ndarray], fps: Fraction = Fraction(25)) -> list[np.ndarray]:
    with VideoWriter(path, (pictures[0].shape[1], pictures[0].shape[0]), fps) as writer:
        for picture in pictures:
            writer.write(picture)
    assert list(path.parent.iterdir()) == [path]
    assert probe(path).fps == fps
    return [frame.picture for frame in read_video(path)]


def test_mkv_keeps_every_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    pictures = [rng.integers(0, 256, (37, 51, 3), np.uint8) for _ in range(4)]
    back = written(tmp_path / "a.mkv", pictures, Fraction(30000, 1001))
    assert len(back) == 4
    for picture, other in zip(pictures, back, strict=True):
        np.testing.assert_array_equal(picture, other)


def test_mkv_keeps_every_sample(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    samples = rng.integers(-20_000, 20_000, 30_000, np.int16)
    with VideoWriter(tmp_path / "a.mkv", (64, 48), Fraction(25), audio=True) as writer:
        for n, picture in enumerate(grey_ramp(15)):
            writer.write(picture)
            writer.write_audio(samples[n * 2000 : (n + 1) * 2000])
    np.testing.assert_array_equal(all_samples(tmp_path / "a.mkv"), samples)


@pytest.mark.parametrize(
    ("name", "most"), [("a.mp4", 6.0), ("a.mov", 6.0), ("a.webm", 6.0), ("a.y4m", 1.5), ("A.Y4M", 1.5)]
)
def test_other_formats_are_close(tmp_path: Path, name: str, most: float) -> None:
    pictures = [plain(colour) for colour in (RED, GREEN, BLUE, GREY, (255, 255, 255), (0, 0, 0))]
    back = written(tmp_path / name, pictures, Fraction(24000, 1001))
    assert len(back) == len(pictures)
    for picture, other in zip(pictures, back, strict=True):
        assert np.abs(picture.astype(int) - other.astype(int)).mean() < most


def test_y4m_is_yuv_444_with_a_standard_header(tmp_path: Path) -> None:
    path = tmp_path / "a.y4m"
    written(path, noise_clip(2, 40, 24), Fraction(30000, 1001))
    header, _, rest = path.read_bytes().partition(b"\n")
    assert header == b"YUV4MPEG2 W40 H24 F30000:1001 Ip A1:1 C444"
    assert len(rest) == 2 * (len(b"FRAME\n") + 40 * 24 * 3)


def test_mp4_has_the_widely_supported_formats(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with VideoWriter(path, (64, 48), Fraction(25), audio=True) as writer:
        for picture in grey_ramp(10):
            writer.write(picture)
            writer.write_audio(np.zeros(1920, np.int16))
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # "faststart": plays while it downloads
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, video.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (audio.codec_context.name, audio.rate) == ("aac", AUDIO_RATE)
        frame = next(container.decode(video))
        assert (frame.colorspace, frame.color_range) == (1, 1)
        assert audio.start_time == 0


def test_an_unknown_suffix_is_refused_with_those_that_work(tmp_path: Path) -> None:
    for name in ("a.avi", "a", "a.mp4.txt"):
        with pytest.raises(MediaError, match=r"\.mp4, \.mov, \.webm, \.mkv and \.y4m"):
            VideoWriter(tmp_path / name, (64, 48), Fraction(25))
    assert check_writable(tmp_path / "A.MP4") == ".mp4"


def test_paths_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"the folder .*none does not exist"):
        VideoWriter(tmp_path / "none" / "a.mkv", (64, 48), Fraction(25))
    (tmp_path / "b.mkv").mkdir()
    with pytest.raises(MediaError, match="is a folder"):
        VideoWriter(tmp_path / "b.mkv", (64, 48), Fraction(25))
    with pytest.raises(MediaError, match="even width"):
        VideoWriter(tmp_path / "a.mp4", (63, 48), Fraction(25))
    assert [p.name for p in tmp_path.iterdir()] == ["b.mkv"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mkv")
    for overwrite in (False, True):
        with pytest.raises(MediaError, match="is a pipe or a device"):
            check_target(tmp_path / "pipe.mkv", overwrite)


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="needs a user without full rights")
def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(MediaError, match="could not be written"):
        VideoWriter(tmp_path / "a.mkv", (64, 48), Fraction(25))
    tmp_path.chmod(0o700)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.y4m"])
def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iwcodec.codec.partial_file.secrets.token_hex", lambda count: "full")
    (tmp_path / f".{name}.full.part").symlink_to("/dev/full")
    rng = np.random.default_rng(5)

    def write_all() -> None:
        with VideoWriter(tmp_path / name, (256, 256), Fraction(25)) as writer:
            for _ in range(3):
                writer.write(rng.integers(0, 256, (256, 256, 3), np.uint8))

    with pytest.raises(MediaError, match="disk is full"):
        write_all()
    assert list(tmp_path.iterdir()) == []


def test_after_an_exception_nothing_remains_and_the_old_file_is_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    path.write_bytes(b"older")

    def interrupted() -> None:
        with VideoWriter(path, (64, 48), Fraction(25), audio=True) as writer:
            for picture in grey_ramp(10):
                writer.write(picture)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"older"


def test_a_picture_of_another_size_is_a_value_error(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mkv", (64, 48), Fraction(25)) as writer:
        with pytest.raises(ValueError, match="48 x 64"):
            writer.write(plain(RED, 48, 64))
        writer.write(plain(RED))
    assert len(list(read_video(tmp_path / "a.mkv"))) == 1


def test_timestamps_of_a_long_output_do_not_drift(tmp_path: Path) -> None:
    fps = Fraction(30000, 1001)
    path = tmp_path / "a.mp4"
    with VideoWriter(path, (16, 16), fps) as writer:
        for _ in range(900):
            writer.write(plain(GREY, 16, 16))
    times = [frame.time_s for frame in read_video(path)]
    assert len(times) == 900
    assert times[-1] == pytest.approx(float(899 / fps), abs=1e-3)
    assert all(a < b for a, b in pairwise(times))
