"""How small shifts are left out when a file's frames are rebuilt (models.runtime.Runtime.reconstruct).

Where a speaker sits still, the small shifts of what rests are noise of the motion, and sampling between pixels blurs:
a source shown as it lies is nearer to the truth. Where everything sways a little, the same shifts are the motion. Which
it is the sender finds out, by rebuilding some frames from the stream as it is coded.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from iwcodec.codec.bitstream.packets import MotionPacket
from iwcodec.codec.decoder import Decoder
from iwcodec.codec.file.motion_pass import received
from iwcodec.codec.file.source_plan import Coded, Pictures, wanted
from iwcodec.codec.media.quality import judging_order, psnr
from iwcodec.codec.media.types import Picture
from iwcodec.models.runtime.types import Runtime

ZONES = (0, 5, 8, 12)
"""Tenths of a pixel."""
JUDGES = 24
"""Frames that are rebuilt to find out."""
MIN_GAIN_DB = 0.01
"""For less, nothing is left out."""


def choose_suppression(
    coded: Coded,
    motion: Sequence[MotionPacket],
    count: int,
    pictures: Pictures,
    runtime: Runtime,
    decoder: Decoder,
    tell: Callable[[float], None] = lambda share: None,
) -> int:
    """Tenths of a pixel: the one of ZONES with which the frames of a clip of so many are rebuilt best, from these
    sources and this motion, as they come to this decoder."""
    judges = dict(wanted(judged_frames(coded, count), pictures, hold=False))
    rebuilt = []
    for found in qualities(coded, motion, judges, runtime, decoder):
        rebuilt.append(found)
        tell(len(rebuilt) / len(judges))
    if not rebuilt:
        return ZONES[0]
    means = np.mean(rebuilt, axis=0)
    best = int(np.argmax(means))
    return ZONES[best] if means[best] > means[0] + MIN_GAIN_DB else ZONES[0]


def judged_frames(coded: Coded, count: int) -> list[int]:
    """Numbers of some frames that are no sources, ascending."""
    shown = set(coded.plan.frames)
    return sorted([number for number in judging_order(count) if number not in shown][:JUDGES])


def qualities(
    coded: Coded,
    motion: Sequence[MotionPacket],
    judges: Mapping[int, Picture],
    runtime: Runtime,
    decoder: Decoder,
) -> Iterator[list[float]]:
    """PSNR of each frame that is judged and moves, with each of ZONES."""
    for frame in received(coded, motion, decoder):
        if frame.number in judges and not frame.still:
            near = decoder.nearest(frame.keypoints, frame.reference_source)
            rebuilt = (runtime.reconstruct(frame.keypoints, near, zone / 10) for zone in ZONES)
            yield [psnr(picture, judges[frame.number]) for picture in rebuilt]
