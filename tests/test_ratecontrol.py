"""Rate control: what is tried, and that the budget buys what pays."""

import math
from dataclasses import replace

import numpy as np
import pytest
from circling import COUNT, PICTURES, SURVEY
from iwcodec import ratecontrol
from iwcodec.decoder import Motion
from iwcodec.plans import CLOSE, code, dense_plan, sparse_plan, wanted
from iwcodec.quality import psnr
from iwcodec.ratecontrol import Choice, Stretch, choose, climb, nearest_step, rebased, spread
from iwcodec.selection import Survey
from iwcodec.sources import SourceDecoder
from stub_runtime import SIZE, StubRuntime

MESSAGE = 10


def silent(name: str, share: float) -> None:
    pass


def chosen(budget: float, kbps: float = 4.0) -> Choice:
    return choose(SURVEY, lambda: PICTURES, StubRuntime(), budget, kbps, MESSAGE, silent, preset=8)


def stretch() -> Stretch:
    return Stretch(SURVEY, lambda: PICTURES, StubRuntime(), MESSAGE)


def test_climbing_finds_the_top_from_both_sides():
    hill = [0.0, 1.0, 3.0, 7.0, 6.0, 2.0, -math.inf]
    assert [climb(hill.__getitem__, len(hill), start) for start in range(len(hill))] == [3] * len(hill)


def test_steps_are_found_by_ratio():
    assert [nearest_step(coarser) for coarser in ratecontrol.COARSER] == list(range(len(ratecontrol.COARSER)))
    assert nearest_step(1e-9) == 0


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
    motion = [Motion(number, row, 0) for number, row in enumerate(tried.detected)]
    assert tried.qualities(coded, motion, [1]) == {1: pytest.approx(coded.shown_db)}


def test_the_quality_expected_is_that_of_the_frames():
    """Every frame of a still clip is rebuilt alike."""
    still = Survey(np.repeat(SURVEY.thumbnails[:1], 40, 0), np.repeat(SURVEY.keypoints[:1], 40, 0))
    tried = Stretch(still, lambda: PICTURES[:1] * 40, StubRuntime(), MESSAGE)
    plan = sparse_plan(still, 1)
    coded = code(plan, [(plan.frames[0], PICTURES[0])], SIZE)
    motion = [Motion(number, row, 0) for number, row in enumerate(tried.detected)]
    source = StubRuntime().prepare(SourceDecoder(SIZE).add(coded.packets[0].payload))
    rebuilt = psnr(StubRuntime().reconstruct(still.keypoints[0], [source]), PICTURES[0])
    expected = tried.qualities(coded, motion, [1])[1]
    assert expected == pytest.approx(coded.shown_db / 40 + rebuilt * 39 / 40, abs=0.5)


def test_motion_follows_the_sources_own_keypoints():
    """Coded otherwise, a source may have other keypoints; frames fitted to it move with them."""
    rows = [row for row in SURVEY.keypoints[:3]]
    motion = [Motion(0, rows[0], 0), Motion(1, rows[1], 1)]
    before, after = [rows[1], rows[2]], [rows[1], rows[2] + np.float32(0.25)]
    moved = rebased(motion, before, after)
    assert np.array_equal(moved[0].keypoints, rows[0])
    assert np.allclose(moved[1].keypoints, rows[1] + 0.25)
    assert [frame.leader for frame in moved] == [0, 1]


def test_more_bits_buy_more_sources():
    poor, rich = chosen(900), chosen(20_000, 40.0)
    assert poor.coded.size + poor.moving <= 900 * (1 + CLOSE)
    assert rich.coded.size + rich.moving <= 20_000 * (1 + CLOSE)
    # This network rebuilds nothing but brightness: whatever is no source looks bad, so sources are what pays.
    assert len(rich.coded.packets) > 2 * len(poor.coded.packets)
    assert not rich.coded.plan.upfront


def test_a_hopeless_budget_gives_the_least_there_is():
    choice = chosen(10)
    assert len(choice.coded.packets) == 1
    assert choice.coded.plan.crf == 63


def test_fewer_sources_enter_attention_where_more_are_no_better():
    tried = stretch()
    plan = sparse_plan(SURVEY, 3)
    coded = code(plan, wanted(plan.frames, lambda: PICTURES, hold=True), SIZE)
    motion = [Motion(number, row, 0) for number, row in enumerate(tried.detected)]
    quality = tried.qualities(coded, motion, [1, 2, 3])
    best = tried.best_active(coded, motion)
    assert quality[best] >= max(quality.values()) - ratecontrol.NO_WORSE_DB
    assert all(quality[count] < max(quality.values()) - ratecontrol.NO_WORSE_DB for count in range(1, best))


def test_trials_leave_what_they_are_given_alone():
    kept = replace(SURVEY, keypoints=SURVEY.keypoints.copy())
    chosen(3000)
    assert np.array_equal(kept.keypoints, SURVEY.keypoints)
