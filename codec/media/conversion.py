"""Convert decoded frames to upright RGB pictures with square pixels, and RGB to YUV."""

from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from av.video.stream import VideoStream

from iwcodec.codec.media.tone_map import HLG, PQ, ToneMap, needs_mapping
from iwcodec.codec.media.types import Picture

Transform = tuple[int, int, int, int]
"""Signs (a, b, c, d) of a display matrix: the stored point (x, y) is shown at (a x + c y, b x + d y)."""
IDENTITY: Transform = (1, 0, 0, 1)


class RgbConverter:
    """Convert decoded frames to RGB pictures of one size, then rotate and mirror them as their metadata says."""

    def __init__(self, width: int, height: int) -> None:
        """`width` and `height`: pixels before rotation."""
        self._width, self._height = width, height
        self._reformatter = VideoReformatter()
        self._rotation: int | None = None
        self._transform = IDENTITY
        self._tone_maps: dict[tuple[int, int], ToneMap] = {}

    def __call__(self, frame: av.VideoFrame) -> Picture:
        rgb = self._mapped(frame) if needs_mapping(frame) else self._converted(frame, self._format(frame))
        picture = np.asarray(rgb.to_ndarray(), np.uint8)
        if picture.shape[2] == 4:
            picture = _on_black(picture)
        if frame.rotation != self._rotation:
            # Reading side data makes a reference cycle, which keeps the frame alive until the rare run of the cycle
            # collector: a file looped in a call would leak a megabyte per loop. A shrunken copy of the frame carries
            # the same side data.
            self._rotation = frame.rotation
            self._transform = display_transform(VideoReformatter().reformat(frame, 16, 16))
        return _transformed(picture, self._transform)

    @staticmethod
    def _format(frame: av.VideoFrame) -> str:
        return "rgba" if any(component.is_alpha for component in frame.format.components) else "rgb24"

    def _converted(self, frame: av.VideoFrame, pixel_format: str) -> av.VideoFrame:
        planar = not frame.format.is_rgb and len(frame.format.components) >= 3
        full = frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")
        return self._reformatter.reformat(
            frame,
            self._width,
            self._height,
            pixel_format,
            src_colorspace=_matrix_of(frame) if planar else None,
            src_color_range=(ColorRange.JPEG if full else ColorRange.MPEG) if planar else None,
        )

    def _mapped(self, frame: av.VideoFrame) -> av.VideoFrame:
        key = (int(frame.color_trc), int(frame.color_primaries))
        if key not in self._tone_maps:
            self._tone_maps = {key: ToneMap(*key)}
        return self._tone_maps[key](self._converted(frame, "rgb48le")).reformat(format="rgb24")


def square_pixel_size(stream: VideoStream, frame: av.VideoFrame) -> tuple[int, int]:
    """Return width and height, before rotation, that give square pixels without losing detail."""
    aspect = stream.sample_aspect_ratio
    if aspect is None or not Fraction(1, 4) <= aspect <= 4:
        return frame.width, frame.height
    if aspect >= 1:
        return round(frame.width * aspect), frame.height
    return frame.width, round(frame.height / aspect)


def display_transform(frame: av.VideoFrame) -> Transform:
    """Return the frame's display matrix; the identity if there is none or it is not a multiple of 90 degrees."""
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return IDENTITY
    a, b, _, c, d = np.sign(np.frombuffer(bytes(data), np.int32)[:5]).tolist()
    return (a, b, c, d) if (a, d).count(0) + (b, c).count(0) == 2 and a * d - b * c else IDENTITY


def clockwise_degrees(transform: Transform) -> int:
    """Return the rotation before any left-right mirroring: 0, 90, 180 or 270."""
    a, b, c, d = transform
    if a * d - b * c < 0:  # undo the mirroring
        a = -a
    return {(1, 0): 0, (0, 1): 90, (-1, 0): 180, (0, -1): 270}[a, b]


def _transformed(picture: Picture, transform: Transform) -> Picture:
    a, b, c, d = transform
    if a == 0:
        picture, right, down = picture.transpose(1, 0, 2), c, b
    else:
        right, down = a, d
    return np.ascontiguousarray(picture[::down, ::right])


def _matrix_of(frame: av.VideoFrame) -> Colorspace:
    """Return the frame's YUV matrix (codes of ITU-T H.273, table 4); if unspecified, the usual one for its height."""
    named = {
        1: Colorspace.ITU709,
        4: Colorspace.FCC,
        5: Colorspace.ITU601,
        6: Colorspace.ITU601,
        7: Colorspace.SMPTE240M,
        9: Colorspace.BT2020,
        10: Colorspace.BT2020,
    }
    unnamed = Colorspace.BT2020 if frame.color_trc in (PQ, HLG) else usual_matrix(frame.height)
    return named.get(int(frame.colorspace), unnamed)


def _on_black(picture: Picture) -> Picture:
    """Composite RGBA (H, W, 4) on black."""
    alpha = picture[..., 3:].astype(np.uint16)
    return ((picture[..., :3] * alpha + 127) // 255).astype(np.uint8)


def usual_matrix(height: int) -> Colorspace:
    """Return BT.709 from 720 lines on, else BT.601."""
    return Colorspace.ITU709 if height >= 720 else Colorspace.ITU601


def rgb_to_yuv(picture: Picture, pixel_format: str, matrix: Colorspace) -> av.VideoFrame:
    """Convert to a limited-range YUV frame."""
    return av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(
        format=pixel_format,
        dst_colorspace=matrix,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.MPEG,
    )
