"""Coding of source pictures as one AV1 inter sequence.

The first picture is a key picture. Every other one is predicted from earlier ones, which makes it about four times
smaller. SVT-AV1 encodes (through FFmpeg) and dav1d decodes, both configured to return each picture without delay.

Form of a unit (AV1 specification, section 5.3; as a sample of AV1 in ISO media, section 2.4):

    key unit      0x0A, size, sequence header, 0x30, frame
    other unit    0x30, frame

0x0A is the header of a sequence header OBU with a size field, 0x30 that of a frame OBU without one, which extends to
the end of the unit. The encoder's temporal delimiter and frame size field are removed, since the length of the unit
makes them redundant: 4 of the 150 to 600 bytes of a picture.

At very low rates all pictures of a sequence may be coded at three quarters of their side: up to 1 dB better at the
bytes of crf 63, and down to a third fewer bytes. Receivers upscale them.

This module does not parse frame headers. dav1d does, within these limits: a unit is at most one frame, of `size` x
`size` pixels or of the smaller size, and not longer than the raw picture.
"""

import os
from fractions import Fraction
from typing import cast

import av
import cv2
import numpy as np
from av.error import FFmpegError
from av.video.frame import PictureType

from iwcodec.codec.bitstream.varint import write_varint
from iwcodec.codec.errors import FormatError
from iwcodec.codec.media.types import Picture
from iwcodec.codec.sources.priority import kept_priority
from iwcodec.codec.sources.yuv import rgb_to_yuv420, yuv420_to_rgb

# SVT-AV1 logs to standard error. Level 0 leaves fatal errors only; it is read once, at the first message.
os.environ.setdefault("SVT_LOG", "0")

_SEQUENCE_HEADER = 0x0A
_FRAME = 0x30
_FRAME_WITH_SIZE = 0x32
_TEMPORAL_DELIMITER = b"\x12\x00"
_MAX_SEQUENCE_HEADER = 64
_FULL_RANGE = 2
SMALLEST = 64
"""Least side of a coded picture, in pixels: SVT-AV1's limit."""

_SVT_PARAMETERS = ":".join(
    [
        "pred-struct=1",  # low delay: otherwise the encoder holds pictures back (20 of 20 until the flush)
        "lookahead=0",
        "keyint=-1",  # a single key picture; by default there is one every 161 pictures
        "hierarchical-levels=2",  # a higher quality for every fourth picture: 5 % fewer bytes than the default
        "enable-dlf=2",  # the slow, more accurate deblocking: 1 % fewer bytes
        "lp=1",  # threads do not help with one picture at a time
    ]
)


def is_key_unit(unit: bytes) -> bool:
    """Return whether a decoder can start at this unit."""
    return unit[:1] == bytes([_SEQUENCE_HEADER])


def smaller_side(size: int) -> int:
    """Return the reduced side, in pixels, of coded pictures of this size; `size` itself if it has none."""
    side = size * 3 // 4 // 8 * 8
    return side if side >= SMALLEST else size


class SourceEncoder:
    """Encodes pictures of `size` x `size` to AV1 units, one for one, without delay.

    `crf`: quality, 1 (best) to 63, in quarters. `preset`: effort of SVT-AV1, 0 (slowest) to 12. With preset 4 and 256 x
    256 pixels the key picture takes 0.2 s and every further one 40 ms of a slow core. Preset 2 takes three times as
    long for 8 % fewer bytes, preset 8 a quarter of the time for 27 % more. The quality is constant within a sequence,
    because FFmpeg passes only pictures to a running SVT-AV1. `side`: of the coded pictures, `size` or its
    `smaller_side`. Raises ValueError for values out of range.
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
        self._codec.time_base = Fraction(1, 25)  # times are not transmitted, but the encoder requires a rate
        self._codec.framerate = Fraction(25)
        self._codec.thread_count = 1
        self._codec.options = {"preset": str(preset), "svtav1-params": f"{_SVT_PARAMETERS}:crf={crf:g}"}
        self.reconstructed: Picture = np.zeros((size, size, 3), np.uint8)
        """The last picture added, as receivers decode it."""

    def add(self, picture: Picture, key: bool = False) -> bytes:
        """Encode a uint8 RGB picture (size, size, 3) and return its unit.

        `key`: code a key picture, at which late receivers can start; others continue unaffected. The first picture is
        always one. Raises ValueError for another shape or type.
        """
        if picture.shape != (self._size, self._size, 3) or picture.dtype != np.uint8:
            raise ValueError(
                f"a source must be a uint8 picture of {self._size}x{self._size}, not {picture.dtype} {picture.shape}"
            )
        if self._side != self._size:
            picture = cv2.resize(picture, (self._side, self._side), interpolation=cv2.INTER_AREA)
        frame = av.VideoFrame.from_ndarray(rgb_to_yuv420(picture), format="yuv420p")
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
    """Decodes AV1 units to pictures of `size` x `size`, one for one, without delay.

    Pictures are predicted from earlier ones: after a FormatError or `reset` only a key unit is accepted.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self.reset()

    def reset(self) -> None:
        """Drop all state. Call this when a unit is known to be lost, which AV1 itself does not detect."""
        self._needs_key = True
        self._codec = cast(av.VideoCodecContext, av.CodecContext.create("libdav1d", "r"))
        self._codec.thread_count = 1  # with more, dav1d holds pictures back
        self._codec.options = {"max_frame_delay": "1", "max_pixels": str(self._size**2)}

    def add(self, unit: bytes) -> Picture:
        """Decode a unit to a uint8 RGB picture (size, size, 3).

        Raises FormatError if the bytes are not a unit, do not continue the sequence, or have another size or pixel
        format.
        """
        key = is_key_unit(unit)
        if self._needs_key and not key:
            raise FormatError("The source sequence has to start with a key picture.")
        try:
            picture = self._picture(_restore(unit, self._size**2 * 3 // 2))
        except FormatError:
            self.reset()
            raise
        self._needs_key = False
        return picture

    def _picture(self, temporal_unit: bytes) -> Picture:
        try:
            frames = self._codec.decode(av.Packet(temporal_unit))
        except (FFmpegError, ValueError) as error:
            raise FormatError("A source unit has invalid AV1 data.") from error
        if len(frames) != 1:
            raise FormatError(f"A source unit holds {len(frames)} pictures instead of one.")
        frame = frames[0]
        sides = self._size, smaller_side(self._size)
        if frame.width != frame.height or frame.width not in sides:
            raise FormatError(f"A source picture is {frame.width}x{frame.height} instead of {self._size}x{self._size}.")
        if frame.format.name != "yuv420p":
            raise FormatError(f"A source picture's pixels are {frame.format.name} instead of yuv420p.")
        picture = yuv420_to_rgb(frame.to_ndarray().astype(np.uint8, copy=False))
        if frame.width == self._size:
            return picture
        return cv2.resize(picture, (self._size, self._size), interpolation=cv2.INTER_CUBIC)


def _strip(temporal_unit: bytes) -> bytes:
    """Return the unit of a temporal unit that SVT-AV1 wrote. Raises RuntimeError for one of another form."""
    if not temporal_unit.startswith(_TEMPORAL_DELIMITER):
        raise RuntimeError("SVT-AV1 wrote no temporal delimiter")
    position = len(_TEMPORAL_DELIMITER)
    head = b""
    if temporal_unit[position] == _SEQUENCE_HEADER:
        length, payload = _read_size(temporal_unit, position + 1)
        head = temporal_unit[position : payload + length]
        position = payload + length
    if temporal_unit[position] != _FRAME_WITH_SIZE:
        raise RuntimeError("SVT-AV1 wrote another OBU instead of a frame")
    length, payload = _read_size(temporal_unit, position + 1)
    if payload + length != len(temporal_unit):
        raise RuntimeError("SVT-AV1 wrote more than one frame for one picture")
    return head + bytes([_FRAME]) + temporal_unit[payload:]


def _restore(unit: bytes, longest: int) -> bytes:
    """Return a unit as the temporal unit that decoders expect. Raises FormatError unless it has exactly the documented
    form, of at most `longest` bytes."""
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
    return b"".join([_TEMPORAL_DELIMITER, unit[:position], bytes([_FRAME_WITH_SIZE]), write_varint(len(frame)), frame])


def _read_size(data: bytes, position: int) -> tuple[int, int]:
    """Read leb128() (AV1 specification, section 4.10.5) of at most 4 bytes. Return the value and the position after."""
    value = 0
    for i, byte in enumerate(data[position : position + 4]):
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return value, position + i + 1
    raise FormatError("A source unit has an invalid size field.")
