"""Decoded frames become upright RGB pictures with square pixels and the right colours."""

import gc
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from iwcodec.codec.media.conversion import RgbConverter
from iwcodec.codec.media.video import probe, read_video
from support.media.clips import BLUE, GREEN, GREY, RED, corners, plain, quarters, write_clip


@pytest.mark.parametrize(
    ("turn", "expected", "size"),
    [
        ({"degrees": 0}, [RED, GREEN, BLUE, GREY], (96, 64)),
        ({"degrees": 0, "hflip": True}, [GREEN, RED, GREY, BLUE], (96, 64)),
        ({"degrees": 90}, [GREEN, GREY, RED, BLUE], (64, 96)),
        ({"degrees": 90, "hflip": True}, [GREY, GREEN, BLUE, RED], (64, 96)),
        ({"degrees": 180}, [GREY, BLUE, GREEN, RED], (96, 64)),
        ({"degrees": 180, "hflip": True}, [BLUE, GREY, RED, GREEN], (96, 64)),
        ({"degrees": 270}, [BLUE, RED, GREY, GREEN], (64, 96)),
        ({"degrees": 270, "hflip": True}, [RED, BLUE, GREEN, GREY], (64, 96)),
    ],
)
def test_rotation_and_mirroring_are_applied(tmp_path: Path, turn: dict, expected: list, size: tuple[int, int]) -> None:
    """`degrees` counts counter-clockwise, as FFmpeg does."""
    path = write_clip(tmp_path / "a.mp4", [quarters()] * 3, prepare=lambda stream: stream.set_display_rotation(**turn))
    info = probe(path)
    assert (info.width, info.height) == size
    assert info.rotation == -turn["degrees"] % 360
    pictures = [frame.picture for frame in read_video(path)]
    assert len(pictures) == 3
    assert pictures[0].shape == (size[1], size[0], 3)
    assert corners(pictures[0]) == expected


def test_pixels_are_made_square(tmp_path: Path) -> None:
    def anamorphic(stream: av.VideoStream) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)

    path = write_clip(tmp_path / "a.mp4", [quarters(96, 64)], prepare=anamorphic)
    assert (probe(path).width, probe(path).height) == (128, 64)
    assert next(read_video(path)).picture.shape == (64, 128, 3)


@pytest.mark.parametrize(("matrix", "height"), [(1, 64), (5, 64), (2, 64), (1, 720), (2, 720)])
def test_colours_are_decoded_with_the_matrix_they_were_encoded_with(tmp_path: Path, matrix: int, height: int) -> None:
    """Codes of ITU-T H.273, table 4; 2 is unspecified: BT.709 from 720 lines on, else BT.601."""
    bt709 = matrix == 1 or (matrix == 2 and height >= 720)
    target = av.video.reformatter.Colorspace.ITU709 if bt709 else av.video.reformatter.Colorspace.ITU601
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, height, "yuv444p"
        stream.codec_context.colorspace = matrix
        frame = av.VideoFrame.from_ndarray(plain(GREEN, 64, height), format="rgb24")
        frame = frame.reformat(format="yuv444p", dst_colorspace=target)
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    picture = next(read_video(path)).picture
    assert np.abs(picture.astype(int) - GREEN).max() <= 3


def test_the_matrix_of_smpte_240m_is_known() -> None:
    """Code 7 of ITU-T H.273, table 4."""
    red, green, blue = np.array((200, 60, 40)) / 255
    luma = 0.212 * red + 0.701 * green + 0.087 * blue
    planes = (16 + 219 * luma, 128 + 224 * (blue - luma) / 1.826, 128 + 224 * (red - luma) / 1.576)
    data = np.stack([np.full((32, 32), round(float(value)), np.uint8) for value in planes])
    frame = av.VideoFrame.from_ndarray(data, format="yuv444p")
    frame.colorspace = 7
    assert np.abs(RgbConverter(32, 32)(frame).astype(int) - (200, 60, 40)).max() <= 2


def test_transparent_pixels_are_black(tmp_path: Path) -> None:
    """Hidden colours do not show, also in VP9, whose alpha FFmpeg's own decoder leaves out."""
    rgba = np.dstack([plain(GREEN, 64, 64), np.full((64, 64), 255, np.uint8)])
    rgba[:, 32:, 3] = 0
    rgba[:, :16, 3] = 128
    for name, codec, pixels in (("a.mov", "prores_ks", "yuva444p10le"), ("a.webm", "libvpx-vp9", "yuva420p")):
        with av.open(str(tmp_path / name), "w") as out:
            stream = out.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 64, pixels
            frame = av.VideoFrame.from_ndarray(rgba, format="rgba").reformat(format=pixels)
            frame.pts, frame.time_base = 0, Fraction(1, 25)
            out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
        picture = next(read_video(tmp_path / name)).picture.astype(int)
        assert picture[:, 36:].max() <= 6
        assert np.abs(picture[:, 20:28] - GREEN).max() < 20
        assert np.abs(picture[:, 2:12] - np.array(GREEN) / 2).max() < 20


def test_if_the_size_changes_midway_later_pictures_are_scaled_to_the_first(tmp_path: Path) -> None:
    path = tmp_path / "a.ts"
    with path.open("wb") as joined:  # transport streams can be concatenated
        for number, size in enumerate([(96, 64), (48, 32)]):
            part = write_clip(tmp_path / f"{number}.ts", [quarters(*size)] * 4)
            joined.write(part.read_bytes())
    shapes = {frame.picture.shape for frame in read_video(path)}
    assert shapes == {(64, 96, 3)}


def test_reading_a_video_repeatedly_leaks_no_frames(tmp_path: Path) -> None:
    """Even without the cycle collector, which runs seldom in a call."""
    clip = write_clip(tmp_path / "large.mp4", [np.full((720, 1280, 3), 90, np.uint8)] * 4)
    list(read_video(clip))
    gc.collect()
    gc.disable()
    try:
        before = resident_mb()
        for _ in range(40):
            list(read_video(clip))
        grown = resident_mb() - before
    finally:
        gc.enable()
    assert grown < 15  # a frame takes 1.4 MB


def resident_mb() -> float:
    psutil = pytest.importorskip("psutil")
    return float(psutil.Process().memory_info().rss) / 2**20
