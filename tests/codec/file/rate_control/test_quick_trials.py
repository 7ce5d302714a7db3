"""Upfront plans compared by estimates: within the budget, and better with more."""

from functools import cache

import pytest

from circling import PICTURES, SURVEY
from iwcodec.codec.file.rate_control.quick_trials import PRICED_SOURCES, QuickTrials
from iwcodec.codec.file.rate_control.search import first_scale, quick_search
from iwcodec.codec.file.rate_control.source_plan import BUDGET_TOLERANCE
from iwcodec.codec.file.rate_control.trials import Trial
from stub_runtime import StubRuntime

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
    known = next(known for known in quick()._known if known.plan.frames == plan.frames)
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
    assert len(quick()._priced.frames) <= PRICED_SOURCES
