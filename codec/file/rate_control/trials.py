"""Trials of source plans: each is coded on an excerpt of the clip (excerpt.py), and judged by the PSNR of its frames.

What sources and motion are worth relative to each other differs from clip to clip. So a trial codes both within the
budget, measures their bytes, and reconstructs frames: the error of pictures decides, not a model of it.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np

from iwcodec.codec.bitstream.packets import MotionPacket
from iwcodec.codec.file.motion_pass import (
    FINEST_SCALE,
    USUAL_SCALE,
    motion_size,
)
from iwcodec.codec.file.rate_control.excerpt import Excerpt, ExcerptQuality, read_excerpt
from iwcodec.codec.file.rate_control.source_plan import (
    BEST_CRF,
    BUDGET_TOLERANCE,
    GROUPED_SOURCE_BYTES,
    PRESETS,
    STRIDES,
    WORST_CRF,
    CodedSources,
    Pictures,
    Plan,
    Presets,
    crf_for_budget,
    encode_plan,
    interleaved_plan,
    pictures_of,
    upfront_plan,
    worst_crf,
)
from iwcodec.codec.file.rate_control.source_selection import Survey, choose_sources
from iwcodec.codec.motion.types import Fit
from iwcodec.models.runtime.types import Runtime

NUMBERS, REFINED_NUMBERS = (1, 2, 4, 8, 16, 32), (3, 6, 12, 23)
"""Numbers of sources of the upfront plans; those of REFINED_NUMBERS are only tried next to the best of NUMBERS."""
FACE_STRIDE = 4
"""Most frames between two sources if the clip is tuned for the face: interleaved plans have no variants, and further
apart they miss blinks."""
TRIAL_PRESETS, UPFRONT_OVERHEAD, INTERLEAVED_OVERHEAD = (4, 8), 1.09, 1.2
"""SVT-AV1 presets of trials, and the factor by which their sources take more bytes at equal quality than those of the
default presets, in upfront and in interleaved plans."""
CLEARLY_WORSE_DB = 0.3
"""A plan that is worse than the best by more than this, at the motion scale that suits its neighbours, is not tried at
other scales: these gain about 0.1 dB."""
OVERSPENT_DB = 1000.0
"""Penalty for a plan beyond the budget, in dB for each multiple of the budget that it takes."""
USUAL_MOTION, MIN_MOTION = 0.35, 0.1
"""Share of a budget reserved for motion before its size is known, and the minimum share where not every frame is a
source."""
KNOWN_SIZE = 0.7
"""A known size between KNOWN_SIZE and 1 / KNOWN_SIZE times the budget is near enough to interpolate from."""
CRF_PER_DOUBLING = 5
"""Steps of crf by which twice as many sources must be coarser to take about the same bytes."""
SCALES = tuple(range(FINEST_SCALE, 111, 8))
"""Motion quantiser scales that are tried."""


@dataclass(frozen=True)
class Choice:
    """Sources of a clip, and how its motion is to be coded."""

    coded: CodedSources
    active: int
    """Sources that enter attention for a frame: fewer are sharper where each is near enough by itself."""
    scale: int = USUAL_SCALE
    """Motion quantiser scale."""
    motion_bytes: float = 0.0
    """Bytes expected for the motion; 0 if no budget is divided."""


@dataclass(frozen=True)
class Trial:
    """A plan coded within the budget, and its quality."""

    quality: float
    """Mean PSNR predicted for the clip; below 0 beyond the budget."""
    choice: Choice
    motion: list[MotionPacket]
    """Motion of the excerpt."""
    excerpt: ExcerptQuality


class PlanTrials:
    """Tries source plans on an excerpt of the clip within byte budgets. Caches all coded sources."""

    def __init__(
        self,
        survey: Survey,
        pictures: Pictures,
        runtime: Runtime,
        message_frames: int,
        presets: Presets = PRESETS,
    ) -> None:
        """`presets`: with which the sources of the file will be coded."""
        self._size = runtime.info.size
        self._as_in_file = presets == TRIAL_PRESETS
        self.worst_crf = worst_crf(self._size)
        count = len(survey.keypoints)
        max_sources = min(NUMBERS[-1], max(1, count // 2, len(survey.required)))
        # The selection is greedy: the frames of a smaller upfront plan are among those of a larger one.
        needed = {*choose_sources(survey, max_sources), *self._needed(count, message_frames)}
        self._pictures = dict(pictures_of(sorted(needed), pictures, hold=False))
        self._read_excerpt = partial(read_excerpt, survey, pictures, runtime, message_frames)
        numbers = [number for number in sorted(NUMBERS + REFINED_NUMBERS) if number == 1 or number <= count // 2]
        numbers = [number for number in numbers if number > len(survey.required)]
        numbers = [len(survey.required), *numbers] if survey.required else numbers
        self.plans = [upfront_plan(survey, number) for number in numbers]
        unlike = bool(survey.required)
        self.plans += [
            interleaved_plan(count, stride, unlike=unlike)
            for stride in STRIDES
            if count // stride > NUMBERS[-1] and (survey.regions is None or stride <= FACE_STRIDE)
        ]
        """By ascending cost at equal quality."""
        self.coarse = [i for i, plan in enumerate(self.plans) if not i or len(plan.frames) not in REFINED_NUMBERS]
        """Indices of the plans that are tried first."""
        self._coded: dict[Plan, CodedSources] = {}
        self._faces = survey.faces

    @cached_property
    def _excerpt(self) -> Excerpt:
        return self._read_excerpt()

    def _needed(self, count: int, message_frames: int) -> Iterable[int]:
        """Frames that are read with the sources, of `count`."""
        return ()

    def last_affordable(self, crf: int, budget: float) -> int:
        """Index of the most expensive plan whose sources the budget buys at this crf."""
        low, high = 0, len(self.plans) - 1
        while low < high:
            middle = (low + high + 1) // 2
            if self._cost(replace(self.plans[middle], crf=crf)) <= budget * (1 - MIN_MOTION):
                low = middle
            else:
                high = middle - 1
        return low

    def best(
        self, index: int, start: int, budget: float, neighbour: Trial | None = None, best: Trial | None = None
    ) -> Trial:
        """The best trial of a plan over the motion scales, searched from SCALES[start] on.

        `neighbour`: best trial of a similar plan, from which crf and motion bytes are estimated. `best`: best trial so
        far; if the first scale is hopeless beside it, no other is tried.
        """
        plan = self.plans[index]
        source_budget = budget * (1 - USUAL_MOTION)
        if neighbour is not None:
            source_budget = max(source_budget, budget - neighbour.choice.motion_bytes)
            plan = replace(plan, crf=self._likely_crf(plan, neighbour.choice.coded.plan))
        coded = self._encode(self._affordable(plan, source_budget))
        fits = self._excerpt.fits(coded)
        trials: dict[int, Trial] = {}

        def quality(step: int) -> float:
            if step not in trials:
                known = [*trials.values(), *([best] if best else [])]
                best_known = max(known, key=lambda trial: trial.quality, default=None)
                trials[step] = self._try(coded, fits, SCALES[step], budget, best_known)
            return trials[step].quality

        first = quality(start)
        # Starved sources, at the end of the crf scale, may gain much by coarser motion.
        floor = -math.inf if best is None else best.quality - CLEARLY_WORSE_DB
        stop = 0 <= first < floor and trials[start].choice.coded.plan.crf <= WORST_CRF
        has_motion = len(plan.frames) < self._excerpt.count
        return trials[climb(quality, len(SCALES), start)] if has_motion and not stop else trials[start]

    def with_best_active(self, trial: Trial) -> Choice:
        """The trial's choice with the best number of sources in attention."""
        return replace(trial.choice, active=self._excerpt.best_active(trial.choice.coded, trial.motion))

    def _try(
        self, fitted_to: CodedSources, fits: Sequence[Fit], scale: int, budget: float, best: Trial | None
    ) -> Trial:
        """Code the motion at a scale, and the sources with the rest of the budget.

        Motion is coded in the coordinates of the sources (motion/space.py) that it was fitted to; those of the same
        sources at another quality differ little.
        """
        motion = self._excerpt.motion(fitted_to.plan, fits, scale)
        motion_bytes = motion_size(motion) / self._excerpt.share
        source_budget = max(1.0, budget - motion_bytes)
        plan = self._affordable(fitted_to.plan, source_budget)
        coded = self._encode(plan)
        choice = Choice(coded, 1, scale, motion_bytes)
        if self._cost(plan) > source_budget * (1 + BUDGET_TOLERANCE):
            unaffordable = ExcerptQuality(0.0, -OVERSPENT_DB * (self._cost(plan) + motion_bytes) / budget)
            return Trial(unaffordable.quality, choice, motion, unaffordable)
        excerpt = self._excerpt.evaluate(coded, motion, None if best is None else best.excerpt)
        if best is not None and excerpt.is_clearly_worse(best.excerpt):
            # A few frames tell more about the difference to another plan than about the clip.
            return Trial(best.quality + excerpt.gain_over(best.excerpt), choice, motion, excerpt)
        return Trial(excerpt.quality, choice, motion, excerpt)

    def _affordable(self, plan: Plan, budget: float) -> Plan:
        """The plan at about the lowest crf whose sources take at most the budget; at worst_crf if none does."""
        costs = {coded.crf: self._cost(coded) for coded in self._coded if coded.frames == plan.frames}
        known = any(KNOWN_SIZE < cost / budget < 1 / KNOWN_SIZE for cost in costs.values())
        crf = round(crf_for_budget(costs, budget, self._size)) if known else plan.crf
        while True:
            costs[crf] = self._cost(replace(plan, crf=crf))
            if abs(costs[crf] / budget - 1) <= BUDGET_TOLERANCE:
                return replace(plan, crf=crf)
            low = max((crf for crf, cost in costs.items() if cost > budget), default=BEST_CRF - 1)
            high = min((crf for crf, cost in costs.items() if cost <= budget), default=self.worst_crf + 1)
            if high - low <= 1:
                return replace(plan, crf=min(high, self.worst_crf))
            crf = min(max(round(crf_for_budget(costs, budget, self._size)), low + 1), high - 1)

    def _likely_crf(self, plan: Plan, neighbour: Plan) -> float:
        """Estimate of the crf at which the plan takes as many bytes as its neighbour."""
        likely = neighbour.crf + CRF_PER_DOUBLING * math.log2(len(plan.frames) / len(neighbour.frames))
        return round(min(max(likely, BEST_CRF), self.worst_crf))

    def _cost(self, plan: Plan) -> float:
        """Estimated bytes of the plan's sources over the whole clip at the default presets."""
        coded = self._encode(plan)
        if plan.upfront:
            return coded.size / (1 if self._as_in_file else UPFRONT_OVERHEAD)
        # The first source of a piece costs more here than in the file, where it follows those between the pieces.
        sizes = [len(packet.payload) + GROUPED_SOURCE_BYTES for packet in coded.packets]
        frames = [packet.frame or 0 for packet in coded.packets]
        stride = frames[1] - frames[0]
        following = [size for a, b, size in zip(frames, frames[1:], sizes[1:], strict=False) if b - a == stride]
        return (sizes[0] + (len(plan.frames) - 1) * float(np.mean(following))) / (
            1 if self._as_in_file else INTERLEAVED_OVERHEAD
        )

    def _encode(self, plan: Plan) -> CodedSources:
        """The plan's sources, of interleaved plans only those in the excerpt."""
        if plan not in self._coded:
            if plan.upfront:
                pictures = ((frame, self._pictures[frame]) for frame in plan.frames)
            else:
                numbers = set(plan.frames)
                pairs = zip(self._excerpt.frames, self._excerpt.pictures, strict=False)
                pictures = ((frame, picture) for frame, picture in pairs if frame in numbers)
            coded = encode_plan(plan, pictures, self._size, TRIAL_PRESETS, self._faces)
            self._coded[plan] = replace(coded, encoder=None)
        return self._coded[plan]


def climb(value: Callable[[int], float], count: int, start: int, reach: int = 1) -> int:
    """Index of a local maximum of `value` over range(count), searched from `start`, past dips narrower than `reach`."""
    best = start
    for direction in (1, -1):
        at = best
        while 0 <= at + direction < count and abs(at + direction - best) <= reach:
            at += direction
            if value(at) > value(best):
                best = at
        if best != start:
            break
    return best
