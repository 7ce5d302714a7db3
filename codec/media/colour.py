"""."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from av.video.stream import VideoStream

from iwcodec.codec.media.types import Picture


def _square_pixels(stream: VideoStream, frame: av.VideoFrame) -> tuple[int, int]:
    """Width and height, in the stored orientation, that show a frame undistorted without losing detail."""
    shape = stream.sample_aspect_ratio
    if shape is None or not Fraction(1, 4) <= shape <= 4:
        return frame.width, frame.height
    if shape >= 1:
        return round(frame.width * shape), frame.height
    return frame.width, round(frame.height / shape)


def _display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """The signs of (a, b, c, d) of the display matrix: the stored point (x, y) is shown at
    (a x + c y, b x + d y). The identity if there is none or it is no quarter turn."""
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return 1, 0, 0, 1
    a, b, _, c, d = np.sign(np.frombuffer(bytes(data), np.int32)[:5]).tolist()
    return (a, b, c, d) if (a, d).count(0) + (b, c).count(0) == 2 and a * d - b * c else (1, 0, 0, 1)


def _clockwise(turn: tuple[int, int, int, int]) -> int:
    a, b, c, d = turn
    if a * d - b * c < 0:  # mirrored left to right in the end: what was the turn before that?
        a = -a
    return {(1, 0): 0, (0, 1): 90, (-1, 0): 180, (0, -1): 270}[a, b]


class _ToRgb:
    """Decoded frames to RGB pictures of one size, upright."""

    def __init__(self, width: int, height: int) -> None:
        self._width, self._height = width, height
        self._reformatter = VideoReformatter()
        self._rotation: int | None = None
        self._turn = (1, 0, 0, 1)

    def __call__(self, frame: av.VideoFrame) -> Picture:
        planar = not frame.format.is_rgb and len(frame.format.components) >= 3
        full = frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")
        rgb = self._reformatter.reformat(
            frame,
            self._width,
            self._height,
            "rgb24",
            src_colorspace=_matrix(frame) if planar else None,
            src_color_range=(ColorRange.JPEG if full else ColorRange.MPEG) if planar else None,
        ).to_ndarray()
        if frame.rotation != self._rotation:
            # Asking for side data makes a reference cycle, which keeps a frame until the collector comes by, and that
            # is seldom: a file that is looped in a call would take a megabyte with every turn. A small frame has them
            # as well.
            self._rotation, self._turn = frame.rotation, _display_matrix(VideoReformatter().reformat(frame, 16, 16))
        return _turned(np.asarray(rgb, np.uint8), self._turn)


def _turned(picture: Picture, turn: tuple[int, int, int, int]) -> Picture:
    a, b, c, d = turn
    if a == 0:
        picture, right, down = picture.transpose(1, 0, 2), c, b
    else:
        right, down = a, d
    return np.ascontiguousarray(picture[::down, ::right])


def _matrix(frame: av.VideoFrame) -> Colorspace:
    """How the frame's YUV was made from RGB; where it does not say, what its height suggests."""
    named = {1: Colorspace.ITU709, 5: Colorspace.ITU601, 6: Colorspace.ITU601, 9: Colorspace.BT2020}
    return named.get(int(frame.colorspace), _usual_matrix(frame.height))  # keys: ITU-T H.273, table 4


def _usual_matrix(height: int) -> Colorspace:
    return Colorspace.ITU709 if height >= 720 else Colorspace.ITU601


def _to_yuv(frame: av.VideoFrame, pixels: str, matrix: Colorspace) -> av.VideoFrame:
    return frame.reformat(
        format=pixels,
        dst_colorspace=matrix,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.MPEG,
    )
