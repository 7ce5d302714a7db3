"""Source plans: which frames become sources, in what order, at what quality; and their coding within a budget."""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.bitstream.packets import MAX_SLOT, SourcePacket, pack_sources, source_groups
from iwcodec.codec.file.rate_control.frame_quality import frame_quality
from iwcodec.codec.file.rate_control.source_selection import Survey, choose_sources, coding_order
from iwcodec.codec.media.types import Picture
from iwcodec.codec.sources.av1 import SourceEncoder, smaller_side

CRF = 57
"""AV1 constant rate factor of the sources if no bitrate is given."""
BEST_CRF, WORST_CRF, FINE_CRF = 4, 63, 0.25
"""Lowest and highest crf used, and SVT-AV1's finest step, which changes the bytes by 1.4 %."""
SMALLER_CRF = 6
"""Extends the crf scale beyond WORST_CRF: crf c there means smaller pictures coded at c - SMALLER_CRF, which take about
as many bytes and look about as good as full-size pictures at c would."""
CRF_STEP = 0.07
"""Share by which one step of crf changes the bytes: 0.05 to 0.08 on four clips, 0.14 from 62 to 63."""
Presets = tuple[int, int]
"""SVT-AV1 presets for upfront plans (few sources) and interleaved plans (many sources)."""
PRESETS: Presets = (1, 4)
"""Default presets. 1: 0.5 s per source and 8 % fewer bytes than preset 4. 4: 18 ms per source and 0.9 dB more than
preset 8 (6 ms) at the same bytes."""
BUDGET_TOLERANCE = 0.04
"""Relative deviation from a budget that is accepted."""
MIN_SPENT = 0.985
"""Share of their budget that sources should use at least, where nothing else can use it."""
MAX_ATTEMPTS = 8
"""Maximum number of encodings tried to meet a budget."""
RECORD_BYTES = 12
"""Bytes that the container adds to a packet."""
GROUPED_SOURCE_BYTES = 5
"""Approximate bytes that container and packet add to a source in a group."""

Pictures = Callable[[], Iterable[Picture]]
"""Starts an iteration over the clip's pictures from the first frame."""
STRIDES = (16, 8, 4, 3, 2, 1)
"""Frames between two sources of the interleaved plans."""


@dataclass(frozen=True)
class Plan:
    """Frames that become sources, in coding order, and their quality."""

    frames: tuple[int, ...]
    crf: float
    """BEST_CRF..`worst_crf(size)`."""
    upfront: bool
    """True: all sources precede the motion. False (interleaved): in order of time, each just before the motion that
    uses it."""
    unlike: bool = False
    """Whether sources show different things (Survey.required), so that only those that look like a frame may
    reconstruct it."""


@dataclass(frozen=True)
class CodedSources:
    plan: Plan
    packets: tuple[SourcePacket, ...]
    source_db: float = math.nan
    """Mean quality of the decoded sources (frame_quality.py), which is that of the frames they are taken from."""
    encoder: SourceEncoder | None = field(default=None, compare=False, repr=False)
    """The encoder after the last source, for one continuation of the sequence."""

    @property
    def size(self) -> int:
        """Bytes in the file."""
        groups = list(source_groups(self.packets))
        stored = [len(group[0].to_bytes() if len(group) == 1 else pack_sources(group)) for group in groups]
        return sum(stored) + RECORD_BYTES * len(groups)


def upfront_plan(survey: Survey, max_sources: int, crf: float = CRF) -> Plan:
    """The best frames of the clip, at most `max_sources`, all sent before the motion."""
    order = coding_order(survey, choose_sources(survey, max_sources))
    if survey.regions is not None:  # the first is the most used: variants are predicted from it if it comes last
        order.reverse()
    return Plan(tuple(order), crf, True, bool(survey.required))


def interleaved_plan(count: int, stride: int, crf: float = CRF, unlike: bool = False) -> Plan:
    """Every `stride`-th of `count` frames, sent as needed."""
    return Plan(tuple(range(0, count, stride)), crf, False, unlike)


def worst_crf(size: int) -> int:
    """Highest crf, on the extended scale, for pictures of size x size pixels."""
    return WORST_CRF + (SMALLER_CRF if smaller_side(size) < size else 0)


def source_encoder(size: int, plan: Plan, presets: Presets) -> SourceEncoder:
    preset = presets[0] if plan.upfront else presets[1]
    if plan.crf <= WORST_CRF:
        return SourceEncoder(size, plan.crf, preset)
    return SourceEncoder(size, plan.crf - SMALLER_CRF, preset, smaller_side(size))


def encode_plan(
    plan: Plan,
    pictures: Iterable[tuple[int, Picture]],
    size: int,
    presets: Presets = PRESETS,
    faces: NDArray[np.float32] | None = None,
) -> CodedSources:
    """Encode the sources of a plan from (frame number, picture) pairs in the plan's order (see `pictures_of`).

    `faces`: keypoints (n, K, 3) of all frames if the clip is tuned for the face. The encoder, which takes tens of
    megabytes, comes with the sources.
    """
    encoder, packets, quality = source_encoder(size, plan, presets), [], []
    for slot, (frame, picture) in enumerate(pictures):
        packets.append(SourcePacket(slot % (MAX_SLOT + 1), encoder.add(picture), frame))
        quality.append(frame_quality(encoder.reconstructed, picture, None if faces is None else faces[frame]))
    return CodedSources(plan, tuple(packets), float(np.mean(quality)) if quality else math.nan, encoder)


def pictures_of(frames: Sequence[int], pictures: Pictures, hold: bool) -> Iterator[tuple[int, Picture]]:
    """(frame number, picture) of these frames, in their order.

    `hold` keeps them all in memory; without it none is kept, and `frames` must ascend.
    """
    numbers = set(frames)
    selected = ((number, picture) for number, picture in enumerate(pictures()) if number in numbers)
    if not hold:
        yield from selected
        return
    held: dict[int, Picture] = {}
    for number, picture in selected:
        held[number] = picture
        if len(held) == len(numbers):
            break
    yield from ((number, held[number]) for number in frames if number in held)


def encode_within_budget(
    plan: Plan, pictures: Pictures, size: int, budget: float, presets: Presets = PRESETS, tolerance: float = 0.0
) -> CodedSources:
    """Encode the plan at the best quality found that takes at most `budget` bytes; the smallest encoding found if none
    does. `tolerance`: share of the budget by which an encoding may miss it, where something else makes up for it."""
    sizes: dict[float, float] = {}
    best: CodedSources | None = None
    crf = plan.crf
    held = list(pictures_of(plan.frames, pictures, hold=True)) if plan.upfront else None
    while len(sizes) < MAX_ATTEMPTS and crf not in sizes:
        selected = pictures_of(plan.frames, pictures, hold=False) if held is None else held
        coded = encode_plan(replace(plan, crf=crf), selected, size, presets)
        sizes[crf] = coded.size
        if abs(coded.size - budget) <= tolerance * budget:
            return coded
        best = coded if best is None else better_within(budget, best, coded)
        if MIN_SPENT * budget <= coded.size <= budget:
            break
        crf = next_crf(sizes, budget, size)
    assert best is not None
    return best


def better_within(budget: float, first: CodedSources, second: CodedSources) -> CodedSources:
    """The better of two encodings of a plan that take at most `budget` bytes; the smaller one if one takes more."""
    if max(first.size, second.size) > budget:
        return min(first, second, key=lambda coded: coded.size)
    return max(first, second, key=lambda coded: coded.source_db)


def crf_for_budget(sizes: Mapping[float, float], budget: float, size: int) -> float:
    """The crf, in steps of FINE_CRF, at which the sources should take just the budget.

    Interpolates the logarithm of the bytes between the nearest of `sizes` (crf -> bytes); from one size alone,
    extrapolates by CRF_STEP.
    """
    aim = math.log(budget * (1 + MIN_SPENT) / 2)
    near = sorted(sizes, key=lambda crf: abs(math.log(sizes[crf]) - aim))
    step = -CRF_STEP
    if len(near) > 1 and sizes[near[0]] != sizes[near[1]]:
        step = math.log(sizes[near[1]] / sizes[near[0]]) / (near[1] - near[0])
    crf = near[0] + (aim - math.log(sizes[near[0]])) / min(step, -CRF_STEP / 4)
    return min(max(round(crf / FINE_CRF) * FINE_CRF, BEST_CRF), worst_crf(size))


def next_crf(sizes: Mapping[float, float], budget: float, size: int) -> float:
    """The crf to try next: `crf_for_budget`, kept between the highest crf that took too much and the next higher one
    that did not. Bytes are not monotonic in crf: they rise where pictures get smaller, so that the nearest two sizes
    may extrapolate to anywhere."""
    crf = crf_for_budget(sizes, budget, size)
    low = max((crf for crf in sizes if sizes[crf] > budget), default=-math.inf)
    high = min((crf for crf in sizes if low < crf and sizes[crf] <= budget), default=math.inf)
    if low < crf < high or low < 0:
        return crf
    excess = math.log(sizes[low] / budget)
    step = CRF_STEP if high == math.inf else math.log(sizes[low] / sizes[high]) / (high - low)
    crf = low + max(FINE_CRF, round(excess / step / FINE_CRF) * FINE_CRF)
    return min(crf, high - FINE_CRF if high - low > FINE_CRF else high, worst_crf(size))


def sources_due(packets: Sequence[SourcePacket], plan: Plan, end: int) -> int:
    """Number of source packets that must precede the motion of the frames below `end`: those of these frames, and the
    next one."""
    if plan.upfront:
        return len(packets)
    due = bisect_left(packets, end, key=lambda packet: packet.frame or 0)
    return min(len(packets), due + 1)
