"""Trials of source plans: within the budget, and stopped early."""

import math
from dataclasses import replace

import numpy as np
import pytest

from iwcodec.codec.file.motion_pass import USUAL_SCALE
from iwcodec.codec.file.rate_control.excerpt import EARLY_STOP_DB, TRIAL_FRAMES
from iwcodec.codec.file.rate_control.source_plan import BEST_CRF, BUDGET_TOLERANCE, STRIDES, interleaved_plan, worst_crf
from iwcodec.codec.file.rate_control.source_selection import Survey
from iwcodec.codec.file.rate_control.trials import FACE_STRIDE, PlanTrials, climb
from support.codec.circling import PICTURES, SURVEY
from support.codec.stub_runtime import StubRuntime

MESSAGE = 10


def test_climb_finds_the_maximum_from_both_sides() -> None:
    hill = [0.0, 1.0, 3.0, 7.0, 6.0, 2.0, -math.inf]
    assert [climb(hill.__getitem__, len(hill), start) for start in range(len(hill))] == [3] * len(hill)


def test_climb_passes_narrow_dips() -> None:
    hills = [0.0, 4.0, 3.0, 5.0, 6.0, 5.5, 5.0, 9.0]
    assert [climb(hills.__getitem__, len(hills), start, reach=2) for start in range(5)] == [4] * 5
    assert climb(hills.__getitem__, len(hills), 1) == 1


@pytest.mark.parametrize("budget", [3_000, 5_900, 12_000, 24_000, 1e9])
def test_a_plan_is_tried_at_the_crf_that_spends_the_budget(monkeypatch: pytest.MonkeyPatch, budget: float) -> None:
    """Bytes fall by 11 % for each step of crf at high rates, and by 5 % at low ones."""
    trials = object.__new__(PlanTrials)
    trials._size, trials.worst_crf, trials._coded = 256, worst_crf(256), {}
    costs = {crf: 60_000 * np.exp(-0.11 * min(crf, 30) - 0.05 * max(crf - 30, 0)) for crf in range(80)}
    monkeypatch.setattr(PlanTrials, "_cost", lambda self, plan: costs[round(plan.crf)])
    for start in (20, 32, 45, 57):
        plan = trials._affordable(interleaved_plan(100, 1, crf=start), budget)
        assert costs[round(plan.crf)] <= budget * (1 + BUDGET_TOLERANCE) or plan.crf == trials.worst_crf
        finer = round(plan.crf) - 2
        assert finer < BEST_CRF or costs[finer] > budget


def test_plans_that_would_miss_blinks_are_not_tried_for_a_face() -> None:
    repeated = Survey(*(np.concatenate([of] * 20) for of in (SURVEY.thumbnails, SURVEY.keypoints)))
    pictures = PICTURES * 20
    face = replace(repeated, regions=np.zeros((len(pictures), 2, 4), np.uint8))
    for survey, longest in ((repeated, STRIDES[0]), (face, FACE_STRIDE)):
        plans = [p.frames for p in PlanTrials(survey, lambda: pictures, StubRuntime(), MESSAGE).plans if not p.upfront]
        assert max(second - first for first, second, *_ in plans) == longest


def test_a_plan_stopped_early_is_rated_by_its_difference_to_the_best() -> None:
    """However easy the frames evaluated are."""
    trials = PlanTrials(SURVEY, lambda: PICTURES, StubRuntime(), MESSAGE)
    plan = trials.plans[2]
    coded = trials._encode(plan)
    fits = trials._excerpt.fits(coded)
    whole = trials._try(coded, fits, USUAL_SCALE, 1e6, None)
    assert len(whole.excerpt.rebuilt_db) == min(TRIAL_FRAMES, len(trials._excerpt.frames) - len(plan.frames))
    better = {frame: quality + 3 for frame, quality in whole.excerpt.rebuilt_db.items()}
    best = replace(whole, quality=whole.quality + 3, excerpt=replace(whole.excerpt, rebuilt_db=better))
    stopped = trials._try(coded, fits, USUAL_SCALE, 1e6, best)
    assert len(stopped.excerpt.rebuilt_db) == min(EARLY_STOP_DB)
    assert stopped.quality == pytest.approx(best.quality - 3 * (1 - whole.excerpt.source_share))
