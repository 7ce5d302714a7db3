"""Source pictures to and from one AV1 inter sequence.

The first picture is a key picture, every other one is predicted from those before it, which makes it about four
times smaller. SVT-AV1 encodes (through FFmpeg), dav1d decodes; both are driven so that each picture put in comes
out at once.

What a unit holds (AV1 specification, section 5.3; the same form as a sample of AV1 in ISO media, section 2.4):

    key unit      0x0A, size, sequence header, 0x30, frame
    other unit    0x30, frame

0x0A is the header of a sequence header OBU that carries its size, 0x30 that of a frame OBU that does not: the unit
ends where the frame ends. The temporal delimiter and the frame's size field, which the encoder writes and the unit's
own length makes superfluous, are left off: 4 of the 150 to 600 bytes of a picture.

Colour: 8-bit 4:2:0, BT.601 matrix over the full range (as in JPEG), chroma centred between its four luma samples.
Both directions are in integers, so every machine gets the same picture. At equal bytes this gave 0.1 dB (RGB) more
than BT.709 in the studio range.

Where bits are very scarce all pictures of a sequence may be coded at three quarters of the size a side: at the bytes of
crf 63 they then look up to 1 dB better, and they can be had for a third less. Receivers enlarge them.

Nothing here reads a unit's frame header. dav1d does, under these bounds: a unit is at most one frame, of `size` x
`size` pixels or of the smaller size, and no longer than the raw picture would be.
"""

import os
from fractions import Fraction
from typing import cast

import av
import cv2
import numpy as np
from av.error import FFmpegError
from av.video.frame import PictureType
from numpy.typing import NDArray

from iwcodec.codec.errors import FormatError
from iwcodec.codec.media.types import Picture
from iwcodec.codec.sources.priority import kept_priority

# SVT-AV1 prints to standard error by itself; 0 leaves fatal errors only. It reads this once, at its first message.
os.environ.setdefault("SVT_LOG", "0")

_SEQUENCE_HEADER = 0x0A
_FRAME = 0x30
_FRAME_WITH_SIZE = 0x32
_TEMPORAL_DELIMITER = b"\x12\x00"
_MAX_SEQUENCE_HEADER = 64
_FULL_RANGE = 2
SMALLEST = 64
"""Pixels a side: SVT-AV1 takes no less."""

_SVT_PARAMETERS = ":".join(
    [
        "pred-struct=1",  # low delay: without it the encoder keeps pictures back (20 of 20 until the flush)
        "lookahead=0",
        "keyint=-1",  # one key picture; the default would put one in every 161
        "hierarchical-levels=2",  # every fourth picture a better one: 5 % fewer bytes than the default of 8
        "enable-dlf=2",  # the slow, more exact deblocking: 1 %
        "lp=1",  # one picture at a time has no use for threads
    ]
)


def is_key_unit(unit: bytes) -> bool:
    """Whether a decoder may start at this unit."""
    return unit[:1] == bytes([_SEQUENCE_HEADER])


def smaller_side(size: int) -> int:
    """The other side that coded pictures of this size may have; `size` itself where there is none."""
    side = size * 3 // 4 // 8 * 8
    return side if side >= SMALLEST else size


class SourceEncoder:
    """Pictures of `size` x `size` to AV1 units, one for one, without delay.

    `crf` is AV1's quality, 1 (best) to 63, in quarters. `preset` is SVT-AV1's effort, 0 (slowest) to 12. At 4 and 256 x
    256 the key picture takes 0.2 s and each further one 40 ms of a slow core; 2 takes three times as long for 8 % fewer
    bytes, 8 a quarter of it for 27 % more. The quality cannot change within a sequence: FFmpeg passes SVT-AV1 nothing
    but pictures once it runs. `side` is that of the coded pictures: `size`, or its `smaller_side`.
    """

    def __init__(self, size: int, crf: float = 50, preset: int = 4, side: int | None = None) -> None:
        if not SMALLEST <= size <= 4096 or size % 8:
            raise ValueError(f"size must be a multiple of 8 from {SMALLEST} to 4096, not {size}")
        if not 1 <= crf <= 63:
            raise ValueError(f"crf must be from 1 to 63, not {crf}")
        if side not in (None, size, smaller_side(size)):
            raise ValueError(f"side must be {size} or {smaller_side(size)}, not {side}")
        self._size, self._side = size, side or size
        self._count = 0
        self._decoder = SourceDecoder(size)
        self._codec = av.CodecContext.create("libsvtav1", "w")
        self._codec.width = self._codec.height = self._side
        self._codec.pix_fmt = "yuv420p"
        self._codec.color_range = _FULL_RANGE
        self._codec.time_base = Fraction(1, 25)  # AV1 carries no times here; the encoder only wants some rate
        self._codec.framerate = Fraction(25)
        self._codec.thread_count = 1
        self._codec.options = {"preset": str(preset), "svtav1-params": f"{_SVT_PARAMETERS}:crf={crf:g}"}
        self.reconstructed: Picture = np.zeros((size, size, 3), np.uint8)
        """The last picture added, as a receiver has it."""

    def add(self, picture: Picture, key: bool = False) -> bytes:
        """Encodes a uint8 RGB picture (size, size, 3) and returns its unit.

        `key` asks for a key picture (the first is one anyway), where a receiver that joins late can start; receivers
        that are already decoding go on without notice.
        """
        if picture.shape != (self._size, self._size, 3) or picture.dtype != np.uint8:
            raise ValueError(
                f"a source must be a uint8 picture of {self._size}x{self._size}, not {picture.dtype} {picture.shape}"
            )
        if self._side != self._size:
            picture = cv2.resize(picture, (self._side, self._side), interpolation=cv2.INTER_AREA)
        frame = av.VideoFrame.from_ndarray(rgb_to_yuv(picture), format="yuv420p")
        frame.pts = self._count
        if key:
            frame.pict_type = PictureType.I
        with kept_priority():  # the first picture opens the encoder
            packets = self._codec.encode(frame)
        if len(packets) != 1:
            raise RuntimeError(f"SVT-AV1 returned {len(packets)} packets for one picture")
        unit = _strip(bytes(packets[0]))
        self._count += 1
        self.reconstructed = self._decoder.add(unit)
        return unit


class SourceDecoder:
    """AV1 units to pictures of `size` x `size`, one for one, without delay.

    Pictures build on those before them: after a FormatError, or `reset`, only a key unit is taken.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self.reset()

    def reset(self) -> None:
        """Forgets all pictures. To be called when a unit is known to be missing, for AV1 does not notice."""
        self._wants_key = True
        self._codec = cast(av.VideoCodecContext, av.CodecContext.create("libdav1d", "r"))
        self._codec.thread_count = 1  # with more, dav1d keeps pictures back
        self._codec.options = {"max_frame_delay": "1", "max_pixels": str(self._size**2)}

    def add(self, unit: bytes) -> Picture:
        """The uint8 RGB picture (size, size, 3) of a unit.

        Raises FormatError when the bytes are not a unit, or one that does not follow those before it, or one of
        another size or pixel format.
        """
        key = is_key_unit(unit)
        if self._wants_key and not key:
            raise FormatError("The source sequence has to start with a key picture.")
        try:
            picture = self._picture(_restore(unit, self._size**2 * 3 // 2))
        except FormatError:
            self.reset()
            raise
        self._wants_key = False
        return picture

    def _picture(self, temporal_unit: bytes) -> Picture:
        try:
            frames = self._codec.decode(av.Packet(temporal_unit))
        except (FFmpegError, ValueError) as error:
            raise FormatError("A source picture's AV1 data are damaged.") from error
        if len(frames) != 1:
            raise FormatError(f"A source unit holds {len(frames)} pictures instead of one.")
        frame = frames[0]
        sides = self._size, smaller_side(self._size)
        if frame.width != frame.height or frame.width not in sides:
            raise FormatError(f"A source picture is {frame.width}x{frame.height} instead of {self._size}x{self._size}.")
        if frame.format.name != "yuv420p":
            raise FormatError(f"A source picture's pixels are {frame.format.name} instead of yuv420p.")
        picture = yuv_to_rgb(frame.to_ndarray().astype(np.uint8, copy=False))
        if frame.width == self._size:
            return picture
        return cv2.resize(picture, (self._size, self._size), interpolation=cv2.INTER_CUBIC)


def _strip(temporal_unit: bytes) -> bytes:
    """What SVT-AV1 writes -> a unit."""
    if not temporal_unit.startswith(_TEMPORAL_DELIMITER):
        raise RuntimeError("SVT-AV1 wrote no temporal delimiter")
    position = len(_TEMPORAL_DELIMITER)
    head = b""
    if temporal_unit[position] == _SEQUENCE_HEADER:
        length, payload = _read_size(temporal_unit, position + 1)
        head = temporal_unit[position : payload + length]
        position = payload + length
    if temporal_unit[position] != _FRAME_WITH_SIZE:
        raise RuntimeError("SVT-AV1 wrote something else than a frame")
    length, payload = _read_size(temporal_unit, position + 1)
    if payload + length != len(temporal_unit):
        raise RuntimeError("SVT-AV1 wrote more than one frame for one picture")
    return head + bytes([_FRAME]) + temporal_unit[payload:]


def _restore(unit: bytes, longest: int) -> bytes:
    """A unit -> the temporal unit a decoder expects. FormatError unless it is exactly of the documented form."""
    if len(unit) > longest:
        raise FormatError(f"A source unit has {len(unit)} bytes; at most {longest} are allowed.")
    position = 0
    if is_key_unit(unit):
        length, payload = _read_size(unit, 1)
        if length > _MAX_SEQUENCE_HEADER:
            raise FormatError("A source unit's sequence header is too long.")
        position = payload + length
    if len(unit) < position + 2 or unit[position] != _FRAME:
        raise FormatError("A source unit holds no frame.")
    frame = unit[position + 1 :]
    return b"".join([_TEMPORAL_DELIMITER, unit[:position], bytes([_FRAME_WITH_SIZE]), _write_size(len(frame)), frame])


def _read_size(data: bytes, position: int) -> tuple[int, int]:
    """leb128() of section 4.10.5, at most 4 bytes: (value, position after it)."""
    value = 0
    for i, byte in enumerate(data[position : position + 4]):
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return value, position + i + 1
    raise FormatError("A source unit's size field is damaged.")


def _write_size(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


# The matrix of ITU-T T.871 (JFIF) in 16-bit fixed point. Chroma is computed from sums of four pixels, hence 18 bits.
_LUMA = np.array([19595, 38470, 7471], np.int32)
_CHROMA = np.array([[-11059, -21709, 32768], [32768, -27439, -5329]], np.int32)
_TO_RED, _TO_GREEN, _TO_BLUE = 91881, (-22554, -46802), 116130


def rgb_to_yuv(rgb: Picture) -> Picture:
    """(H, W, 3) -> the three planes below each other, (H * 3 / 2, W), FFmpeg's yuv420p."""
    width = rgb.shape[1]
    wide = rgb.astype(np.int32)
    rows = wide[0::2] + wide[1::2]
    fours = rows[:, 0::2] + rows[:, 1::2]
    luma = (wide @ _LUMA + (1 << 15)) >> 16
    # One less than half, so that full blue and full red (256 before clipping) still round to 255 by themselves.
    chroma = [((fours @ row + (128 << 18) + (1 << 17) - 1) >> 18).reshape(-1, width) for row in _CHROMA]
    return np.concatenate([luma, *chroma]).astype(np.uint8)


def yuv_to_rgb(planes: Picture) -> Picture:
    """(H * 3 / 2, W) -> (H, W, 3). Chroma is interpolated linearly, nearest sample 3/4, in each direction."""
    height, width = planes.shape[0] * 2 // 3, planes.shape[1]
    luma = planes[:height].astype(np.int32)
    half = planes[height:].reshape(2, height // 2, width // 2).astype(np.int32) - 128
    # 16 times too large. Whole planes and in place: the same numbers in half the time.
    cb, cr = (np.ascontiguousarray(_double(_double(plane).T).T) for plane in half)
    scaled = (luma << 20) + (1 << 19)
    red, green, blue = _TO_RED * cr, _TO_GREEN[0] * cb + _TO_GREEN[1] * cr, _TO_BLUE * cb
    return cv2.merge([_rounded(scaled, difference) for difference in (red, green, blue)])


def _rounded(scaled: NDArray[np.int32], difference: NDArray[np.int32]) -> Picture:
    """One colour from the luma and its difference to it, both 2^20 times too large; overwrites the difference."""
    difference += scaled
    difference >>= 20
    return np.clip(difference, 0, 255, out=difference).astype(np.uint8)


def _double(plane: NDArray[np.int32]) -> NDArray[np.int32]:
    """Twice as many rows, four times as large: 3 parts the row itself, 1 part the neighbour."""
    padded = np.pad(plane, ((1, 1), (0, 0)), mode="edge")
    out = np.empty((2 * plane.shape[0], plane.shape[1]), np.int32)
    out[0::2] = 3 * plane + padded[:-2]
    out[1::2] = 3 * plane + padded[2:]
    return out
