"""Conventional codecs with the settings of a video call: SVT-AV1, x265, VP9, x264.

Settings favour the rivals: one thread, no lookahead, no B pictures, one key picture at the start, constant bitrate with
the tightest buffer that does not starve the first picture, and the preset with the best quality per bit among those
well under 40 ms per frame at 256 x 256. Only what RTP packets would carry counts: no start codes, access unit
delimiters, SEI messages, temporal delimiters or size fields (RFC 6184, RFC 7798, the AV1 RTP payload format), and no
packet headers.

Below its lowest rate an encoder ignores the target. A conventional system then sends fewer pixels or fewer pictures,
as `shrink` and `skip` do.
"""

import hashlib
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import cast

import av
import cv2
import numpy as np

from iwcodec.codec.sources.av1 import Picture

# This import also silences SVT-AV1, which would write to standard error.
from iwcodec.codec.sources.priority import kept_priority
from iwcodec.codec.sources.yuv import rgb_to_yuv420, yuv420_to_rgb

CODECS = ("svtav1", "x265", "vp9", "x264")
"""Codecs in order of compression, strongest first."""


@dataclass(frozen=True)
class _Rival:
    encoder: str
    decoder: str
    options: Callable[[int], dict[str, str]]  # bits per second -> FFmpeg options
    payload: Callable[[bytes], int]  # packet -> bytes that count


@dataclass(frozen=True)
class RivalResult:
    """An encoded clip. `frame_bytes` has one entry per input picture, 0 for those that `skip` dropped."""

    codec: str
    size: int
    fps: Fraction
    frame_bytes: list[int]
    settings: dict[str, str]
    frame_seconds: list[float]
    """Time in the encoder alone for each coded picture."""
    shrink: int
    skip: int
    key_pictures: int
    _packets: list[bytes]

    @property
    def kbps(self) -> float:
        return sum(self.frame_bytes) * 8 * float(self.fps) / len(self.frame_bytes) / 1000

    @property
    def seconds(self) -> float:
        return sum(self.frame_seconds)

    @property
    def digest(self) -> str:
        """Digest of the coded clip, in hexadecimal."""
        return hashlib.sha256(b"".join(self._packets)).hexdigest()[:16]

    def pictures(self) -> Iterator[Picture]:
        """Decoded pictures (size, size, 3), one per input picture; a dropped one repeats the one before."""
        decoder = cast(av.VideoCodecContext, av.CodecContext.create(_RIVALS[self.codec].decoder, "r"))
        decoder.thread_count = 1
        return islice(self._repeated(decoder), len(self.frame_bytes))

    def _repeated(self, decoder: av.VideoCodecContext) -> Iterator[Picture]:
        for packet in [*(av.Packet(data) for data in self._packets), None]:
            for frame in decoder.decode(packet):
                picture = yuv420_to_rgb(frame.to_ndarray().astype(np.uint8, copy=False))
                if self.shrink > 1:
                    picture = cv2.resize(picture, (self.size, self.size), interpolation=cv2.INTER_CUBIC)
                for _ in range(self.skip):
                    yield picture


def encode_rival(
    codec: str, pictures: Iterable[Picture], fps: Fraction | float, kbps: float, shrink: int = 1, skip: int = 1
) -> RivalResult:
    """Encode square uint8 RGB pictures at about `kbps`, or at the codec's lowest rate if that is higher.

    `codec` is one of CODECS. `shrink` codes at 1/shrink of width and height (decoded pictures are enlarged
    bicubically), `skip` codes every skip-th picture and repeats it `skip` times. Raises ValueError for an unknown
    codec or no pictures.
    """
    options = rival_settings(codec, kbps)
    rival, rate = _RIVALS[codec], Fraction(fps).limit_denominator(1001)
    encoder: av.VideoCodecContext | None = None
    packets: list[bytes] = []
    frame_bytes: list[int] = []
    seconds: list[float] = []
    size, keys = 0, 0
    for number, picture in enumerate(pictures):
        if number % skip:
            frame_bytes.append(0)
            continue
        if encoder is None:
            size = len(picture)
            encoder = _open(rival.encoder, size // shrink, rate / skip, options, round(kbps * 1000))
        started = time.perf_counter()
        with kept_priority():
            encoded = encoder.encode(_frame(picture, shrink, number // skip))
        seconds.append(time.perf_counter() - started)
        if len(encoded) != 1:
            raise RuntimeError(f"{rival.encoder} returned {len(encoded)} packets for one picture")
        keys += encoded[0].is_keyframe
        packets.append(bytes(encoded[0]))
        frame_bytes.append(rival.payload(packets[-1]))
    if encoder is None:
        raise ValueError("no pictures to encode")
    return RivalResult(codec, size, rate, frame_bytes, options, seconds, shrink, skip, keys, packets)


def rival_settings(codec: str, kbps: float) -> dict[str, str]:
    """FFmpeg options of a codec at a rate, in addition to bit_rate, one thread and a single key picture."""
    if codec not in _RIVALS:
        raise ValueError(f"codec must be one of {', '.join(CODECS)}, not {codec}")
    return _RIVALS[codec].options(max(1, round(kbps * 1000)))


def _open(name: str, size: int, fps: Fraction, options: dict[str, str], bit_rate: int) -> av.VideoCodecContext:
    encoder = cast(av.VideoCodecContext, av.CodecContext.create(name, "w"))
    encoder.width = encoder.height = size
    encoder.pix_fmt = "yuv420p"
    encoder.time_base = 1 / fps
    encoder.framerate = fps
    encoder.bit_rate = bit_rate
    encoder.gop_size = 100_000
    encoder.thread_count = 1
    encoder.options = options
    return encoder


def _frame(picture: Picture, shrink: int, pts: int) -> av.VideoFrame:
    if shrink > 1:
        side = len(picture) // shrink
        picture = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
    frame = av.VideoFrame.from_ndarray(rgb_to_yuv420(picture), format="yuv420p")
    frame.pts = pts
    return frame


def _svtav1(bit_rate: int) -> dict[str, str]:
    return {"preset": "6", "svtav1-params": "rc=2:pred-struct=1:lookahead=0:lp=1:keyint=100000"}


def _x264(bit_rate: int) -> dict[str, str]:
    # A buffer of one second starves the first picture, and the clip never recovers.
    vbv = f"vbv-maxrate={_kilo(bit_rate)}:vbv-bufsize={3 * _kilo(bit_rate)}"
    return {
        "preset": "veryfast",
        "tune": "zerolatency",
        "x264-params": f"keyint=infinite:scenecut=0:{vbv}:sliced-threads=0:threads=1",
    }


def _x265(bit_rate: int) -> dict[str, str]:
    vbv = f"vbv-maxrate={_kilo(bit_rate)}:vbv-bufsize={_kilo(bit_rate)}"
    return {
        "preset": "medium",
        "tune": "zerolatency",
        "x265-params": f"log-level=none:info=0:keyint=-1:scenecut=0:{vbv}:pools=none:frame-threads=1",
    }


def _vp9(bit_rate: int) -> dict[str, str]:
    # "good" without lag has no more delay than "realtime"; at cpu-used 5 it takes 10 ms and is 0.7 to 1.5 dB better.
    rate = str(bit_rate)
    return {
        "deadline": "good",
        "cpu-used": "5",
        "lag-in-frames": "0",
        "auto-alt-ref": "0",
        "minrate": rate,
        "maxrate": rate,
        "bufsize": rate,
        "qmin": "2",
        "qmax": "63",
    }


def _kilo(bit_rate: int) -> int:
    return max(1, round(bit_rate / 1000))


def _av1_payload(unit: bytes) -> int:
    """Bytes of all OBUs except temporal delimiters, without size fields (AV1 specification, section 5.3)."""
    total, position = 0, 0
    while position < len(unit):
        kind = unit[position] >> 3 & 15
        size, shift, at = 0, 0, position + 1
        while True:
            size |= (unit[at] & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if unit[at - 1] < 0x80:
                break
        total += 0 if kind == 2 else 1 + size
        position = at + size
    return total


def _nal_payload(packet: bytes, kind: Callable[[int], int], excluded: set[int]) -> int:
    """Bytes of NAL units without start codes (Annex B of H.264 and H.265) and without the excluded types."""
    units = [unit.rstrip(b"\0") for unit in re.split(b"\0\0\1", packet)[1:]]
    return sum(len(unit) for unit in units if kind(unit[0]) not in excluded)


def _h264_payload(packet: bytes) -> int:
    return _nal_payload(packet, lambda first: first & 31, {6, 9})


def _h265_payload(packet: bytes) -> int:
    return _nal_payload(packet, lambda first: first >> 1 & 63, {35, 39, 40})


_RIVALS = {
    "svtav1": _Rival("libsvtav1", "libdav1d", _svtav1, _av1_payload),
    "x264": _Rival("libx264", "h264", _x264, _h264_payload),
    "x265": _Rival("libx265", "hevc", _x265, _h265_payload),
    "vp9": _Rival("libvpx-vp9", "vp9", _vp9, len),
}
