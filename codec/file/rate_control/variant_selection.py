"""Variants of a clip's most used source, and the sources that each frame's eyes and mouth show.

Runs after sources and motion are coded. Candidates are eyes and mouths of the clip's own frames, brought into the home
source along the coded motion, so that they are registered to it by what the codec itself knows. They are added greedily
by the squared error that they take from the frames' regions, until a budget is spent.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from types import MappingProxyType

import numpy as np

from iwcodec.codec.bitstream.packets import MotionPacket, SourcePacket, region_runs
from iwcodec.codec.decoder import Decoder
from iwcodec.codec.file.motion_pass import decode_motion, motion_size
from iwcodec.codec.file.rate_control.closed_loop import Stream, evaluated_frames, most_used_slot
from iwcodec.codec.file.rate_control.source_plan import CodedSources, Pictures, pictures_of
from iwcodec.codec.media.types import Picture
from iwcodec.codec.motion.decoder import Motion
from iwcodec.codec.parallel import in_order
from iwcodec.codec.sources.library import CAPACITY
from iwcodec.codec.sources.region_signature import Signature, errors_with, signature_errors
from iwcodec.codec.sources.region_view import Looks, Places, RegionView, errors_by_source, looks
from iwcodec.codec.sources.regions import REGIONS, blend, region_mask
from iwcodec.models.runtime.pictures import pixel_grid
from iwcodec.models.runtime.types import Runtime, Source

CANDIDATE_FRAMES = 400
"""Frames whose eyes and mouths are candidates."""
LATEST = 4
"""Newest sources, which AV1 still refers to when the first variant is coded: one of an earlier source takes up to five
times as many bytes as others."""
CODING_ERRORS = (60.0, 40.0)
"""Error that coding adds to eyes and mouth of a variant, in squared grey levels, as expected when candidates are
ranked. Measured on eight clips at 4 kbps: 11 to 68 and 6 to 65."""
CHANGE_ERROR = 60.0
"""Error of a region, summed over frames, that must be saved to show another source: naming it takes two bytes."""

NONE_MISLEADING: Mapping[int, Collection[int]] = {region: () for region in REGIONS}
"""No source misleads, by region."""
RegionErrors = list[dict[int | None, float]]
"""For each region its error with each source, by slot; None: with the reference source."""


@dataclass(frozen=True)
class _Seen:
    """A frame, as the sender compares it with sources."""

    motion: Motion
    source: Source
    """Its reference source."""
    own: int | None
    """The slot of that source."""
    sources: list[dict[int, Signature]]
    """For each region the sources in the library at the time, by slot."""
    looks: Looks


@dataclass(frozen=True)
class _Candidate:
    """A frame whose eyes and mouth may be sent."""

    seen: _Seen
    errors: list[float]
    """Error of each region, shown by the source in the library that is nearest to it."""


def add_variants(
    stream: Stream,
    count: int,
    pictures: Pictures,
    runtime: Runtime,
    budget: float,
    progress: Callable[[float], None] = lambda share: None,
    misleading: Mapping[int, Collection[int]] = NONE_MISLEADING,
    expressive: bool = True,
) -> Stream:
    """Add variants to a coded clip of `count` frames, and say which source each frame's regions show. Both together
    take about `budget` bytes. `misleading`: for each region slots of the sources whose keypoints miss it: they do not
    lend it, and frames of them show no other. `expressive`: compare what eyes and mouths do, too, at 5 ms a frame."""
    home_slot = variant_base(stream, set().union(*misleading.values()))
    if home_slot is None:
        return stream
    coded, spent, candidates = stream.coded, stream_size(stream), list[_Candidate]()
    if coded.plan.upfront and len(coded.packets) < CAPACITY:
        numbers = sorted(evaluated_frames(count, CANDIDATE_FRAMES, coded.plan.frames))
        originals = dict(pictures_of(numbers, pictures, hold=False))
        decoder = Decoder(runtime, capacity=CAPACITY, active=stream.active)
        for seen in _seen(stream, iter(originals.items()), decoder, home_slot, expressive):
            candidates.append(_candidate(seen, misleading))
            progress(0.4 * len(candidates) / len(originals))
        if candidates:
            faces = _variant_pictures(candidates, originals, decoder, home_slot, misleading)
            coded = _coded_within(coded, faces, home_slot, budget)
    stream, most = replace(stream, coded=coded), spent + budget
    known = {candidate.seen.motion.number: candidate.seen.looks for candidate in candidates}
    errors = dict[int, RegionErrors]()
    decoder = Decoder(runtime, capacity=CAPACITY, active=stream.active)
    for seen in _seen(stream, enumerate(pictures()), decoder, home_slot, expressive, known):
        if seen.motion.number not in stream.coded.plan.frames:  # shown unmodified
            errors[seen.motion.number] = _errors(seen, misleading)
        progress(0.5 + 0.5 * (seen.motion.number + 1) / count)
    while True:
        shown = _shown(errors, len(stream.coded.packets))
        named = replace(stream, motion=[_with_regions(packet, shown) for packet in stream.motion])
        if stream_size(named) <= most or stream.coded.packets[-1].base is None:
            return named
        stream = replace(stream, coded=replace(stream.coded, packets=stream.coded.packets[:-1]))


def variant_base(stream: Stream, excluded: Collection[int]) -> int | None:
    """The slot of the source that variants change: the most used one, if possible of the LATEST last upfront."""
    earlier = [packet.slot for packet in stream.coded.packets[:-LATEST] if stream.coded.plan.upfront]
    late = most_used_slot(stream.motion, {*excluded, *earlier})
    return most_used_slot(stream.motion, excluded) if late is None else late


def stream_size(stream: Stream) -> int:
    """Bytes in the file."""
    return stream.coded.size + motion_size(stream.motion)


def _seen(
    stream: Stream,
    originals: Iterator[tuple[int, Picture]],
    decoder: Decoder,
    home_slot: int,
    expressive: bool,
    known: Mapping[int, Looks] = MappingProxyType({}),
) -> Iterator[_Seen]:
    """The frames, in order, whose originals are given by number. `known`: how some of them look, by number."""

    def waiting() -> Iterator[tuple[Picture, Places, _Seen]]:
        view, given = None, next(originals, None)
        for motion in decode_motion(stream.coded, stream.motion, decoder):
            while given is not None and given[0] < motion.number:
                given = next(originals, None)
            if given is None:
                return
            home, sources = decoder.library.at(home_slot), decoder.nearest(motion.keypoints, motion.reference_source)
            if home is None or not sources or motion.number != given[0]:
                continue
            view = view or RegionView(home, decoder.compositor, expressive)
            own, library = decoder.library.slot(sources[0]), view.of_library(decoder.library)
            seen = _Seen(motion, sources[0], own, library, known.get(motion.number, []))
            yield given[1], view.in_frame(motion.keypoints, sources[0]), seen

    def look(item: tuple[Picture, Places, _Seen]) -> _Seen:
        original, places, seen = item
        return seen if seen.looks else replace(seen, looks=looks(original, places))

    return in_order(look, waiting())


def _candidate(seen: _Seen, misleading: Mapping[int, Collection[int]]) -> _Candidate:
    errors = [
        min(error for slot, error in errors_with(of_frame, known).items() if slot not in misleading[region])
        for region, (of_frame, known) in enumerate(zip(seen.looks, seen.sources, strict=True))
    ]
    return _Candidate(seen, errors)


def _errors(seen: _Seen, misleading: Mapping[int, Collection[int]]) -> RegionErrors:
    """How well each source shows the regions of a frame. A reference source that misleads shows no other."""
    return [
        {slot: e for slot, e in of_region.items() if slot is None or slot not in misleading[region]}
        if seen.motion.reference_source not in misleading[region]
        else {None: 0.0}
        for region, of_region in enumerate(errors_by_source(seen.looks, seen.sources, seen.own))
    ]


def _variant_pictures(
    candidates: Sequence[_Candidate],
    originals: dict[int, Picture],
    decoder: Decoder,
    home_slot: int,
    misleading: Mapping[int, Collection[int]],
) -> Iterator[Picture]:
    """The home's picture with other eyes and another mouth, those that bring most first."""
    home = decoder.library.at(home_slot)
    assert home is not None
    view, size = RegionView(home, decoder.compositor, expressive=False), len(home.picture)
    masks = [region_mask(home.keypoints, region, size, pixel_grid(size)) for region in REGIONS]
    led = [[one for one in candidates if one.seen.motion.reference_source not in of] for of in misleading.values()]
    for chosen in zip_longest(*map(_ranked, led, REGIONS)):
        picture = home.picture
        for mask, one in zip(masks, chosen, strict=True):
            if one is not None:
                motion = one.seen.motion
                face = view.whole(originals[motion.number], motion.keypoints, one.seen.source)
                picture = blend(picture, face, mask)
        yield picture


def _ranked(candidates: Sequence[_Candidate], region: int) -> Iterator[_Candidate]:
    """The candidates to send for a region, the one that brings most first. Each brings more, over all frames, than
    coding adds to one."""
    if not candidates:
        return
    regions = np.stack([candidate.seen.looks[region] for candidate in candidates])
    coding_error = CODING_ERRORS[region]
    costs = signature_errors(regions, regions) + coding_error
    left = np.array([candidate.errors[region] for candidate in candidates])
    while True:
        gains = np.maximum(left[:, None] - costs, 0).sum(0)
        best = int(gains.argmax())
        if gains[best] <= coding_error:
            return
        yield candidates[best]
        left = np.minimum(left, costs[:, best])


def _coded_within(coded: CodedSources, variants: Iterator[Picture], base: int, budget: float) -> CodedSources:
    """Code variants after the sources, in their sequence, until `budget` bytes are spent."""
    encoder, whole = coded.encoder, coded.size
    assert encoder is not None
    coded = replace(coded, encoder=None)
    for picture in variants:
        if len(coded.packets) == CAPACITY:
            break
        packet = SourcePacket(len(coded.packets), encoder.add(picture), base=base)
        longer = replace(coded, packets=(*coded.packets, packet))
        if longer.size - whole > budget:
            break
        coded = longer
    return coded


def _shown(errors: Mapping[int, RegionErrors], slots: int) -> dict[int, tuple[int | None, ...]]:
    """The slots, below `slots`, of the sources that each frame's regions show, by its number; frames that show their
    reference source alone are left out."""
    paths = []
    for region in REGIONS:
        of_frames = [of_frame[region] for of_frame in errors.values()]
        kept = [{s: e for s, e in of_frame.items() if s is None or s < slots} for of_frame in of_frames]
        paths.append(cheapest_path(kept))
    shown = dict(zip(errors, zip(*paths, strict=True), strict=True))
    return {number: of_frame for number, of_frame in shown.items() if any(slot is not None for slot in of_frame)}


def cheapest_path(errors: Sequence[Mapping[int | None, float]]) -> list[int | None]:
    """The slot for each frame with the least sum of errors (slot -> error) and changes, which cost CHANGE_ERROR each
    (Viterbi's algorithm)."""
    costs: dict[int | None, float] = {}
    came_from: list[dict[int | None, int | None]] = []
    for of_frame in errors:
        best = min(costs, key=costs.__getitem__, default=None)
        change = costs.get(best, 0.0) + CHANGE_ERROR
        came_from.append({slot: slot if costs.get(slot, math.inf) <= change else best for slot in of_frame})
        costs = {slot: min(costs.get(slot, math.inf), change) + error for slot, error in of_frame.items()}
    path = [min(costs, key=costs.__getitem__)] if costs else []
    for back in reversed(came_from[1:]):
        path.append(back[path[-1]])
    return path[::-1]


def _with_regions(packet: MotionPacket, shown: dict[int, tuple[int | None, ...]]) -> MotionPacket:
    frames = range(packet.first, packet.first + packet.count)
    return replace(packet, regions=region_runs([shown.get(number, ()) for number in frames]))
