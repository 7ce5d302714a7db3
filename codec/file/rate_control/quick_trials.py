"""Upfront source plans compared by estimates (plan_estimate.py), in a tenth of the time of trials."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from iwcodec.codec.file.rate_control.plan_estimate import MotionPrice, SampledFrames, with_other_sources
from iwcodec.codec.file.rate_control.source_plan import (
    BUDGET_TOLERANCE,
    CRF,
    CRF_STEP,
    CodedSources,
    Pictures,
    Plan,
    crf_for_budget,
)
from iwcodec.codec.file.rate_control.source_selection import Survey
from iwcodec.codec.file.rate_control.trials import (
    MIN_MOTION,
    OVERSPENT_DB,
    SCALES,
    Choice,
    Excerpt,
    ExcerptQuality,
    PlanTrials,
    Trial,
    climb,
)
from iwcodec.models.runtime.types import Runtime

PRICED_MESSAGES, PRICED_SOURCES = 2, 8
"""Messages on which the motion is priced, and the most sources that they are fitted to."""
ROUNDS = (6, 12, 24)
"""Frames that judge plans: in each round the better half of the plans goes on to the next."""
SOURCE_DB_PER_CRF = 0.3
"""Quality that one step of crf takes from sources, in dB (0.24 to 0.37 measured)."""
SHARP_CRF, BLUR_DB = 58, 0.15
"""If the clip is tuned for the face, each step of crf above SHARP_CRF counts as a loss of BLUR_DB: eyes and lips are
blurred, which PSNR cannot tell."""
NEAR_CRF, JUDGED_CRF = 2, 5
"""Sources are coded anew, and judged anew, if the crf is further than this from the nearest at which they were."""
ATTEMPTS = 3
"""Most times that the split between motion and sources is improved in a round."""


@dataclass
class _Known:
    """What is known of a plan, by the crf of its sources."""

    plan: Plan
    coded: dict[float, CodedSources] = field(default_factory=dict)
    costs: dict[float, float] = field(default_factory=dict)
    """Bytes in the file."""
    quality: dict[float, dict[int, float]] = field(default_factory=dict)
    """Quality of frames with exact motion."""
    step: int | None = None
    """Index in SCALES of the best motion scale so far."""

    def nearest(self, crf: float) -> CodedSources:
        return self.coded[_nearest(self.coded, crf)]

    def source_db(self, crf: float) -> float:
        """Quality of the sources, from the nearest that are coded."""
        near = sorted(self.coded, key=lambda known: abs(known - crf))
        slope = -SOURCE_DB_PER_CRF
        if len(near) > 1:
            slope = (self.coded[near[1]].source_db - self.coded[near[0]].source_db) / (near[1] - near[0])
        return self.coded[near[0]].source_db + slope * (crf - near[0])


class QuickTrials(PlanTrials):
    """As PlanTrials, with estimates of upfront plans."""

    def __init__(self, survey: Survey, pictures: Pictures, runtime: Runtime, message_frames: int) -> None:
        super().__init__(survey, pictures, runtime, message_frames)
        self._count = len(survey.keypoints)
        self._frames = SampledFrames(survey, pictures, runtime, max(ROUNDS))
        self._known = [_Known(plan) for plan in self.plans if plan.upfront]
        usual = [known.plan for known in self._known if len(known.plan.frames) <= PRICED_SOURCES]
        self._priced = (usual or [self._known[0].plan])[-1]
        excerpt = Excerpt(survey, pictures, runtime, message_frames, PRICED_MESSAGES, 1)
        self._motion = MotionPrice(excerpt, self._encode(self._priced))

    def best_upfront(self, budget: float, start: int, progress: Callable[[float], None] = lambda share: None) -> Trial:
        """The best upfront plan within a budget. `start`: index in SCALES of the motion scale considered first."""
        affordable = [known for known in self._known if self._predicted_cost(known) <= budget * (1 - MIN_MOTION)]
        left = affordable or self._known[:1]
        found: dict[int, Trial] = {}
        for number, frames in enumerate(ROUNDS):
            for n, known in enumerate(left):
                progress((number + n / len(left)) / len(ROUNDS))
                found[n] = self._trial(known, budget, start, frames)
            found = {n: found[n] for n in range(len(left))}
            ranked = sorted(found, key=lambda n: -found[n].quality)
            if len(ranked) == 1:
                break
            left = [left[n] for n in ranked[: (len(ranked) + 1) // 2]]
        return max(found.values(), key=lambda trial: trial.quality)

    def _predicted_cost(self, known: _Known) -> float:
        """Bytes of the plan's sources at the highest crf."""
        return self._cost_at(known, self.worst_crf)

    def _cost_at(self, known: _Known, crf: float) -> float:
        if known.costs:
            near = _nearest(known.costs, crf)
            return known.costs[near] * math.exp(CRF_STEP * (near - crf))
        priced = self._encode(self._priced)
        sizes = [len(packet.payload) for packet in priced.packets]
        further = float(np.mean(sizes[1:])) if len(sizes) > 1 else sizes[0]
        size = self._cost(self._priced) + (len(known.plan.frames) - len(sizes)) * further
        return size * math.exp(CRF_STEP * (self._priced.crf - crf))

    def _trial(self, known: _Known, budget: float, start: int, frames: int) -> Trial:
        def quality(step: int) -> float:
            return self._estimate(known, step, budget)[0]

        at = start if known.step is None else known.step
        for _ in range(ATTEMPTS):
            self._learn(known, self._crf(known, budget - self._motion.at(SCALES[at])[0]), frames)
            last, at = at, climb(quality, len(SCALES), at)
            if at == last:
                break
        known.step = at
        value, crf = self._estimate(known, at, budget)
        coded = replace(known.nearest(crf), plan=replace(known.plan, crf=crf))
        return Trial(
            value, Choice(coded, 1, SCALES[at], self._motion.at(SCALES[at])[0]), [], ExcerptQuality(0.0, value)
        )

    def _learn(self, known: _Known, crf: float, frames: int) -> None:
        """Code the sources near a crf, and judge `frames` frames, unless that is done."""
        if not known.coded or abs(_nearest(known.coded, crf) - crf) > NEAR_CRF:
            known.coded[crf] = self._encode(replace(known.plan, crf=crf))
            known.costs[crf] = self._cost(known.coded[crf].plan)
        judged = [other for other, quality in known.quality.items() if len(quality) >= frames]
        if not judged or abs(_nearest(judged, crf) - crf) > JUDGED_CRF:
            at = _nearest(known.coded, crf)
            quality = known.quality.setdefault(at, {})
            quality |= self._frames.qualities(known.coded[at], frames, quality)

    def _estimate(self, known: _Known, step: int, budget: float) -> tuple[float, float]:
        """Quality of a plan at a motion scale within the budget, and the crf of its sources."""
        motion_bytes, loss_db = self._motion.at(SCALES[step])
        left = max(1.0, budget - motion_bytes)
        crf = self._crf(known, left)
        cost = self._cost_at(known, crf)
        if cost > left * (1 + BUDGET_TOLERANCE) and crf >= self.worst_crf:
            return -OVERSPENT_DB * (cost + motion_bytes) / budget, crf
        most = max(map(len, known.quality.values()))
        judged = _nearest([other for other, quality in known.quality.items() if len(quality) == most], crf)
        source_db, frames = known.source_db(crf), known.quality[judged]
        rebuilt = [quality for number, quality in frames.items() if number not in known.plan.frames] or [source_db]
        exact = with_other_sources(float(np.mean(rebuilt)), known.coded[judged].source_db, source_db)
        share = len(known.plan.frames) / self._count
        blur_db = 0.0 if self._faces is None else BLUR_DB * max(0.0, crf - SHARP_CRF)
        return share * source_db + (1 - share) * (exact - loss_db) - blur_db, crf

    def _crf(self, known: _Known, budget: float) -> float:
        costs = known.costs or {CRF: self._cost_at(known, CRF)}
        return min(self.worst_crf, round(crf_for_budget(costs, max(1.0, budget), self._size)))


def _nearest(values: Mapping[float, object] | Sequence[float], crf: float) -> float:
    return min(values, key=lambda known: abs(known - crf))
