"""Which of a few streams of a clip shows it best.

What rate control expects of plans is tried on pieces of the clip, with sources and motion found in less time, and may
err by more than the best of them differ.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from iwcodec.codec.bitstream.packets import MotionPacket
from iwcodec.codec.decoder import Decoder
from iwcodec.codec.file.motion_pass import received
from iwcodec.codec.file.source_plan import Coded, Pictures, wanted
from iwcodec.codec.media.quality import judging_order, psnr
from iwcodec.codec.media.types import Picture
from iwcodec.codec.sources.library import CAPACITY
from iwcodec.models.runtime.types import Runtime

JUDGES = 128
"""Frames that are rebuilt to find out."""


@dataclass(frozen=True)
class Stream:
    """Sources and motion as a file has them."""

    coded: Coded
    motion: Sequence[MotionPacket]
    active: int
    """Sources that enter attention for a frame."""


def best_stream(
    streams: Sequence[Stream],
    count: int,
    pictures: Pictures,
    runtime: Runtime,
    tell: Callable[[float], None] = lambda share: None,
) -> Stream:
    """The one with the highest mean PSNR over some frames of a clip of so many; the first of equals."""
    if len(streams) == 1:
        return streams[0]
    judges = dict(wanted(sorted(judging_order(count)[:JUDGES]), pictures, hold=False))
    found = []
    for stream in streams:
        found.append(quality(stream, judges, receiver_of(stream, runtime)))
        tell(len(found) / len(streams))
    return streams[int(np.argmax(found))]


def receiver_of(stream: Stream, runtime: Runtime) -> Decoder:
    """As files are decoded."""
    return Decoder(runtime, capacity=CAPACITY, active=stream.active)


def quality(stream: Stream, judges: Mapping[int, Picture], decoder: Decoder) -> float:
    """Mean PSNR of the frames that are judged, as a receiver shows them."""
    found = []
    for frame in received(stream.coded, stream.motion, decoder):
        if frame.number in judges:
            picture = decoder.picture(frame)
            assert picture is not None
            found.append(psnr(picture, judges[frame.number]))
    return float(np.mean(found))
