"""The motion of a whole clip: keypoints of every frame, fitted to what its sources can do, and packed."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.bitstream.packets import MotionPacket
from iwcodec.codec.decoder import Decoder
from iwcodec.codec.file.fit_cache import FitCache
from iwcodec.codec.file.skip import SkipMode
from iwcodec.codec.file.source_plan import ATTEMPTS, CLOSE, RECORD_BYTES, Coded, Plan, before
from iwcodec.codec.fit.alignment import unknowns
from iwcodec.codec.fit.keypoint_fit import KeypointFit
from iwcodec.codec.media.types import Picture
from iwcodec.codec.motion.decoder import Motion
from iwcodec.codec.motion.transform_coder import SCALES, TransformCoder
from iwcodec.codec.motion.transform_rdo import Chooser
from iwcodec.codec.motion.transform_tables import load_transform_tables
from iwcodec.codec.motion.types import Fit, Quadratic

USUAL_SCALE, FINEST_SCALE = 78, 46
"""Steps (motion_transform.py) that lose little that can be seen, and those that lose nothing."""
STEEPNESS = 1.2
"""Steps grow as this power of what the motion is to be divided by, roughly."""
SOURCES_TOGETHER = 24
"""In one message of a stream of sources: with the one after them, fewer than a library holds."""


def fitted_motion(
    pictures: Iterable[Picture],
    detected: NDArray[np.float32],
    coded: Coded,
    message_frames: int,
    decoder: Decoder,
    fit: KeypointFit,
    tell: Callable[[float], None] = lambda share: None,
    looks_every: int = 1,
) -> Iterator[Fit]:
    """The unknowns (alignment.py) of every frame, fitted to its motion from the sources that will rebuild it; or the
    source that is nearer to it as it lies. Errors of them cost nothing there, nor in frames that are shown as they
    came. `detected` are the keypoints (n, K, 3) before, `message_frames` how many frames go together: all the sources
    that precede their message are there, and no others. Whether a source is nearer is found out once in `looks_every`
    frames.
    """
    reference_source, stills, sent, coming = 0, SkipMode(decoder, looks_every), 0, iter(pictures)
    shown = {packet.frame for packet in coded.packets}
    # A file that has grown shorter since the first pass ends with the motion that was found then.
    for number, keypoints in enumerate(detected):
        picture = next(coming, None)
        if number % message_frames == 0:
            due = before(coded.packets, coded.plan, min(number + message_frames, len(detected)))
            for packet in coded.packets[sent:due]:
                decoder.add_source(packet)
            sent = due
        if picture is None or number in shown:
            yield Fit(_free(keypoints), reference_source, stills.still)
        else:
            decoder.prepare()
            candidates = decoder.library.candidates(keypoints)
            found = fit.frame(picture, keypoints, candidates, decoder.rebuild)
            lying = stills.nearer(picture, found, candidates)
            reference_source = decoder.library.slot(lying or found.source) or 0
            if lying is None:
                assert found.gram is not None
                yield Fit(Quadratic(unknowns(found.keypoints), found.gram()), reference_source)
            else:
                yield Fit(_free(keypoints), reference_source, True)
        tell((number + 1) / len(detected))


def _free(keypoints: NDArray[np.float32]) -> Quadratic:
    return Quadratic(unknowns(keypoints), np.zeros((keypoints.size, keypoints.size)))


def from_sources(found: Iterable[Fit], decoder: Decoder) -> Iterator[Fit]:
    """Fits, as the decoder's library is when they are found, in the coordinates of the sources that lead."""
    for frame, reference_source, still in found:
        if not frame.gram.any():
            yield Fit(Quadratic(np.zeros_like(frame.target), frame.gram), reference_source, still)
            continue
        space = decoder.space(reference_source)
        assert space is not None
        yield Fit(Quadratic(space.coordinates(frame.target), space.metric(frame.gram)), reference_source)


def received(coded: Coded, packets: Iterable[MotionPacket], decoder: Decoder) -> Iterator[Motion]:
    """Frames as they come to a decoder that gets sources and motion as a file has them."""
    sent = 0
    for packet in packets:
        due = before(coded.packets, coded.plan, packet.first + packet.count)
        for source in coded.packets[sent:due]:
            decoder.add_source(source)
        sent = due
        yield from decoder.motion(packet)


def together(plan: Plan, most: int) -> int:
    """How many frames make a message, at most `most`: all their sources have to be in the library at once."""
    if plan.upfront or len(plan.frames) < 2:
        return most
    return min(most, SOURCES_TOGETHER * (plan.frames[1] - plan.frames[0]))


def packed_motion(messages: Iterable[Sequence[Fit]], scale: int) -> Iterator[MotionPacket]:
    """Motion in the coordinates of the sources, quantised."""
    chooser, first = Chooser(TransformCoder(load_transform_tables()), scale), 0
    for frames in messages:
        found = chooser.message(frames)
        yield MotionPacket(first, len(frames), None, found.payload, found.runs, scale=scale)
        first += len(frames)


def quantised_motion(
    found: Iterable[Fit], message_frames: int, most: float, start: int = USUAL_SCALE, finest: int = USUAL_SCALE
) -> list[MotionPacket]:
    """The motion, in the coordinates of the sources, at the finest scale at which it takes at most so many bytes, but
    for a few per cent; at the coarsest tried where none does. `start` is tried first, `finest` the finest wanted."""
    tried: dict[int, list[MotionPacket]] = {}
    scale = start
    with FitCache(found) as spool:
        for _ in range(ATTEMPTS):
            tried[scale] = list(packed_motion(spool.messages(message_frames), scale))
            excess = motion_size(tried[scale]) / most
            if abs(excess - 1) <= CLOSE:
                break
            further = scale + 16 * STEEPNESS * math.log2(max(excess, 1e-9))
            scale = round(min(max(further, finest), SCALES - 1))
            if scale in tried:
                break
    affordable = [scale for scale, packets in tried.items() if motion_size(packets) <= most * (1 + CLOSE)]
    return tried[min(affordable, default=max(tried))]


def motion_size(packets: Iterable[MotionPacket]) -> int:
    """Bytes, with what the container adds."""
    return sum(len(packet.to_bytes()) + RECORD_BYTES for packet in packets)
