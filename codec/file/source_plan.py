"""Which frames of a clip become sources, in what order, and how well they are coded."""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from iwcodec.codec.bitstream.packets import MAX_SLOT, SourcePacket, pack_sources, source_groups
from iwcodec.codec.file.source_selection import Survey, choose_sources, coding_order
from iwcodec.codec.media.quality import psnr
from iwcodec.codec.media.types import Picture
from iwcodec.codec.sources.av1 import SourceEncoder, smaller_side

CRF = 57
"""AV1 quality of the sources where no bitrate is asked for."""
BEST_CRF, WORST_CRF, FINE_CRF = 4, 63, 0.25
"""The last is the finest step that SVT-AV1 takes: 1.4 % of the bytes."""
SMALLER_CRF = 6
"""Smaller pictures take as much, and look as good, as whole ones whose crf is higher by so much: the scale ends at 63,
and this is how it goes on."""
CRF_STEP = 0.055
"""One step of crf changes the bytes by about this share (measured on sources of talking heads)."""
Presets = tuple[int, int]
PRESETS: Presets = (1, 4)
"""SVT-AV1's effort where sources are few: 0.5 s each, for 8 % fewer bytes than 4 takes; and where they are many: 18 ms
each, for 0.9 dB more than 8 gives in 6 ms at the same bytes."""
CLOSE = 0.04
"""Share of the budget that may be missed."""
SPENT = 0.985
"""Share of their budget that sources take at least, where they can."""
ATTEMPTS = 8
RECORD_BYTES = 12
"""What the container adds to a packet."""
TOGETHER_BYTES = 5
"""What container and packet add to a source of several together, roughly."""

Pictures = Callable[[], Iterable[Picture]]
"""Starts over the clip's pictures from the first."""


@dataclass(frozen=True)
class Plan:
    """Frames that become sources, in coding order."""

    frames: tuple[int, ...]
    crf: float
    """Up to `worst_crf`."""
    upfront: bool
    """All before the first motion; otherwise each just before the motion that uses it, in order of time."""


@dataclass(frozen=True)
class Coded:
    plan: Plan
    packets: tuple[SourcePacket, ...]
    shown_db: float = math.nan
    """Mean PSNR of the sources: what frames have that are sources themselves."""

    @property
    def size(self) -> int:
        groups = list(source_groups(self.packets))
        stored = [len(group[0].to_bytes() if len(group) == 1 else pack_sources(group)) for group in groups]
        return sum(stored) + RECORD_BYTES * len(groups)


def worst_crf(size: int) -> int:
    return WORST_CRF + (SMALLER_CRF if smaller_side(size) < size else 0)


def source_encoder(size: int, plan: Plan, presets: Presets) -> SourceEncoder:
    preset = presets[0] if plan.upfront else presets[1]
    if plan.crf <= WORST_CRF:
        return SourceEncoder(size, plan.crf, preset)
    return SourceEncoder(size, plan.crf - SMALLER_CRF, preset, smaller_side(size))


def code(plan: Plan, found: Iterable[tuple[int, Picture]], size: int, presets: Presets = PRESETS) -> Coded:
    """Encode the sources of a plan: frames and their pictures in the plan's order (`wanted` finds them)."""
    encoder, packets, shown = source_encoder(size, plan, presets), [], []
    for slot, (frame, picture) in enumerate(found):
        packets.append(SourcePacket(slot % (MAX_SLOT + 1), encoder.add(picture), frame))
        shown.append(psnr(encoder.reconstructed, picture))
    return Coded(plan, tuple(packets), float(np.mean(shown)) if shown else math.nan)


def wanted(frames: Sequence[int], pictures: Pictures, hold: bool) -> Iterator[tuple[int, Picture]]:
    """The pictures of these frames, in that order; without `hold` the frames ascend and none is kept in memory."""
    asked = set(frames)
    found = ((number, picture) for number, picture in enumerate(pictures()) if number in asked)
    if not hold:
        yield from found
        return
    held: dict[int, Picture] = {}
    for number, picture in found:
        held[number] = picture
        if len(held) == len(asked):
            break
    yield from ((number, held[number]) for number in frames if number in held)


def sparse_plan(survey: Survey, number: int, crf: float = CRF, least_gain_db: float = 0.0) -> Plan:
    return Plan(tuple(coding_order(survey, choose_sources(survey, number, least_gain_db))), crf, True)


def dense_plan(count: int, stride: int, crf: float = CRF) -> Plan:
    return Plan(tuple(range(0, count, stride)), crf, False)


def fitted(plan: Plan, pictures: Pictures, size: int, budget: float, presets: Presets = PRESETS) -> Coded:
    """The plan coded at the best quality that was found within the budget; the cheapest where none is."""
    tried: dict[float, Coded] = {}
    crf = plan.crf
    while len(tried) < ATTEMPTS and crf not in tried:
        found = wanted(plan.frames, pictures, plan.upfront)
        tried[crf] = coded = code(replace(plan, crf=crf), found, size, presets)
        if SPENT * budget <= coded.size <= budget:
            return coded
        crf = closer_crf({crf: coded.size for crf, coded in tried.items()}, budget, size)
    affordable = [coded for coded in tried.values() if coded.size <= budget]
    if affordable:
        return max(affordable, key=lambda coded: coded.shown_db)
    return min(tried.values(), key=lambda coded: coded.size)


def finer_crf(sizes: Mapping[float, float], budget: float, size: int) -> float:
    """The quality, in steps of FINE_CRF, at which the sources should take just what the budget has, from the bytes that
    they took at others."""
    aim = math.log(budget * (1 + SPENT) / 2)
    near = sorted(sizes, key=lambda crf: abs(math.log(sizes[crf]) - aim))
    step = -CRF_STEP
    if len(near) > 1 and sizes[near[0]] != sizes[near[1]]:
        step = math.log(sizes[near[1]] / sizes[near[0]]) / (near[1] - near[0])
    crf = near[0] + (aim - math.log(sizes[near[0]])) / min(step, -CRF_STEP / 4)
    return min(max(round(crf / FINE_CRF) * FINE_CRF, BEST_CRF), worst_crf(size))


def closer_crf(sizes: Mapping[float, float], budget: float, size: int) -> float:
    """As `finer_crf`, but between what took too much and the next coarser that did not: where pictures get smaller,
    bytes rise with crf for a step, and what the two nearest sizes promise lies anywhere."""
    crf = finer_crf(sizes, budget, size)
    low = max((crf for crf in sizes if sizes[crf] > budget), default=-math.inf)
    high = min((crf for crf in sizes if low < crf and sizes[crf] <= budget), default=math.inf)
    if low < crf < high or low < 0:
        return crf
    excess = math.log(sizes[low] / budget)
    step = CRF_STEP if high == math.inf else math.log(sizes[low] / sizes[high]) / (high - low)
    crf = low + max(FINE_CRF, round(excess / step / FINE_CRF) * FINE_CRF)
    return min(crf, high - FINE_CRF if high - low > FINE_CRF else high, worst_crf(size))


def before(packets: Sequence[SourcePacket], plan: Plan, end: int) -> int:
    """How many of the packets have to precede the motion of frames below `end`: those, and the next source after."""
    if plan.upfront:
        return len(packets)
    due = bisect_left(packets, end, key=lambda packet: packet.frame or 0)
    return min(len(packets), due + 1)
