"""Trials of source plans: the excerpt of the clip, its quality, and the budget."""

import math
from dataclasses import replace

import numpy as np
import pytest

from iwcodec.codec.file.motion_pass import USUAL_SCALE
from iwcodec.codec.file.rate_control.source_plan import (
    BEST_CRF,
    BUDGET_TOLERANCE,
    encode_plan,
    interleaved_plan,
    pictures_of,
    upfront_plan,
    worst_crf,
)
from iwcodec.codec.file.rate_control.source_selection import Survey
from iwcodec.codec.file.rate_control.trials import (
    EARLY_STOP_DB,
    FACE_STRIDE,
    NO_WORSE_DB,
    PIECES,
    STRIDES,
    TRIAL_FRAMES,
    Excerpt,
    ExcerptQuality,
    PlanTrials,
    climb,
    excerpt_frames,
    read_excerpt,
)
from iwcodec.codec.media.quality import psnr
from iwcodec.codec.sources.av1 import SourceDecoder
from support.codec.circling import COUNT, PICTURES, SURVEY
from support.codec.stub_runtime import SIZE, StubRuntime

MESSAGE = 10


def make_excerpt() -> Excerpt:
    return read_excerpt(SURVEY, lambda: PICTURES, StubRuntime(), MESSAGE)


def test_climb_finds_the_maximum_from_both_sides() -> None:
    hill = [0.0, 1.0, 3.0, 7.0, 6.0, 2.0, -math.inf]
    assert [climb(hill.__getitem__, len(hill), start) for start in range(len(hill))] == [3] * len(hill)


def test_climb_passes_narrow_dips() -> None:
    hills = [0.0, 4.0, 3.0, 5.0, 6.0, 5.5, 5.0, 9.0]
    assert [climb(hills.__getitem__, len(hills), start, reach=2) for start in range(5)] == [4] * 5
    assert climb(hills.__getitem__, len(hills), 1) == 1


def test_pieces_are_spread_over_the_clip() -> None:
    frames = excerpt_frames(1000, 50)
    assert frames == sorted(set(frames))
    assert len(frames) == 50 * PIECES
    assert [frame // 250 for frame in frames[::50]] == [0, 1, 2, 3]
    assert excerpt_frames(120, 50) == list(range(120))


@pytest.mark.parametrize("message", [1, 2, 7, 30, 120])
def test_pieces_hold_whole_messages_and_two_sources_of_every_interleaved_plan(message: int) -> None:
    """Also for a clip at one frame per second."""
    frames = excerpt_frames(5000, message)
    length = len(frames) // PIECES
    assert length % message == 0
    for stride in STRIDES:
        for first in range(0, len(frames), length):
            piece = frames[first : first + length]
            assert piece == list(range(piece[0], piece[0] + length))
            assert sum(frame % stride == 0 for frame in piece) >= 2


def test_sources_get_the_frame_numbers_of_the_excerpt() -> None:
    excerpt = make_excerpt()
    plan = interleaved_plan(COUNT, 8)
    local = excerpt.renumbered(encode_plan(plan, pictures_of(plan.frames, lambda: PICTURES, hold=False), SIZE))
    for packet, frame in zip(local.packets, plan.frames, strict=True):
        assert (packet.frame is None) == (frame not in excerpt.frames)
        if packet.frame is not None:
            assert excerpt.pictures[packet.frame] is PICTURES[frame]


def test_quality_of_a_stream_of_sources_is_that_of_the_sources() -> None:
    excerpt = make_excerpt()
    plan = interleaved_plan(COUNT, 1)
    coded = encode_plan(plan, pictures_of(plan.frames, lambda: PICTURES, hold=False), SIZE)
    motion = excerpt.motion(plan, excerpt.fits(coded), USUAL_SCALE)
    assert excerpt.qualities(coded, motion, [1]) == {1: pytest.approx(coded.source_db)}


def test_predicted_quality_is_that_of_the_frames() -> None:
    """Every frame of a clip without motion is reconstructed alike."""
    survey = Survey(np.repeat(SURVEY.thumbnails[:1], 40, 0), np.repeat(SURVEY.keypoints[:1], 40, 0))
    excerpt = read_excerpt(survey, lambda: PICTURES[:1] * 40, StubRuntime(), MESSAGE)
    plan = upfront_plan(survey, 1)
    coded = encode_plan(plan, [(plan.frames[0], PICTURES[0])], SIZE)
    motion = excerpt.motion(plan, excerpt.fits(coded), USUAL_SCALE)
    source = StubRuntime().prepare(SourceDecoder(SIZE).add(coded.packets[0].payload))
    rebuilt_db = psnr(StubRuntime().reconstruct(survey.keypoints[0], [source]), PICTURES[0])
    predicted = excerpt.qualities(coded, motion, [1])[1]
    assert predicted == pytest.approx(coded.source_db / 40 + rebuilt_db * 39 / 40, abs=0.5)


def test_fewer_sources_enter_attention_where_more_are_no_better() -> None:
    excerpt = make_excerpt()
    plan = upfront_plan(SURVEY, 3)
    coded = encode_plan(plan, pictures_of(plan.frames, lambda: PICTURES, hold=True), SIZE)
    motion = excerpt.motion(plan, excerpt.fits(coded), USUAL_SCALE)
    quality = excerpt.qualities(coded, motion, [1, 2, 3])
    best = excerpt.best_active(coded, motion)
    assert quality[best] >= max(quality.values()) - NO_WORSE_DB
    assert all(quality[count] < max(quality.values()) - NO_WORSE_DB for count in range(1, best))


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


def test_evaluation_stops_early_for_a_clearly_worse_plan() -> None:
    best = ExcerptQuality(0.1, 30.0, {frame: 30.0 for frame in range(48)})
    for difference, worse in ((-1.5, True), (-0.6, False), (1.0, False)):
        tried = ExcerptQuality(0.1, 30.0, {frame: 30.0 + difference for frame in range(12)})
        assert tried.gain_over(best) == pytest.approx(0.9 * difference)
        assert tried.is_clearly_worse(best) is worse
    assert not ExcerptQuality(0.1, 30.0, {frame: 20.0 for frame in range(11)}).is_clearly_worse(best)
    other_frames = ExcerptQuality(0.1, 30.0, {frame: 20.0 for frame in range(100, 112)})
    assert not other_frames.is_clearly_worse(best)
    assert not ExcerptQuality(0.1, 30.0, {frame: 20.0 for frame in range(12)}).is_clearly_worse(None)


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
