"""Variants of a clip's most used source, and the sources that each frame's eyes and mouth show.

Runs after sources and motion are coded. Candidates are eyes and mouths of the clip's own frames, brought into the home
source along the coded motion, so that they are registered to it by what the codec itself knows. They are added greedily
by the squared error that they take from the frames' regions, until a budget is spent.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import cv2
import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.bitstream.packets import MotionPacket, SourcePacket, runs_of
from iwcodec.codec.decoder import Decoder
from iwcodec.codec.file.motion_pass import decode_motion
from iwcodec.codec.file.rate_control.closed_loop import Stream, evaluated_frames
from iwcodec.codec.file.rate_control.source_plan import CodedSources, Pictures, Presets, pictures_of, source_encoder
from iwcodec.codec.media.types import Picture
from iwcodec.codec.motion.decoder import Motion
from iwcodec.codec.sources.library import CAPACITY
from iwcodec.codec.sources.region_view import Patch, RegionView, nearest_sources, region_error
from iwcodec.codec.sources.regions import MASK, REGIONS, blend, region_mask
from iwcodec.models.runtime.pictures import pixel_grid
from iwcodec.models.runtime.types import Runtime, Source

CANDIDATE_FRAMES = 400
"""Frames whose eyes and mouths are candidates."""
CODING_ERROR = 40.0
"""Squared error that coding adds to a variant, in squared grey levels, as expected when candidates are ranked."""


@dataclass(frozen=True)
class _Candidate:
    """A frame whose eyes and mouth may be sent."""

    motion: Motion
    source: Source
    """Its reference source."""
    patches: list[Patch]
    errors: list[float]
    """Squared error of each region, shown by the source in the library that is nearest to it."""


def add_variants(
    stream: Stream,
    count: int,
    pictures: Pictures,
    runtime: Runtime,
    presets: Presets,
    budget: float,
    progress: Callable[[float], None] = lambda share: None,
) -> Stream:
    """Add variants of at most `budget` bytes to a coded clip of `count` frames, and say which source each frame's
    regions show."""
    home_slot = _most_used_slot(stream.motion)
    coded = stream.coded
    if coded.plan.upfront and len(coded.packets) < CAPACITY:
        numbers = sorted(evaluated_frames(count, CANDIDATE_FRAMES, coded.plan.frames))
        originals = dict(pictures_of(numbers, pictures, hold=False))
        decoder = Decoder(runtime, capacity=CAPACITY, active=stream.active)
        candidates = []
        for candidate in _candidates(stream, originals, decoder, home_slot):
            candidates.append(candidate)
            progress(0.3 * len(candidates) / len(originals))
        if candidates:
            faces = _variant_pictures(candidates, originals, decoder, home_slot)
            coded = _coded_within(coded, pictures, faces, home_slot, runtime.info.size, presets, budget)
    stream = replace(stream, coded=coded)
    shown = _choose_regions(stream, pictures, runtime, home_slot, lambda share: progress(0.4 + 0.6 * share))
    return replace(stream, motion=[_with_regions(packet, shown) for packet in stream.motion])


def _candidates(
    stream: Stream, originals: dict[int, Picture], decoder: Decoder, home_slot: int
) -> Iterator[_Candidate]:
    view: RegionView | None = None
    for motion in decode_motion(stream.coded, stream.motion, decoder):
        if motion.number not in originals:
            continue
        home, sources = decoder.library.at(home_slot), decoder.nearest(motion.keypoints, motion.reference_source)
        if home is None or not sources:
            continue
        view = view or RegionView(home, decoder.compositor)
        patches = view.of_frame(originals[motion.number], motion.keypoints, sources[0])
        known = view.of_library(decoder.library)
        errors = [
            min(region_error(a, b) for b in of_region.values()) for a, of_region in zip(patches, known, strict=True)
        ]
        yield _Candidate(motion, sources[0], patches, errors)


def _variant_pictures(
    candidates: Sequence[_Candidate], originals: dict[int, Picture], decoder: Decoder, home_slot: int
) -> Iterator[Picture]:
    """The home's picture with other eyes and another mouth, those that bring most first."""
    home = decoder.library.at(home_slot)
    assert home is not None
    view, size = RegionView(home, decoder.compositor), len(home.picture)
    masks = [region_mask(home.keypoints, region, size, pixel_grid(size)) for region in REGIONS]
    for chosen in zip_longest(*(_ranked(candidates, region) for region in REGIONS)):
        picture = home.picture
        for mask, number in zip(masks, chosen, strict=True):
            if number is not None:
                one = candidates[number]
                face = view.whole(originals[one.motion.number], one.motion.keypoints, one.source)
                picture = blend(picture, face, mask)
        yield picture


def _ranked(candidates: Sequence[_Candidate], region: int) -> Iterator[int]:
    """Indices of the candidates to send for a region, the one that brings most first. Each brings more, over all
    frames, than coding adds to one."""
    flat = np.stack([_halved(candidate.patches[region]).reshape(-1) for candidate in candidates])
    weight = np.repeat(_halved(MASK).reshape(-1), 3)
    weight /= weight.sum()
    square = (flat * flat) @ weight
    costs = np.maximum(square[:, None] + square[None] - 2 * (flat * weight) @ flat.T, 0) + CODING_ERROR
    left = np.array([candidate.errors[region] for candidate in candidates])
    while True:
        gains = np.maximum(left[:, None] - costs, 0).sum(0)
        best = int(gains.argmax())
        if gains[best] <= CODING_ERROR:
            return
        yield best
        left = np.minimum(left, costs[:, best])


def _halved(planes: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(planes, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))


def _coded_within(
    coded: CodedSources,
    pictures: Pictures,
    variants: Iterator[Picture],
    base: int,
    size: int,
    presets: Presets,
    budget: float,
) -> CodedSources:
    """Code variants after the sources, in their sequence, until `budget` bytes are spent."""
    encoder = source_encoder(size, coded.plan, presets)
    for _, picture in pictures_of(coded.plan.frames, pictures, hold=True):
        encoder.add(picture)
    whole = coded.size
    for picture in variants:
        if len(coded.packets) == CAPACITY:
            break
        packet = SourcePacket(len(coded.packets), encoder.add(picture), base=base)
        longer = replace(coded, packets=(*coded.packets, packet))
        if longer.size - whole > budget:
            break
        coded = longer
    return coded


def _choose_regions(
    stream: Stream, pictures: Pictures, runtime: Runtime, home_slot: int, progress: Callable[[float], None]
) -> dict[int, tuple[int | None, ...]]:
    """The slots of the sources that each frame's regions show, by its number; frames that show their reference source
    alone are left out."""
    decoder = Decoder(runtime, capacity=CAPACITY, active=stream.active)
    count = sum(packet.count for packet in stream.motion)
    source_frames = set(stream.coded.plan.frames)  # shown unmodified
    frames, shown, view = enumerate(pictures()), {}, None
    previous: tuple[int | None, ...] = (None,) * len(REGIONS)
    number, original = next(frames)
    for motion in decode_motion(stream.coded, stream.motion, decoder):
        while number < motion.number and (pair := next(frames, None)) is not None:
            number, original = pair
        sources = decoder.nearest(motion.keypoints, motion.reference_source)
        home = decoder.library.at(home_slot)
        if home is None or not sources or motion.number != number or number in source_frames:
            continue
        view = view or RegionView(home, decoder.compositor)
        wanted = view.of_frame(original, motion.keypoints, sources[0])
        own = decoder.library.slot(sources[0]) or 0
        previous = nearest_sources(wanted, view.of_library(decoder.library), own, previous)
        if any(slot is not None for slot in previous):
            shown[motion.number] = previous
        progress((motion.number + 1) / count)
    return shown


def _most_used_slot(motion: Sequence[MotionPacket]) -> int:
    frames: Counter[int] = Counter()
    for packet in motion:
        for run in packet.runs:
            frames[run.slot] += run.frames
    return max(frames, key=lambda slot: (frames[slot], -slot), default=0)


def _with_regions(packet: MotionPacket, shown: dict[int, tuple[int | None, ...]]) -> MotionPacket:
    none = (None,) * len(REGIONS)
    frames = [shown.get(number, none) for number in range(packet.first, packet.first + packet.count)]
    if all(slots == none for slots in frames):
        return packet
    regions = [runs_of([0 if (slot := slots[region]) is None else slot + 1 for slots in frames]) for region in REGIONS]
    return replace(packet, regions=tuple(regions))
