"""The motion of a whole clip: keypoints of every frame, fitted to its sources, quantised and packed."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, pairwise, zip_longest

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.bitstream.packets import MotionPacket
from iwcodec.codec.decoder import Decoder
from iwcodec.codec.file.fit_cache import FitCache
from iwcodec.codec.file.rate_control.source_plan import (
    BUDGET_TOLERANCE,
    MAX_ATTEMPTS,
    RECORD_BYTES,
    CodedSources,
    Plan,
    sources_due,
)
from iwcodec.codec.file.rate_control.source_selection import thumbnail
from iwcodec.codec.file.skip import SkipMode
from iwcodec.codec.fit.alignment import unknowns
from iwcodec.codec.fit.keypoint_fit import KeypointFit
from iwcodec.codec.media.types import Picture
from iwcodec.codec.motion.decoder import Motion
from iwcodec.codec.motion.transform_coder import SCALES, TransformCoder
from iwcodec.codec.motion.transform_rdo import RateDistortionQuantiser
from iwcodec.codec.motion.transform_tables import load_transform_tables
from iwcodec.codec.motion.types import Fit, Quadratic
from iwcodec.codec.parallel import in_order
from iwcodec.models.runtime.types import Keypoints, Source

USUAL_SCALE, FINEST_SCALE = 78, 46
"""Quantiser scales (transform_coder.py): one with little visible loss, and one with none."""
SCALE_POWER = 1.2
"""The quantiser step grows roughly as this power of the factor by which the motion's bytes are to shrink."""
SIMILAR = 3.0
"""Sources look like a picture if the squared difference of their thumbnails is at most this many times the least."""
MAX_MESSAGE_SOURCES = 24
"""Maximum number of sources in one message of an interleaved plan: with the next source, fewer than a library holds."""


def fit_motion(
    pictures: Iterable[Picture],
    detected: NDArray[np.float32],
    coded: CodedSources,
    message_frames: int,
    decoder: Decoder,
    fit: KeypointFit,
    progress: Callable[[float], None] = lambda share: None,
    skip_every: int = 1,
) -> Iterator[Fit]:
    """Fit the keypoints of every frame to the sources that will reconstruct it, or decide on skip mode.

    `detected` are the network's keypoints (n, K, 3), where the fits start. Sources are added to `decoder` message by
    message (`message_frames` frames), as a receiver gets them. Skip mode is decided once in `skip_every` frames.
    """
    sent, frames, fitting = 0, iter(pictures), FrameFit(coded, decoder, fit, skip_every)
    # If the file became shorter since the first pass, the detected keypoints stand for the missing frames.
    for number, keypoints in enumerate(detected):
        picture = next(frames, None)
        if number % message_frames == 0:
            due = sources_due(coded.packets, coded.plan, min(number + message_frames, len(detected)))
            for packet in coded.packets[sent:due]:
                decoder.add_source(packet)
            sent = due
        yield fitting.frame(number, picture, keypoints)
        progress((number + 1) / len(detected))


def fit_upfront(
    pictures: Iterable[Picture],
    detected: NDArray[np.float32],
    coded: CodedSources,
    piece_frames: int,
    decoder: Decoder,
    new_fit: Callable[[], KeypointFit],
    progress: Callable[[float], None] = lambda share: None,
    skip_every: int = 1,
    step: int = 1,
) -> Iterator[Fit]:
    """As `fit_motion`, in source coordinates, for sources that are all sent first: pieces of `piece_frames` frames are
    fitted on their own, at once. That loses 0.01 dB (two clips). `decoder`: a new one. `step`: every Nth frame of a
    piece is fitted, and the last one; those between are interpolated."""
    count, source_frames = len(detected), {packet.frame for packet in coded.packets}
    for packet in coded.packets:
        decoder.add_source(packet)
    decoder.prepare()  # from here on threads only read it

    def fitted(piece: tuple[int, list[Picture]]) -> list[Fit]:
        first, shown = piece
        fitting = FrameFit(coded, decoder, new_fit(), skip_every)
        numbers = range(first, min(first + piece_frames, count))
        chosen = {first + place for place in nodes(len(numbers), step)} | source_frames
        of_frames = [
            fitting.frame(number, picture, detected[number]) if number in chosen else None
            for number, picture in zip_longest(numbers, shown)
        ]
        known = {place: fit for place, fit in enumerate(of_frames) if fit is not None}
        fits = dict(zip(known, to_source_coordinates(known.values(), decoder), strict=True))
        return interpolated_fits(fits)

    frames, done = iter(pictures), 0
    pieces = ((first, list(islice(frames, piece_frames))) for first in range(0, count, piece_frames))
    for fits in in_order(fitted, pieces):
        yield from fits
        done += len(fits)
        progress(done / count)


def nodes(count: int, step: int) -> list[int]:
    """Every `step`-th of the numbers below `count`, and the last one."""
    return [n for n in range(count) if n % step == 0 or n == count - 1]


def interpolated_fits(known: dict[int, Fit]) -> list[Fit]:
    """The fits of all frames, in source coordinates, from those of some, by ascending number from 0 on, the last among
    them. A frame between two of different reference sources, or in skip mode, is fitted as the first of them."""
    found = [known[0]]
    for (first, a), (last, b) in pairwise(known.items()):
        alike = a.reference_source == b.reference_source and not a.skip and not b.skip
        alike = alike and bool(a.frame.gram.any() and b.frame.gram.any())
        for number in range(first + 1, last):
            share = (number - first) / (last - first)
            target = a.frame.target + (b.frame.target - a.frame.target) * share
            found.append(Fit(Quadratic(target, a.frame.gram), a.reference_source) if alike else a)
        found.append(b)
    return found


class FrameFit:
    """Fits consecutive frames of a clip."""

    def __init__(self, coded: CodedSources, decoder: Decoder, fit: KeypointFit, skip_every: int = 1) -> None:
        """`decoder` holds the sources that a frame may use."""
        self._decoder, self._fit, self._unlike = decoder, fit, coded.plan.unlike
        self._source_frames = {packet.frame for packet in coded.packets}
        self._skip_mode, self._reference_source = SkipMode(decoder, skip_every), 0

    def frame(self, number: int, picture: Picture | None, keypoints: Keypoints) -> Fit:
        """Fit a frame with detected keypoints (K, 3); None: its picture is missing.

        The quadratic form is 0 in skip mode and for frames that are sources themselves: errors of their keypoints cost
        nothing.
        """
        if picture is None or number in self._source_frames:
            return Fit(_free(keypoints), self._reference_source, self._skip_mode.active)
        self._decoder.prepare()
        candidates = self._decoder.library.candidates(keypoints)
        if self._unlike:
            candidates = similar_sources(picture, candidates)
        fitted = self._fit.frame(picture, keypoints, candidates, self._decoder.reconstruct_from)
        skipped_to = self._skip_mode.choose(picture, fitted, candidates)
        self._reference_source = self._decoder.library.slot(skipped_to or fitted.source) or 0
        if skipped_to is not None:
            return Fit(_free(keypoints), self._reference_source, True)
        assert fitted.gram is not None
        return Fit(Quadratic(unknowns(fitted.keypoints), fitted.gram()), self._reference_source)


def similar_sources(picture: Picture, sources: Sequence[Source]) -> list[Source]:
    """The sources that look like a picture, in the same order: those at most SIMILAR times as unlike as the most
    similar one. A detector finds keypoints in black and in title cards too, which tell nothing."""
    shown = thumbnail(picture).astype(np.float32)
    errors = np.array([np.square(thumbnail(source.picture) - shown).mean() for source in sources])
    return [source for source, similar in zip(sources, are_similar(errors), strict=True) if similar]


def are_similar(errors: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which of the sources with these squared differences of thumbnails (n,) look like a picture."""
    return np.asarray(errors <= SIMILAR * (errors.min() + 25))


def _free(keypoints: NDArray[np.float32]) -> Quadratic:
    """A fit in which errors cost nothing."""
    return Quadratic(unknowns(keypoints), np.zeros((keypoints.size, keypoints.size)))


def to_source_coordinates(fits: Iterable[Fit], decoder: Decoder) -> Iterator[Fit]:
    """Transform fits into the coordinates of their reference sources (motion/space.py). `decoder` holds these sources
    when a fit is read, as it does while `fit_motion` runs."""
    for frame, reference_source, skip in fits:
        if not frame.gram.any():
            yield Fit(Quadratic(np.zeros_like(frame.target), frame.gram), reference_source, skip)
            continue
        space = decoder.space(reference_source)
        assert space is not None
        yield Fit(Quadratic(space.coordinates(frame.target), space.metric(frame.gram)), reference_source)


def decode_motion(coded: CodedSources, packets: Iterable[MotionPacket], decoder: Decoder) -> Iterator[Motion]:
    """Decode the motion as a receiver does that gets sources and motion in the order of a file."""
    sent = 0
    for packet in packets:
        due = sources_due(coded.packets, coded.plan, packet.first + packet.count)
        for source in coded.packets[sent:due]:
            decoder.add_source(source)
        sent = due
        yield from decoder.motion(packet)


def message_length(plan: Plan, max_frames: int) -> int:
    """Frames in one message, at most `max_frames`: all its sources must be in the library at once."""
    if plan.upfront or len(plan.frames) < 2:
        return max_frames
    return min(max_frames, MAX_MESSAGE_SOURCES * (plan.frames[1] - plan.frames[0]))


def quantise_messages(messages: Iterable[Sequence[Fit]], scale: int) -> Iterator[MotionPacket]:
    """Quantise and code fits in source coordinates, one packet for each message."""
    quantiser, first = RateDistortionQuantiser(TransformCoder(load_transform_tables()), scale), 0
    for frames in messages:
        message = quantiser.message(frames)
        yield MotionPacket(first, len(frames), None, message.payload, message.runs, scale=scale)
        first += len(frames)


def quantise_to_budget(
    fits: Iterable[Fit], message_frames: int, budget: float, start: int = USUAL_SCALE, finest: int = USUAL_SCALE
) -> list[MotionPacket]:
    """Code fits in source coordinates at the finest scale tried that takes at most `budget` bytes (with
    BUDGET_TOLERANCE); at the coarsest scale tried if none does. `start`: scale tried first; `finest`: limit."""
    tried: dict[int, list[MotionPacket]] = {}
    scale = start
    with FitCache(fits) as cache:
        for _ in range(MAX_ATTEMPTS):
            tried[scale] = list(quantise_messages(cache.messages(message_frames), scale))
            ratio = motion_size(tried[scale]) / budget
            if abs(ratio - 1) <= BUDGET_TOLERANCE:
                break
            estimate = scale + 16 * SCALE_POWER * math.log2(max(ratio, 1e-9))
            scale = round(min(max(estimate, finest), SCALES - 1))
            if scale in tried:
                break
    affordable = [scale for scale, packets in tried.items() if motion_size(packets) <= budget * (1 + BUDGET_TOLERANCE)]
    return tried[min(affordable, default=max(tried))]


def motion_size(packets: Iterable[MotionPacket]) -> int:
    """Bytes in the file."""
    return sum(len(packet.to_bytes()) + RECORD_BYTES for packet in packets)
