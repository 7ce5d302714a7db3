"""SVT-AV1 as a call would set it: the codec to beat. Real bytes, through PyAV."""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np

from ..media import Picture

SETTINGS = {
    "preset": "8",
    "svtav1-params": "pred-struct=1:rc=2:lookahead=0:keyint=-1:lp=1",
}
"""Low delay, constant bitrate, no lookahead, one key frame."""


@dataclass(frozen=True)
class RivalResult:
    payload: list[int]
    """Bytes of each frame."""
    pictures: list[Picture]
    settings: dict[str, str]


def encode_svtav1(pictures: Iterable[Picture], fps: Fraction, kbps: float) -> RivalResult:
    """Square uint8 RGB pictures at `fps`, asked for `kbps` -> what it spent and what it looks like.

    Below its floor the rate control spends what it must; the payload tells.
    """
    encoder = av.VideoCodecContext.create("libsvtav1", "w")
    decoder = av.CodecContext.create("libdav1d", "r")
    packets: list[bytes] = []
    for number, picture in enumerate(pictures):
        if number == 0:
            encoder.height, encoder.width = picture.shape[:2]
            encoder.pix_fmt, encoder.framerate, encoder.time_base = "yuv420p", fps, 1 / fps
            encoder.bit_rate = round(kbps * 1000)
            encoder.options = dict(SETTINGS)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24").reformat(format="yuv420p")
        frame.pts = number
        packets += [bytes(packet) for packet in encoder.encode(frame)]
    packets += [bytes(packet) for packet in encoder.encode(None)]
    frames = [frame for packet in packets for frame in decoder.decode(av.Packet(packet))]  # type: ignore[attr-defined]
    frames += decoder.decode(None)  # type: ignore[attr-defined]
    decoded = [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in frames]
    return RivalResult([len(packet) for packet in packets], decoded, dict(SETTINGS))
