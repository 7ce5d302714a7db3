"""Upfront plans compared by estimates: within the budget, and better with more."""

from functools import cache

import pytest

from iwcodec.codec.file.rate_control.quick_trials import PRICED_SOURCES, QuickTrials, _line
from iwcodec.codec.file.rate_control.search import first_scale, quick_search
from iwcodec.codec.file.rate_control.source_plan import BUDGET_TOLERANCE, CRF
from iwcodec.codec.file.rate_control.trials import TRIAL_PRESETS, Trial
from support.codec.circling import PICTURES, SURVEY
from support.codec.stub_runtime import StubRuntime

MESSAGE = 10


def no_progress(name: str, share: float) -> None:
    pass


@cache
def quick() -> QuickTrials:
    return QuickTrials(SURVEY, lambda: PICTURES, StubRuntime(), MESSAGE)


def best(budget: float) -> Trial:
    return quick().best_upfront(budget, first_scale(4.0))


@pytest.mark.parametrize("budget", [900, 3000])
def test_the_plan_is_expected_to_take_the_budget(budget: float) -> None:
    trial = best(budget)
    plan = trial.choice.coded.plan
    assert plan.upfront
    left = budget - trial.choice.motion_bytes
    known = next(known for known in quick()._candidates if known.plan.frames == plan.frames)
    assert known.is_known(plan.crf)
    assert quick()._cost_at(known, plan.crf) <= left * (1 + 2 * BUDGET_TOLERANCE)


def test_more_bits_are_expected_to_bring_more() -> None:
    assert best(900).quality < best(2000).quality < best(4000).quality


def test_an_impossible_budget_gives_the_cheapest_plan() -> None:
    plan = best(10).choice.coded.plan
    assert len(plan.frames) == 1
    assert plan.crf == quick().worst_crf


def test_sources_for_every_few_frames_are_tried_where_upfront_ones_are_good() -> None:
    assert quick_search(quick(), 3000, 4.0, no_progress).choice.coded.plan.upfront
    rich = quick_search(quick(), 20_000, 40.0, no_progress)
    assert not rich.choice.coded.plan.upfront  # the stub network reconstructs nothing but brightness


def test_motion_is_priced_with_few_sources() -> None:
    assert quick()._priced.number <= PRICED_SOURCES


def test_only_plans_that_may_be_the_best_are_coded() -> None:
    trials = QuickTrials(SURVEY, lambda: PICTURES, StubRuntime(), MESSAGE)
    trial = trials.best_upfront(1500, first_scale(4.0))
    coded = [candidate for candidate in trials._candidates if candidate.coded]
    assert trial.choice.coded.plan.frames in [candidate.plan.frames for candidate in coded]
    assert len(coded) < len(trials._candidates)


def test_what_is_not_coded_is_estimated_from_other_plans() -> None:
    trials = QuickTrials(SURVEY, lambda: PICTURES, StubRuntime(), MESSAGE)
    for candidate in trials._candidates[1:4]:
        if not candidate.coded:
            estimated = trials._cost_at(candidate, CRF), trials._source_db_at(candidate, CRF)
            trials._code([(candidate, CRF)])
            assert estimated[0] == pytest.approx(trials._cost_at(candidate, CRF), rel=0.3)
            assert estimated[1] == pytest.approx(trials._source_db_at(candidate, CRF), abs=1.5)


def test_a_single_pass_codes_no_further_plans() -> None:
    trials = QuickTrials(SURVEY, lambda: PICTURES, StubRuntime(), MESSAGE, TRIAL_PRESETS, single_pass=True)
    coded = [candidate.coded for candidate in trials._candidates]
    few, many = (trials.best_upfront(budget, first_scale(4.0)).choice.coded.plan for budget in (500, 4000))
    assert [candidate.coded for candidate in trials._candidates] == coded
    assert len(few.frames) < len(many.frames) or few.crf > many.crf


def test_values_are_interpolated_and_extrapolated() -> None:
    assert [_line([1.0, 2.0, 4.0], [0.0, 3.0, 5.0], place) for place in (0.0, 1.5, 3.0, 5.0)] == [0.0, 1.5, 4.0, 6.0]
    assert _line([2.0], [7.0], 9.0) == 7.0
