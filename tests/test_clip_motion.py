"""The motion of a clip: fitted to the sources it will be rebuilt from, and packed within a bound."""

import numpy as np
import pytest
from circling import COUNT, PICTURES, SURVEY
from iwcodec.alignment import hold, unknowns
from iwcodec.clip_motion import COARSEST, SHOWN_SHARE, Fit, coarsened, fitted_motion, motion_size, quantised_motion
from iwcodec.decoder import Decoder
from iwcodec.motion import Quantiser
from iwcodec.motion_rdo import Quadratic
from iwcodec.plans import CLOSE, code, dense_plan, sparse_plan, wanted
from iwcodec.refinement import live_fit
from stub_runtime import SIZE, StubRuntime

MESSAGE = 30


def fits(keypoints: np.ndarray) -> list[Fit]:
    return [(Quadratic(unknowns(row), np.diag(hold(row.size)) * 1e5), 0) for row in keypoints]


def wild() -> list[Fit]:
    shape = (60, *SURVEY.keypoints.shape[1:])
    return fits(np.random.default_rng(0).uniform(0.1, 0.9, shape).astype(np.float32))


def test_still_motion_takes_the_usual_steps():
    quantiser, packets = quantised_motion(fits(np.tile(SURVEY.keypoints[:1], (60, 1, 1))), MESSAGE, 10_000)
    assert quantiser == Quantiser()
    assert [(packet.first, packet.count) for packet in packets] == [(0, MESSAGE), (MESSAGE, MESSAGE)]


def test_steps_fit_the_bound():
    usual = motion_size(quantised_motion(wild(), MESSAGE, np.inf)[1])
    quantiser, packets = quantised_motion(wild(), MESSAGE, 0.8 * usual)
    assert Quantiser.step_xy < quantiser.step_xy < coarsened(COARSEST).step_xy
    assert 0.6 * usual < motion_size(packets) <= 0.8 * usual * (1 + CLOSE)
    finer, packets = quantised_motion(wild(), MESSAGE, 1.2 * usual, finest=0.35)
    assert finer.step_xy < Quantiser.step_xy
    assert usual < motion_size(packets) <= 1.2 * usual * (1 + CLOSE)


def test_where_no_steps_are_coarse_enough_messages_are_held_to_their_share():
    quantiser, coarsest = quantised_motion(wild(), MESSAGE, 1.0, start=COARSEST)
    assert quantiser == coarsened(COARSEST)
    assert motion_size(coarsest) < motion_size(quantised_motion(wild(), MESSAGE, np.inf, COARSEST, COARSEST)[1])


@pytest.mark.parametrize("upfront", [True, False])
def test_frames_that_are_sources_need_no_motion(upfront: bool):
    plan = sparse_plan(SURVEY, 3) if upfront else dense_plan(COUNT, 30)
    coded = code(plan, wanted(plan.frames, lambda: PICTURES, hold=upfront), SIZE)
    decoder = Decoder(StubRuntime())
    found = list(fitted_motion(PICTURES, SURVEY.keypoints, coded, decoder, live_fit()))
    assert len(found) == COUNT
    free = np.diag(hold(SURVEY.keypoints[0].size)) * SHOWN_SHARE
    assert {n for n, (frame, _) in enumerate(found) if np.array_equal(frame.gram, free)} == set(plan.frames)
    assert {leader for _, leader in found} <= {packet.slot for packet in coded.packets}
