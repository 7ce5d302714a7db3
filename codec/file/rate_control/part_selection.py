"""Choose parts of a clip: which frames' eyes and mouths are sent as part pictures, and which frames show them.

Runs after sources and motion are coded. Candidates are eyes and mouths of the clip's own frames, sampled into the home
source along the coded motion, so that they are registered to it by what the codec itself knows. Parts are added
greedily by the squared error that they take from the reconstructed frames, within a budget. A frame shows a part only
if its reconstruction from the composite source is closer to the original there.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.bitstream.packets import MAX_PARTS_GROUP, Box, MotionPacket, PartsPacket, Run, runs_of
from iwcodec.codec.decoder import Decoder
from iwcodec.codec.file.motion_pass import decode_motion
from iwcodec.codec.file.rate_control.closed_loop import Stream, evaluated_frames
from iwcodec.codec.file.rate_control.source_plan import RECORD_BYTES, Pictures, pictures_of
from iwcodec.codec.media.types import Picture
from iwcodec.codec.motion.decoder import Motion
from iwcodec.codec.sources.av1 import SourceEncoder
from iwcodec.codec.sources.library import CAPACITY
from iwcodec.codec.sources.parts import (
    MASK,
    PART_SIDE,
    REGIONS,
    PartLibrary,
    box_places,
    forward_shift,
    region_box,
)
from iwcodec.models.runtime.types import Keypoints, Runtime, Source

CANDIDATE_FRAMES = 400
"""Frames whose eyes and mouths are candidates for parts."""
PART_CRF, PART_PRESET = 50, 2
"""Quality of the parts, and SVT-AV1's preset. At 44 a part takes 1.5 times the bytes; at 56 lids and teeth blur."""
PART_BYTES = 85
"""Approximate bytes of a part (measured); the first of a region takes three times as many."""
CODING_ERROR = 25.0
"""Squared error that coding adds to a part, in squared grey levels, as expected when parts are chosen."""
MIN_GAIN = 0.03
"""Share of its squared error that a region must lose for a frame to show a part."""
TRIED_PARTS = 2
"""Parts nearest to the original that are reconstructed for a region of a frame."""

_Patch = NDArray[np.float32]
"""(PART_SIDE, PART_SIDE, 3): a region, sampled into the home source's box."""


@dataclass(frozen=True)
class CodedParts:
    """The parts of a clip, and the motion packets that name them."""

    packets: tuple[PartsPacket, ...]
    motion: tuple[MotionPacket, ...]


def choose_parts(
    stream: Stream,
    count: int,
    pictures: Pictures,
    runtime: Runtime,
    budget: float,
    suppression: float = 0.0,
    progress: Callable[[float], None] = lambda share: None,
) -> CodedParts:
    """Choose parts for a coded clip of `count` frames within `budget` bytes. `suppression` in pixels."""
    home_slot = _most_used_slot(stream.motion)
    decoder = Decoder(runtime, capacity=CAPACITY, active=stream.active, suppression=suppression)
    view: RegionView | None = None
    numbers = sorted(evaluated_frames(count, CANDIDATE_FRAMES, stream.coded.plan.frames))
    originals = dict(pictures_of(numbers, pictures, hold=False))
    seen: list[list[tuple[_Patch, _Patch]]] = []
    for motion in decode_motion(stream.coded, stream.motion, decoder):
        if motion.number not in originals:
            continue
        sources, picture = decoder.sources_of(motion), decoder.picture(motion)
        home = decoder.library.at(home_slot)
        if home is None or picture is None:
            continue
        view = view or RegionView(home, decoder.parts)
        original = originals[motion.number]
        seen.append(
            [(view.patch(original, places), view.patch(picture, places)) for places in view.places(motion, sources[0])]
        )
        progress(0.4 * len(seen) / len(originals))
    if view is None:
        return CodedParts((), tuple(stream.motion))
    packets = _coded_within(seen, view, home_slot, budget)
    if not packets:
        return CodedParts((), tuple(stream.motion))
    shown = _assign(
        packets, stream, pictures, runtime, suppression, home_slot, lambda share: progress(0.4 + 0.6 * share)
    )
    used = tuple(packet for packet in packets if any(parts[packet.region] is not None for parts in shown.values()))
    return CodedParts(used, tuple(_with_parts(packet, shown) for packet in stream.motion))


class RegionView:
    """Where the regions of the home source are in other frames."""

    def __init__(self, home: Source, library: PartLibrary) -> None:
        self.home, self._library, self._size = home, library, len(home.picture)
        self.boxes = [region_box(home.keypoints, region, self._size) for region in REGIONS]
        self._places = [box_places(box) for box in self.boxes]

    def places(self, motion: Motion, source: Source) -> list[NDArray[np.float32]]:
        """For each region, where the pixels of its box are in a frame with this reference source."""
        found = []
        for places in self._places:
            if source is not self.home:
                places = places + self._moved(self.home, source.keypoints, places)
            found.append(places + self._moved(source, motion.keypoints, places))
        return found

    def _moved(self, source: Source, keypoints: Keypoints, places: NDArray[np.float32]) -> NDArray[np.float32]:
        return _sampled(forward_shift(self._library.reference(source), keypoints, self._size), places)

    @staticmethod
    def patch(picture: Picture, places: NDArray[np.float32]) -> _Patch:
        """A region of a frame, as it would look in the home source's box."""
        return _sampled(picture, places).astype(np.float32)


def _sampled(planes: NDArray[np.float32] | Picture, places: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(cv2.remap(planes, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


def _error(a: _Patch, b: _Patch) -> float:
    """Mean squared error of two patches, as the mask weighs it."""
    return float((np.square(a - b).mean(-1) * MASK).sum() / MASK.sum())


def _coded_within(
    seen: Sequence[Sequence[tuple[_Patch, _Patch]]], view: RegionView, slot: int, budget: float
) -> tuple[PartsPacket, ...]:
    """Choose parts greedily over both regions and code them; fewer if they take more than `budget` bytes."""
    picks = _ranked(seen, view.boxes, int(budget / PART_BYTES))
    while picks:
        packets = tuple(_coded(seen, view.boxes, slot, picks))
        size = sum(len(packet.to_bytes()) + RECORD_BYTES for packet in packets)
        if size <= budget:
            return packets
        picks = picks[: min(len(picks) - 1, int(len(picks) * budget / size))]
    return ()


def _ranked(seen: Sequence[Sequence[tuple[_Patch, _Patch]]], boxes: Sequence[Box], most: int) -> list[tuple[int, int]]:
    """(region, index into `seen`) of up to `most` parts, the one that brings most first. Each brings more, over all
    frames, than its coding adds to one."""
    left, costs, areas = [], [], [float(box.width * box.height) for box in boxes]
    for region, area in zip(REGIONS, areas, strict=True):
        flat = np.stack([_halved(pair[region][0]).reshape(-1) for pair in seen])
        weight = np.repeat(_halved(MASK).reshape(-1), 3)
        weight /= weight.sum()
        square = (flat * flat) @ weight
        distance = np.maximum(square[:, None] + square[None] - 2 * (flat * weight) @ flat.T, 0)
        costs.append(area * (distance + CODING_ERROR))
        left.append(area * np.array([_error(*pair[region]) for pair in seen]))
    picks: list[tuple[int, int]] = []
    while len(picks) < most:
        gains = [np.maximum(left[region][:, None] - costs[region], 0).sum(0) for region in REGIONS]
        for region in REGIONS:
            if sum(pick[0] == region for pick in picks) >= MAX_PARTS_GROUP:
                gains[region][:] = 0
        region = int(np.argmax([gain.max() for gain in gains]))
        best = int(gains[region].argmax())
        if gains[region][best] <= CODING_ERROR * areas[region]:
            break
        picks.append((region, best))
        left[region] = np.minimum(left[region], costs[region][:, best])
    return picks


def _halved(planes: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(planes, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))


def _coded(
    seen: Sequence[Sequence[tuple[_Patch, _Patch]]], boxes: Sequence[Box], slot: int, picks: Sequence[tuple[int, int]]
) -> Iterator[PartsPacket]:
    for region in REGIONS:
        chosen = sorted(index for of_region, index in picks if of_region == region)
        if chosen:
            encoder = SourceEncoder(PART_SIDE, PART_CRF, PART_PRESET)
            patches = (np.clip(np.rint(seen[index][region][0]), 0, 255).astype(np.uint8) for index in chosen)
            yield PartsPacket(region, 0, slot, boxes[region], tuple(encoder.add(patch) for patch in patches))


def _assign(
    packets: Sequence[PartsPacket],
    stream: Stream,
    pictures: Pictures,
    runtime: Runtime,
    suppression: float,
    home_slot: int,
    progress: Callable[[float], None],
) -> dict[int, tuple[int | None, ...]]:
    """The parts that each frame shows, by its number; frames that show none are left out."""
    decoder = Decoder(runtime, capacity=CAPACITY, active=stream.active, suppression=suppression)
    count = sum(packet.count for packet in stream.motion)
    source_frames = set(stream.coded.plan.frames)  # shown unmodified, whatever parts they name
    frames, shown, view = enumerate(pictures()), {}, None
    coded: list[list[_Patch]] = []
    number, original = next(frames)
    for motion in decode_motion(stream.coded, stream.motion, decoder):
        while number < motion.number and (pair := next(frames, None)) is not None:
            number, original = pair
        sources, picture = decoder.sources_of(motion), decoder.picture(motion)
        home = decoder.library.at(home_slot)
        if home is None or picture is None or motion.number != number or number in source_frames:
            continue
        if view is None:
            view = RegionView(home, decoder.parts)
            for packet in packets:
                decoder.parts.add(packet, home)
            coded = [decoder.parts.pictures(region) for region in REGIONS]
        chosen = _best_parts(motion, sources, original, picture, view, coded, decoder)
        if any(part is not None for part in chosen):
            shown[motion.number] = chosen
        progress((motion.number + 1) / count)
    return shown


def _best_parts(
    motion: Motion,
    sources: Sequence[Source],
    original: Picture,
    picture: Picture,
    view: RegionView,
    coded: Sequence[Sequence[_Patch]],
    decoder: Decoder,
) -> tuple[int | None, ...]:
    places = view.places(motion, sources[0])
    wanted = [view.patch(original, region) for region in places]
    least = [_error(a, view.patch(picture, region)) * (1 - MIN_GAIN) for a, region in zip(wanted, places, strict=True)]
    nearest = [
        [int(n) for n in np.argsort([_error(a, part) for part in parts])[:TRIED_PARTS]]
        for a, parts in zip(wanted, coded, strict=True)
    ]
    best: list[int | None] = [None] * len(REGIONS)
    for rank in range(TRIED_PARTS):  # both regions at once: they hardly overlap
        tried = tuple(parts[rank] if rank < len(parts) else None for parts in nearest)
        shown = decoder.reconstruct_motion(replace(motion, parts=tried))
        if shown is None or tried == (None,) * len(REGIONS):
            break
        for region in REGIONS:
            error = _error(wanted[region], view.patch(shown, places[region]))
            if tried[region] is not None and error < least[region]:
                least[region], best[region] = error, tried[region]
    return tuple(best)


def _most_used_slot(motion: Sequence[MotionPacket]) -> int:
    frames: Counter[int] = Counter()
    for packet in motion:
        for run in packet.runs:
            frames[run.slot] += run.frames
    return max(frames, key=lambda slot: (frames[slot], -slot), default=0)


def _with_parts(packet: MotionPacket, shown: dict[int, tuple[int | None, ...]]) -> MotionPacket:
    none = (None,) * len(REGIONS)
    numbers = [shown.get(number, none) for number in range(packet.first, packet.first + packet.count)]
    if all(parts == none for parts in numbers):
        return packet
    runs: list[tuple[Run, ...]] = [
        runs_of([0 if parts[region] is None else (parts[region] or 0) + 1 for parts in numbers]) for region in REGIONS
    ]
    return replace(packet, parts=tuple(runs))
