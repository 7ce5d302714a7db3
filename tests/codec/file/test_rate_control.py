"""Rate control: what is tried, and that the budget buys what pays."""

import math
from dataclasses import replace

import numpy as np
import pytest

from circling import COUNT, PICTURES, SURVEY
from iwcodec.codec.file import rate_control as ratecontrol
from iwcodec.codec.file.motion_pass import USUAL_SCALE
from iwcodec.codec.file.rate_control import (
    SCALES,
    Choice,
    Judged,
    Stretch,
    Trial,
    Trials,
    choose,
    climb,
    least_rate,
    nearest_scale,
    search,
    spread,
)
from iwcodec.codec.file.source_plan import BEST_CRF, CLOSE, Coded, code, dense_plan, sparse_plan, wanted, worst_crf
from iwcodec.codec.file.source_selection import Survey
from iwcodec.codec.media.quality import psnr
from iwcodec.codec.sources.av1 import SourceDecoder
from stub_runtime import SIZE, StubRuntime

MESSAGE = 10


def silent(name: str, share: float) -> None:
    pass


def chosen(budget: float, kbps: float = 4.0) -> list[Choice]:
    return choose(SURVEY, lambda: PICTURES, StubRuntime(), budget, kbps, MESSAGE, silent, presets=(8, 8))


def stretch() -> Stretch:
    return Stretch(SURVEY, lambda: PICTURES, StubRuntime(), MESSAGE)


def test_climbing_finds_the_top_from_both_sides():
    hill = [0.0, 1.0, 3.0, 7.0, 6.0, 2.0, -math.inf]
    assert [climb(hill.__getitem__, len(hill), start) for start in range(len(hill))] == [3] * len(hill)


def test_climbing_passes_narrow_dips():
    hills = [0.0, 4.0, 3.0, 5.0, 6.0, 5.5, 5.0, 9.0]
    assert [climb(hills.__getitem__, len(hills), start, reach=2) for start in range(5)] == [4] * 5
    assert climb(hills.__getitem__, len(hills), 1) == 1


def test_scales_are_found():
    assert [nearest_scale(scale) for scale in SCALES] == list(range(len(SCALES)))
    assert nearest_scale(-5.0) == 0
    assert USUAL_SCALE in SCALES


def test_plans_are_tried_on_pieces_from_all_over_the_clip():
    frames = spread(1000, 50)
    assert frames == sorted(set(frames))
    assert len(frames) == 50 * ratecontrol.PIECES
    assert [frame // 250 for frame in frames[::50]] == [0, 1, 2, 3]
    assert spread(120, 50) == list(range(120))


@pytest.mark.parametrize("message", [1, 2, 7, 30, 120])
def test_pieces_hold_whole_messages_and_some_sources_of_every_stream(message: int):
    """Also of a clip of one frame a second."""
    frames = spread(5000, message)
    length = len(frames) // ratecontrol.PIECES
    assert length % message == 0
    for stride in ratecontrol.STRIDES:
        for first in range(0, len(frames), length):
            piece = frames[first : first + length]
            assert piece == list(range(piece[0], piece[0] + length))
            assert sum(frame % stride == 0 for frame in piece) >= 2


def test_frames_are_counted_from_the_pieces():
    tried = stretch()
    plan = dense_plan(COUNT, 8)
    here = tried.here(code(plan, wanted(plan.frames, lambda: PICTURES, hold=False), SIZE))
    for packet, frame in zip(here.packets, plan.frames, strict=True):
        assert (packet.frame is None) == (frame not in tried.frames)
        if packet.frame is not None:
            assert tried.pictures[packet.frame] is PICTURES[frame]


def test_frames_that_are_sources_count_as_they_are_shown():
    tried = stretch()
    plan = dense_plan(COUNT, 1)
    coded = code(plan, wanted(plan.frames, lambda: PICTURES, hold=False), SIZE)
    motion = tried.motion(plan, tried.fits(coded), USUAL_SCALE)
    assert tried.qualities(coded, motion, [1]) == {1: pytest.approx(coded.shown_db)}


def test_the_quality_expected_is_that_of_the_frames():
    """Every frame of a still clip is rebuilt alike."""
    still = Survey(np.repeat(SURVEY.thumbnails[:1], 40, 0), np.repeat(SURVEY.keypoints[:1], 40, 0))
    tried = Stretch(still, lambda: PICTURES[:1] * 40, StubRuntime(), MESSAGE)
    plan = sparse_plan(still, 1)
    coded = code(plan, [(plan.frames[0], PICTURES[0])], SIZE)
    motion = tried.motion(plan, tried.fits(coded), USUAL_SCALE)
    source = StubRuntime().prepare(SourceDecoder(SIZE).add(coded.packets[0].payload))
    rebuilt = psnr(StubRuntime().reconstruct(still.keypoints[0], [source]), PICTURES[0])
    expected = tried.qualities(coded, motion, [1])[1]
    assert expected == pytest.approx(coded.shown_db / 40 + rebuilt * 39 / 40, abs=0.5)


def test_more_bits_buy_more_sources():
    poor, rich = chosen(900)[0], chosen(20_000, 40.0)[0]
    assert poor.coded.size + poor.moving <= 900 * (1 + CLOSE)
    assert rich.coded.size + rich.moving <= 20_000 * (1 + CLOSE)
    # This network rebuilds nothing but brightness: whatever is no source looks bad, so sources are what pays.
    assert len(rich.coded.packets) > 2 * len(poor.coded.packets)
    assert not rich.coded.plan.upfront


@pytest.mark.parametrize("wanted_db", [22.0, 25.0, 29.3, 33.0, 38.0])
@pytest.mark.parametrize("doubled_db", [1.0, 2.5, 4.0])
def test_a_quality_is_had_at_about_the_least_rate(wanted_db: float, doubled_db: float):
    tried = []

    def expected(kbps: float) -> float:
        tried.append(kbps)
        return 30 + doubled_db * math.log2(kbps / 8)

    found = least_rate(wanted_db, expected)
    least = 8 * 2 ** ((wanted_db - 30) / doubled_db)
    assert len(tried) == len(set(tried)) <= ratecontrol.RATES_TRIED
    if least > ratecontrol.MAX_KBPS:
        assert found == ratecontrol.MAX_KBPS
    else:
        assert max(0.999 * least, ratecontrol.MIN_KBPS) <= found <= max(1.25 * least, ratecontrol.MIN_KBPS)


def test_a_hopeless_budget_gives_the_least_there_is():
    (choice,) = chosen(10)
    assert len(choice.coded.packets) == 1
    assert choice.coded.plan.crf == 63


class Known(Trials):
    """What is expected of each option is known."""

    def __init__(self, expected: list[float]) -> None:
        self.first = list(range(len(expected)))
        self.worst_crf = worst_crf(SIZE)
        self._expected = expected
        self._choice = Choice(Coded(sparse_plan(SURVEY, 1), ()), 1)

    def richest(self, crf: int, budget: float) -> int:
        return len(self._expected) - 1

    def best(
        self, option: int, start: int, budget: float, near: Trial | None = None, so_far: Trial | None = None
    ) -> Trial:
        judged = Judged(1.0, self._expected[option])
        return Trial(judged.quality, self._choice, [], judged)


@pytest.mark.parametrize(
    ("expected", "kept"),
    [
        ([28.0, 29.0, 29.8, 30.0, 29.7, 29.6, 28.0], [30.0, 29.8, 29.7]),  # no more than three
        ([28.0, 29.0, 29.4, 30.0, 29.4, 29.0, 28.0], [30.0]),  # none that is hopeless
        ([28.0, 29.0, 30.0, 29.4, 29.2, 28.0, 27.0], [30.0]),
        ([30.0], [30.0]),
    ],
)
def test_what_may_turn_out_to_be_the_best_is_kept(expected: list[float], kept: list[float]):
    assert [trial.quality for trial in search(Known(expected), 1000.0, 4.0, silent)] == kept


def test_plans_that_are_coded_to_the_end_have_sources_within_the_budget():
    choices = chosen(3000)
    assert 1 <= len(choices) <= ratecontrol.FINALISTS
    assert len({choice.coded.plan.frames for choice in choices}) == len(choices)
    assert all(choice.coded.size + choice.moving <= 3000 * (1 + CLOSE) for choice in choices)


def test_fewer_sources_enter_attention_where_more_are_no_better():
    tried = stretch()
    plan = sparse_plan(SURVEY, 3)
    coded = code(plan, wanted(plan.frames, lambda: PICTURES, hold=True), SIZE)
    motion = tried.motion(plan, tried.fits(coded), USUAL_SCALE)
    quality = tried.qualities(coded, motion, [1, 2, 3])
    best = tried.best_active(coded, motion)
    assert quality[best] >= max(quality.values()) - ratecontrol.NO_WORSE_DB
    assert all(quality[count] < max(quality.values()) - ratecontrol.NO_WORSE_DB for count in range(1, best))


def test_trials_leave_what_they_are_given_alone():
    kept = replace(SURVEY, keypoints=SURVEY.keypoints.copy())
    chosen(3000)
    assert np.array_equal(kept.keypoints, SURVEY.keypoints)


@pytest.mark.parametrize("left", [3_000, 5_900, 12_000, 24_000, 1e9])
def test_a_plan_is_tried_at_the_quality_that_spends_what_is_left(monkeypatch: pytest.MonkeyPatch, left: float):
    """Bytes fall by 11 % for each step of crf at high rates, and more slowly at low ones."""
    trials = object.__new__(Trials)
    trials._size, trials.worst_crf, trials._coded = 256, worst_crf(256), {}
    costs = {crf: 60_000 * np.exp(-0.11 * min(crf, 30) - 0.05 * max(crf - 30, 0)) for crf in range(80)}
    monkeypatch.setattr(Trials, "_cost", lambda self, plan: costs[round(plan.crf)])
    for start in (20, 32, 45, 57):
        found = trials._affordable(dense_plan(100, 1, crf=start), left)
        assert costs[round(found.crf)] <= left * (1 + CLOSE) or found.crf == trials.worst_crf
        finer = round(found.crf) - 2
        assert finer < BEST_CRF or costs[finer] > left


def test_a_hopeless_plan_is_left_after_a_glance():
    best = Judged(0.1, 30.0, {frame: 30.0 for frame in range(48)})
    for away, hopeless in ((-1.5, True), (-0.6, False), (1.0, False)):
        found = Judged(0.1, 30.0, {frame: 30.0 + away for frame in range(12)})
        assert found.lead(best) == pytest.approx(0.9 * away)
        assert found.is_hopeless(best) is hopeless
    assert not Judged(0.1, 30.0, {frame: 20.0 for frame in range(11)}).is_hopeless(best)
    assert not Judged(0.1, 30.0, {frame: 20.0 for frame in range(100, 112)}).is_hopeless(
        best
    )  # other frames say nothing
    assert not Judged(0.1, 30.0, {frame: 20.0 for frame in range(12)}).is_hopeless(None)


def test_a_plan_that_is_left_is_worse_by_what_the_frames_say():
    """However easy those frames are."""
    trials = Trials(SURVEY, lambda: PICTURES, StubRuntime(), MESSAGE)
    plan = trials.options[2]
    coded = trials._code(plan)
    fits = trials._stretch.fits(coded)
    whole = trials._tried(coded, fits, USUAL_SCALE, 1e6, None)
    assert len(whole.judged.rebuilt_db) == min(ratecontrol.JUDGES, len(trials._stretch.frames) - len(plan.frames))
    better = {frame: quality + 3 for frame, quality in whole.judged.rebuilt_db.items()}
    best = replace(whole, quality=whole.quality + 3, judged=replace(whole.judged, rebuilt_db=better))
    left = trials._tried(coded, fits, USUAL_SCALE, 1e6, best)
    assert len(left.judged.rebuilt_db) == min(ratecontrol.GLANCES)
    assert left.quality == pytest.approx(best.quality - 3 * (1 - whole.judged.shown))
