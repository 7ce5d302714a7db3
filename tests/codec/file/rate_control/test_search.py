"""Rate control: the budget buys what pays, and qualities are reached at about the lowest rate."""

import math
from functools import cache
from unittest import mock

import numpy as np
import pytest

from iwcodec.codec.file.motion_pass import USUAL_SCALE
from iwcodec.codec.file.rate_control import excerpt
from iwcodec.codec.file.rate_control.excerpt import ExcerptQuality
from iwcodec.codec.file.rate_control.search import (
    MAX_CANDIDATES,
    MAX_KBPS,
    MAX_RATES,
    MIN_KBPS,
    choose,
    first_scale,
    lowest_rate,
    search,
)
from iwcodec.codec.file.rate_control.source_plan import BUDGET_TOLERANCE, CodedSources, upfront_plan, worst_crf
from iwcodec.codec.file.rate_control.trials import SCALES, Choice, PlanTrials, Trial
from support.codec.circling import PICTURES, SURVEY
from support.codec.stub_runtime import SIZE, FileFit, StubRuntime

MESSAGE = 10
SURVEYED = SURVEY.keypoints.copy()


def no_progress(name: str, share: float) -> None:
    pass


@cache
def choices(budget: float, kbps: float = 4.0) -> list[Choice]:
    with mock.patch.object(excerpt, "quick_fit", FileFit):
        return choose(SURVEY, lambda: PICTURES, StubRuntime(), budget, kbps, MESSAGE, no_progress, presets=(8, 8))


def test_motion_is_finer_at_higher_rates() -> None:
    assert [SCALES[first_scale(kbps)] for kbps in (1, 4, 8, 16)] == [USUAL_SCALE, USUAL_SCALE, 70, 62]
    assert first_scale(1e6) == 0


def test_a_quality_is_not_sought_above_the_highest_rate() -> None:
    tried: list[float] = []

    def predicted(kbps: float) -> float:
        tried.append(kbps)
        return 30 + math.log2(kbps)

    assert lowest_rate(40.0, predicted, 3.0) == 3.0
    assert max(tried) == 3.0
    assert lowest_rate(31.0, predicted, 3.0) < 2.5


def test_more_bits_buy_more_sources() -> None:
    poor, rich = choices(900)[0], choices(20_000, 40.0)[0]
    assert poor.coded.size + poor.motion_bytes <= 900 * (1 + BUDGET_TOLERANCE)
    assert rich.coded.size + rich.motion_bytes <= 20_000 * (1 + BUDGET_TOLERANCE)
    # The stub network reconstructs nothing but brightness: only sources look good.
    assert len(rich.coded.packets) > 2 * len(poor.coded.packets)
    assert not rich.coded.plan.upfront


@pytest.mark.parametrize("quality_db", [22.0, 25.0, 29.3, 33.0, 38.0])
@pytest.mark.parametrize("doubling_db", [1.0, 2.5, 4.0])
def test_a_quality_is_reached_at_about_the_lowest_rate(quality_db: float, doubling_db: float) -> None:
    tried = []

    def predicted(kbps: float) -> float:
        tried.append(kbps)
        return 30 + doubling_db * math.log2(kbps / 8)

    rate = lowest_rate(quality_db, predicted)
    lowest = 8 * 2 ** ((quality_db - 30) / doubling_db)
    assert len(tried) == len(set(tried)) <= MAX_RATES
    if lowest > MAX_KBPS:
        assert rate == MAX_KBPS
    else:
        assert max(0.999 * lowest, MIN_KBPS) <= rate <= max(1.25 * lowest, MIN_KBPS)


def test_an_impossible_budget_gives_the_cheapest_plan() -> None:
    (choice,) = choices(10)
    assert len(choice.coded.packets) == 1
    assert choice.coded.plan.crf == 63


class KnownTrials(PlanTrials):
    """The quality of each plan is given."""

    def __init__(self, qualities: list[float]) -> None:
        self.coarse = list(range(len(qualities)))
        self.worst_crf = worst_crf(SIZE)
        self._qualities = qualities
        self._choice = Choice(CodedSources(upfront_plan(SURVEY, 1), ()), 1)

    def last_affordable(self, crf: int, budget: float) -> int:
        return len(self._qualities) - 1

    def best(
        self, index: int, start: int, budget: float, neighbour: Trial | None = None, best: Trial | None = None
    ) -> Trial:
        excerpt = ExcerptQuality(1.0, self._qualities[index])
        return Trial(excerpt.quality, self._choice, [], excerpt)


@pytest.mark.parametrize(
    ("qualities", "kept"),
    [
        ([28.0, 29.0, 29.8, 30.0, 29.7, 29.6, 28.0], [30.0, 29.8, 29.7]),  # at most three
        ([28.0, 29.0, 29.4, 30.0, 29.4, 29.0, 28.0], [30.0]),  # the others are too far below
        ([28.0, 29.0, 30.0, 29.4, 29.2, 28.0, 27.0], [30.0]),
        ([30.0], [30.0]),
    ],
)
def test_candidates_close_to_the_best_are_kept(qualities: list[float], kept: list[float]) -> None:
    assert [trial.quality for trial in search(KnownTrials(qualities), 1000.0, 4.0, no_progress)] == kept


def test_candidates_have_different_sources_within_the_budget() -> None:
    candidates = choices(3000)
    assert 1 <= len(candidates) <= MAX_CANDIDATES
    assert len({choice.coded.plan.frames for choice in candidates}) == len(candidates)
    assert all(choice.coded.size + choice.motion_bytes <= 3000 * (1 + BUDGET_TOLERANCE) for choice in candidates)


def test_the_survey_is_not_modified() -> None:
    choices(3000)
    assert np.array_equal(SURVEYED, SURVEY.keypoints)
