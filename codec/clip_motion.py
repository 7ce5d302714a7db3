"""The motion of a whole clip: keypoints of every frame, fitted to what its sources can do, and packed."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from .alignment import hold, unknowns
from .decoder import Decoder
from .media import Picture
from .motion import MotionCoder, Quantiser
from .motion_rdo import MotionQuantiser, Quadratic, Spool
from .motion_tables import load_tables
from .packets import MotionPacket, runs_of
from .plans import ATTEMPTS, CLOSE, RECORD_BYTES, Coded, before
from .refinement import KeypointFit

SHOWN_SHARE = 1e-6
"""What keypoints weigh in frames that are sources: nothing, but that something has to be chosen."""
FINEST, COARSEST = 0.35, 2.8
"""Times the usual quantisation steps."""
STEEPNESS = 1.2
"""Steps grow as this power of what the motion is to be divided by, roughly."""

Fit = tuple[Quadratic, int]
"""Keypoints of a frame with what errors of them cost, and the slot of the source that leads."""


def fitted_motion(
    pictures: Iterable[Picture],
    detected: NDArray[np.float32],
    coded: Coded,
    decoder: Decoder,
    fit: KeypointFit,
    tell: Callable[[float], None] = lambda share: None,
) -> Iterator[Fit]:
    """The keypoints of every frame, fitted to its motion from the sources that will rebuild it. What errors of them
    cost is next to nothing in frames that are shown as they came. `detected` are the keypoints (n, K, 3) before."""
    leader, sent, coming = 0, 0, iter(pictures)
    shown = {packet.frame for packet in coded.packets}
    # A file that has grown shorter since the first pass ends with the motion that was found then.
    for number, keypoints in enumerate(detected):
        picture = next(coming, None)
        due = before(coded.packets, coded.plan, number + 1)
        for packet in coded.packets[sent:due]:
            decoder.add_source(packet)
        sent = due
        if picture is None or number in shown:
            yield Quadratic(unknowns(keypoints), np.diag(hold(keypoints.size)) * SHOWN_SHARE), leader
        else:
            decoder.prepare()
            found = fit.frame(picture, keypoints, decoder.library.candidates(keypoints), decoder.rebuild)
            leader = decoder.library.slot(found.source) or 0
            assert found.gram is not None
            decoder.nearest(found.keypoints, leader)
            yield Quadratic(unknowns(found.keypoints), found.gram()), leader
        tell((number + 1) / len(detected))


def packed_motion(
    messages: Iterable[Sequence[Fit]], quantiser: Quantiser, most: float = np.inf
) -> Iterator[MotionPacket]:
    """The motion quantised, in packets of at most so many bytes a frame."""
    chooser, first = MotionQuantiser(MotionCoder(load_tables()), quantiser), 0
    for message in messages:
        frames, leaders = zip(*message, strict=True)
        found = chooser.message(frames, leaders, most * len(frames))
        yield MotionPacket(first, len(frames), None, found.payload, runs_of(found.leaders), found.stride)
        first += len(frames)


def quantised_motion(
    found: Iterable[Fit], message_frames: int, most: float, start: float = 1.0, finest: float = 1.0
) -> tuple[Quantiser, list[MotionPacket]]:
    """The motion at the finest steps at which it takes at most so many bytes, but for a few per cent; where even the
    coarsest take more, each message is held to its share. `start` times the usual steps are tried first, `finest` are
    the finest that are wanted."""
    leaders: list[int] = []

    def frames() -> Iterator[Quadratic]:
        for quadratic, leader in found:
            leaders.append(leader)
            yield quadratic

    def messages(spool: Spool) -> Iterator[list[Fit]]:
        first = 0
        for together in spool.messages(message_frames):
            yield list(zip(together, leaders[first : first + len(together)], strict=True))
            first += len(together)

    with Spool(frames()) as spool:
        tried: dict[float, list[MotionPacket]] = {}
        coarser = start
        for _ in range(ATTEMPTS):
            tried[coarser] = list(packed_motion(messages(spool), coarsened(coarser)))
            excess = motion_size(tried[coarser]) / most
            if abs(excess - 1) <= CLOSE:
                break
            coarser = min(max(coarser * excess**STEEPNESS, finest), COARSEST)
            if coarser in tried:
                break
        affordable = [coarser for coarser, packets in tried.items() if motion_size(packets) <= most * (1 + CLOSE)]
        if affordable:
            return coarsened(min(affordable)), tried[min(affordable)]
        held = list(packed_motion(messages(spool), coarsened(COARSEST), most / len(leaders)))
    return coarsened(COARSEST), held


def motion_size(packets: Iterable[MotionPacket]) -> int:
    """Bytes, with what the container adds."""
    return sum(len(packet.to_bytes()) + RECORD_BYTES for packet in packets)


def coarsened(times: float) -> Quantiser:
    return Quantiser(Quantiser.step_xy * times, Quantiser.step_strength * times)
