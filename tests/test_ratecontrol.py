"""Rate control: plans, their order in the stream, and budgets that are kept."""

import math

import numpy as np
import pytest
from iwcodec.motion import Quantiser
from iwcodec.ratecontrol import (
    CLOSE,
    CRF,
    Budget,
    Plan,
    affordable_motion,
    before,
    climb,
    code,
    crf_for,
    dense_plan,
    fitted,
    motion_bytes,
    plan_for,
    sparse_plan,
    wanted,
)
from iwcodec.selection import Survey, thumbnail
from stub_runtime import SIZE, StubRuntime

COUNT = 90


def clip() -> list[np.ndarray]:
    """A textured patch that circles, so that every frame differs a little from the last."""
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 256, (SIZE, SIZE, 3)).astype(np.float32)
    for _ in range(6):
        texture = (texture + np.roll(texture, 1, 0) + np.roll(texture, 1, 1)) / 3
    texture = ((texture - texture.min()) / np.ptp(texture) * 255).astype(np.uint8)
    turns = [2 * math.pi * n / 45 for n in range(COUNT)]
    return [np.roll(texture, (round(9 * math.cos(t)), round(9 * math.sin(t))), (0, 1)) for t in turns]


PICTURES = clip()
SURVEY = Survey(np.stack([thumbnail(p) for p in PICTURES]), np.stack([StubRuntime().detect(p) for p in PICTURES]))


def silent(name: str, share: float) -> None:
    pass


def test_wanted_pictures_come_in_the_order_asked_for():
    frames = (40, 3, 17)
    found = list(wanted(frames, lambda: PICTURES, hold=True))
    assert [number for number, _ in found] == [40, 3, 17]
    assert all(picture is PICTURES[number] for number, picture in found)
    assert [n for n, _ in wanted((3, 17, 40), lambda: iter(PICTURES), hold=False)] == [3, 17, 40]


def test_sources_precede_the_motion_that_uses_them():
    plan = dense_plan(30, 10)
    packets = code(plan, ((n, PICTURES[n]) for n in plan.frames), SIZE).packets
    assert [packet.frame for packet in packets] == [0, 10, 20]
    assert before(packets, plan, 5) == 2  # frame 0, and 10 for those between
    assert before(packets, plan, 11) == 3
    assert before(packets, plan, 30) == 3
    assert before(packets, sparse_plan(SURVEY, 2), 1) == 3  # upfront means all


def test_climbing_finds_the_top_from_both_sides():
    hill = [0.0, 1.0, 3.0, 7.0, 6.0, 2.0, -math.inf]
    assert [climb(hill.__getitem__, len(hill), start) for start in range(len(hill))] == [3] * len(hill)


def test_quality_falls_as_the_budget_does():
    plan = Plan((0,), CRF, True)
    crfs = [crf_for(plan, 1000.0, budget) for budget in (4000.0, 1000.0, 500.0, 1.0)]
    assert crfs == sorted(crfs)
    assert crfs[1] == CRF
    assert crfs[-1] == 63


def test_motion_is_counted_as_it_will_be_spent():
    keypoints = SURVEY.keypoints
    assert 0 < motion_bytes(keypoints, 50, Quantiser()) < motion_bytes(keypoints, 10, Quantiser())


def test_wild_motion_is_quantised_more_coarsely():
    still = np.tile(SURVEY.keypoints[:1], (60, 1, 1))
    assert affordable_motion(still, 50, 25)[0] == Quantiser()
    wild = np.clip(np.random.default_rng(0).uniform(-0.9, 0.9, still.shape), 0.1, 0.9).astype(np.float32)
    quantiser, spent = affordable_motion(wild, 50, 25)
    assert quantiser.step_xy > Quantiser().step_xy
    assert spent == motion_bytes(wild, 50, quantiser)


@pytest.mark.parametrize("budget", [3000, 9000])
def test_the_budget_is_kept(budget: int):
    coded = fitted(dense_plan(COUNT, 3), lambda: PICTURES, SIZE, budget)
    assert budget * 0.75 < coded.size <= budget * (1 + CLOSE)


def test_more_bits_buy_more_sources():
    runtime = StubRuntime()
    poor, rich = (plan_for(SURVEY, lambda: PICTURES, runtime, Budget(budget), silent) for budget in (900, 20_000))
    assert poor.size <= 900 * (1 + CLOSE)
    assert rich.size <= 20_000 * (1 + CLOSE)
    # This network rebuilds nothing but brightness: whatever is no source looks bad, so sources are what pays.
    assert len(rich.packets) > 2 * len(poor.packets)
    assert not rich.plan.upfront


def test_a_hopeless_budget_gives_the_least_there_is():
    coded = plan_for(SURVEY, lambda: PICTURES, StubRuntime(), Budget(10), silent)
    assert len(coded.packets) == 1
    assert coded.plan.crf == 63


def test_a_budget_that_the_motion_alone_exceeds_leaves_the_least():
    assert Budget(100.0, 300.0).sources(shown=0.0) == 1
    assert Budget(400.0, 300.0).sources(shown=0.5) == 250
