"""Upfront source plans compared by estimates (plan_estimate.py), in a twentieth of the time of trials."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.file.rate_control.closed_loop import evaluated_frames
from iwcodec.codec.file.rate_control.excerpt import Excerpt, ExcerptQuality, excerpt_frames
from iwcodec.codec.file.rate_control.plan_estimate import MotionPrice, SampledFrames, with_coding_error
from iwcodec.codec.file.rate_control.source_plan import (
    BUDGET_TOLERANCE,
    CRF,
    CRF_STEP,
    PRESETS,
    CodedSources,
    Pictures,
    Plan,
    Presets,
    crf_for_budget,
)
from iwcodec.codec.file.rate_control.source_selection import Survey
from iwcodec.codec.file.rate_control.trials import (
    MIN_MOTION,
    OVERSPENT_DB,
    SCALES,
    Choice,
    PlanTrials,
    Trial,
    climb,
)
from iwcodec.codec.fit.keypoint_fit import KeypointFit, quick_fit
from iwcodec.codec.parallel import WORKERS, in_order
from iwcodec.models.runtime.types import Runtime

PRICED_MESSAGES, PRICED_SOURCES = 2, 8
"""Messages on which the motion is priced, and the most sources that they are fitted to."""
FRAMES, REBUILT, QUICK_REBUILT = 24, 12, 4
"""Frames that judge plans; those of them that are reconstructed, and in a single pass. With 12 the same plans are the
best as with 24 (seven clips), with 8 some are close that are not."""
SOURCE_DB_PER_CRF = 0.3
"""Quality that one step of crf takes from sources, in dB (0.24 to 0.37 measured)."""
SHARP_CRF, BLUR_DB = 58, 0.15
"""If the clip is tuned for the face, each step of crf above SHARP_CRF counts as a loss of BLUR_DB: eyes and lips are
blurred, which PSNR cannot tell."""
NEAR_CRF = 2
"""Size and quality of sources are known well enough if they were coded at a crf no further off than this."""
DIP_DB = 0.8
"""Plans of more sources than one that is worse than the best by more than this are not considered."""
UNKNOWN_DB = 0.3
"""By so much a plan may be better than it is estimated to be before its sources are coded."""
QUICK_DB = 0.2
"""Quality in dB by which quick fits of single frames prefer twice as many sources."""
SAME_CRF_OVERHEAD = 1.04
"""Factor by which the sources of trials take more bytes at the same crf than those of the default presets."""


@dataclass
class _Candidate:
    """An upfront plan, and what is known of it."""

    plan: Plan
    frames: SampledFrames
    coded: dict[float, CodedSources] = field(default_factory=dict)
    """By crf."""

    @property
    def number(self) -> int:
        """Sources of the plan."""
        return len(self.plan.frames)

    @cached_property
    def qualities(self) -> NDArray[np.float64]:
        """Of the sampled frames that are not sources, from uncoded sources."""
        return self.frames.qualities(self.plan)

    def is_known(self, crf: float) -> bool:
        """Whether sources were coded near a crf."""
        return any(abs(known - crf) <= NEAR_CRF for known in self.coded)


@dataclass(frozen=True)
class _Estimate:
    """A plan at the motion scale that suits it."""

    candidate: _Candidate
    quality: float
    crf: float
    step: int
    """Index in SCALES."""
    doubt_db: float
    """By so much the quality may be better."""

    @property
    def is_known(self) -> bool:
        return self.candidate.is_known(self.crf)

    @property
    def at_best(self) -> float:
        """The quality that the plan may have."""
        return self.quality + self.doubt_db


class QuickTrials(PlanTrials):
    """As PlanTrials, with estimates of upfront plans."""

    def __init__(
        self,
        survey: Survey,
        pictures: Pictures,
        runtime: Runtime,
        message_frames: int,
        presets: Presets = PRESETS,
        single_pass: bool = False,
    ) -> None:
        """`single_pass`: whether fits are quick, fewer messages are priced, and the first estimate decides."""
        self._single_pass = single_pass
        super().__init__(survey, pictures, runtime, message_frames, presets)
        self._count = len(survey.keypoints)
        judged = (QUICK_REBUILT, quick_fit) if single_pass else (REBUILT, KeypointFit)
        frames = SampledFrames(survey, self._pictures, runtime, FRAMES, *judged)
        self._candidates = [_Candidate(plan, frames) for plan in self.plans if plan.upfront]
        usual = [candidate for candidate in self._candidates if candidate.number <= PRICED_SOURCES]
        self._priced = (usual or self._candidates)[-1]
        self._code([(self._candidates[0], CRF), (self._priced, CRF)])
        numbers = excerpt_frames(self._count, message_frames, self._priced_messages, 1)
        shown = {number: self._pictures[number] for number in numbers if number in self._pictures}
        self._motion = MotionPrice(Excerpt(survey, shown, runtime, message_frames), self._priced.coded[CRF])

    def _needed(self, count: int, message_frames: int) -> list[int]:
        return [*evaluated_frames(count, FRAMES), *excerpt_frames(count, message_frames, self._priced_messages, 1)]

    @property
    def _priced_messages(self) -> int:
        return 1 if self._single_pass else PRICED_MESSAGES

    def predicted(self, budget: float, start: int, progress: Callable[[float], None] = lambda share: None) -> float:
        """Quality of the best upfront plan within a budget, as far as what has been coded tells. Arguments as for
        `best_upfront`."""
        return self._ranked(budget, start, progress)[0].quality

    def code_promising(self, budget: float, start: int, progress: Callable[[float], None] = lambda share: None) -> bool:
        """Code the sources of plans that may be the best within a budget; return False if the best has been coded.
        Arguments as for `best_upfront`."""
        ranked = self._ranked(budget, start, progress)
        if ranked[0].is_known or self._single_pass:
            return False
        unknown = [estimate for estimate in ranked if not estimate.is_known][:WORKERS]
        self._code([(estimate.candidate, estimate.crf) for estimate in unknown])
        return True

    def best_upfront(self, budget: float, start: int, progress: Callable[[float], None] = lambda share: None) -> Trial:
        """The best upfront plan within a budget. `start`: index in SCALES of the motion scale considered first.

        The sources of a plan are coded only if it may be the best."""
        while self.code_promising(budget, start, progress):
            pass
        found = self._ranked(budget, start, progress)[0]
        plan, motion_bytes = replace(found.candidate.plan, crf=found.crf), self._motion.at(SCALES[found.step])[0]
        overhead = 1 if self._as_in_file else SAME_CRF_OVERHEAD
        sizes = {crf: coded.size / overhead for crf, coded in found.candidate.coded.items()}
        if sizes:
            plan = replace(plan, crf=crf_for_budget(sizes, max(1.0, budget - motion_bytes), self._size))
        choice = Choice(CodedSources(plan, ()), 1, SCALES[found.step], motion_bytes)
        return Trial(found.quality, choice, [], ExcerptQuality(0.0, found.quality))

    def _ranked(self, budget: float, start: int, progress: Callable[[float], None]) -> list[_Estimate]:
        """Estimates of the affordable plans, by the quality that they may have, the best first."""
        affordable = [c for c in self._candidates if self._cost_at(c, self.worst_crf) <= budget * (1 - MIN_MOTION)]
        estimates: list[_Estimate] = []
        for number, candidate in enumerate(affordable or self._candidates[:1]):
            progress(number / (number + 2))  # each takes less time than the one before
            estimates.append(self._estimate(candidate, budget, start))
            if estimates[-1].at_best < max(estimate.at_best for estimate in estimates) - DIP_DB:
                break
        return sorted(estimates, key=lambda estimate: -estimate.at_best)

    def _code(self, chosen: list[tuple[_Candidate, float]]) -> None:
        """Code the sources of plans, each at a crf, at once."""
        for (candidate, crf), coded in zip(chosen, in_order(self._coded_at, chosen), strict=True):
            candidate.coded[crf] = coded

    def _coded_at(self, chosen: tuple[_Candidate, float]) -> CodedSources:
        candidate, crf = chosen
        return self._encode(replace(candidate.plan, crf=crf))

    def _estimate(self, candidate: _Candidate, budget: float, start: int) -> _Estimate:
        def quality(step: int) -> float:
            return self._quality(candidate, budget, step)[0]

        step = climb(quality, len(SCALES), start)
        best, crf = self._quality(candidate, budget, step)
        if self._single_pass:
            return _Estimate(candidate, best - QUICK_DB * math.log2(candidate.number), crf, step, 0.0)
        return _Estimate(candidate, best, crf, step, 0.0 if candidate.is_known(crf) else UNKNOWN_DB)

    def _quality(self, candidate: _Candidate, budget: float, step: int) -> tuple[float, float]:
        """Quality of a plan at a motion scale within the budget, and the crf of its sources."""
        motion_bytes, loss_db = self._motion.at(SCALES[step])
        left = max(1.0, budget - motion_bytes)
        costs = {crf: self._cost_at(candidate, crf) for crf in candidate.coded or (CRF,)}
        crf = min(self.worst_crf, round(crf_for_budget(costs, left, self._size)))
        cost = self._cost_at(candidate, crf)
        if cost > left * (1 + BUDGET_TOLERANCE) and crf >= self.worst_crf:
            return -OVERSPENT_DB * (cost + motion_bytes) / budget, crf
        source_db = self._source_db_at(candidate, crf)
        rebuilt_db = with_coding_error(candidate.qualities, source_db) if candidate.qualities.size else source_db
        share = candidate.number / self._count
        blur_db = 0.0 if self._faces is None else BLUR_DB * max(0.0, crf - SHARP_CRF)
        return share * source_db + (1 - share) * (float(np.mean(rebuilt_db)) - loss_db) - blur_db, crf

    def _cost_at(self, candidate: _Candidate, crf: float) -> float:
        """Bytes of the plan's sources at a crf."""
        return math.exp(self._at(candidate, crf, lambda coded: math.log(self._cost(coded.plan)), -CRF_STEP))

    def _source_db_at(self, candidate: _Candidate, crf: float) -> float:
        return self._at(candidate, crf, lambda coded: coded.source_db, -SOURCE_DB_PER_CRF)

    def _at(self, candidate: _Candidate, crf: float, value: Callable[[CodedSources], float], per_crf: float) -> float:
        """A value of a plan's sources at a crf: from the nearest crf at which they were coded, else from plans of other
        numbers of sources. `per_crf`: change of the value with crf."""

        def of(known: _Candidate) -> float:
            near = min(known.coded, key=lambda other: abs(other - crf))
            return value(known.coded[near]) + per_crf * (crf - near)

        if candidate.coded:
            return of(candidate)
        known = [other for other in self._candidates if other.coded]
        return _line([math.log(other.number) for other in known], list(map(of, known)), math.log(candidate.number))


def _line(places: list[float], values: list[float], place: float) -> float:
    """Interpolate values at ascending places; extrapolate from the last two."""
    if len(places) == 1 or place <= places[-1]:
        return float(np.interp(place, places, values))
    slope = (values[-1] - values[-2]) / (places[-1] - places[-2])
    return values[-1] + slope * (place - places[-1])
