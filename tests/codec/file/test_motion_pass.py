"""The motion of a clip: fitted to the sources it will be rebuilt from, and packed within a bound."""

import numpy as np
import pytest

from circling import COUNT, PICTURES, SURVEY
from iwcodec.codec.decoder import Decoder
from iwcodec.codec.file.motion_pass import (
    FINEST_SCALE,
    SOURCES_TOGETHER,
    USUAL_SCALE,
    fitted_motion,
    from_sources,
    motion_size,
    quantised_motion,
    together,
)
from iwcodec.codec.file.source_plan import CLOSE, Plan, before, code, dense_plan, sparse_plan, wanted
from iwcodec.codec.fit.keypoint_fit import live_fit
from iwcodec.codec.motion.types import Fit, Quadratic
from iwcodec.codec.sources.library import CAPACITY
from stub_runtime import SIZE, StubRuntime

MESSAGE = 30


def fits(rows: np.ndarray) -> list[Fit]:
    return [Fit(Quadratic(row, np.eye(60)), 0) for row in rows]


def wild() -> list[Fit]:
    return fits(np.random.default_rng(0).normal(size=(60, 60)) * np.geomspace(20, 0.2, 60))


def test_still_motion_takes_the_usual_steps():
    packets = quantised_motion(fits(np.ones((60, 60))), MESSAGE, 10_000)
    assert {packet.scale for packet in packets} == {USUAL_SCALE}
    assert [(packet.first, packet.count) for packet in packets] == [(0, MESSAGE), (MESSAGE, MESSAGE)]


def test_steps_fit_the_bound():
    usual = motion_size(quantised_motion(wild(), MESSAGE, np.inf))
    packets = quantised_motion(wild(), MESSAGE, 0.8 * usual)
    assert packets[0].scale > USUAL_SCALE
    assert 0.6 * usual < motion_size(packets) <= 0.8 * usual * (1 + CLOSE)
    packets = quantised_motion(wild(), MESSAGE, 1.2 * usual, finest=FINEST_SCALE)
    assert FINEST_SCALE < packets[0].scale < USUAL_SCALE
    assert usual < motion_size(packets) <= 1.2 * usual * (1 + CLOSE)


def test_a_bound_that_nothing_keeps_gives_the_least_there_is():
    packets = quantised_motion(wild(), MESSAGE, 1.0)
    assert max(len(packet.payload) for packet in packets) <= 4


@pytest.mark.parametrize("upfront", [True, False])
def test_frames_that_are_sources_need_no_motion(upfront: bool):
    plan = sparse_plan(SURVEY, 3) if upfront else dense_plan(COUNT, 30)
    coded = code(plan, wanted(plan.frames, lambda: PICTURES, hold=upfront), SIZE)
    decoder = Decoder(StubRuntime())
    found = list(from_sources(fitted_motion(PICTURES, SURVEY.keypoints, coded, MESSAGE, decoder, live_fit()), decoder))
    assert len(found) == COUNT
    assert {n for n, (frame, *_) in enumerate(found) if not frame.gram.any()} == set(plan.frames)
    assert {fit.reference_source for fit in found} <= {packet.slot for packet in coded.packets}


@pytest.mark.parametrize("stride", [None, 2])
def test_what_is_packed_is_what_was_fitted(stride: int | None):
    """But for what quantising loses: through packets, and a decoder of its own. Also from a stream of more sources than
    a library holds, in which poses come back when their first sources have left."""
    plan = sparse_plan(SURVEY, 2) if stride is None else dense_plan(COUNT, stride)
    coded = code(plan, wanted(plan.frames, lambda: PICTURES, hold=plan.upfront), SIZE)
    assert plan.upfront or len(coded.packets) > CAPACITY
    raw = list(fitted_motion(PICTURES, SURVEY.keypoints, coded, MESSAGE, Decoder(StubRuntime()), live_fit()))
    decoder = Decoder(StubRuntime())
    found = list(from_sources(fitted_motion(PICTURES, SURVEY.keypoints, coded, MESSAGE, decoder, live_fit()), decoder))
    packets = quantised_motion(found, MESSAGE, np.inf, FINEST_SCALE, FINEST_SCALE)
    receiver, sent, decoded = Decoder(StubRuntime()), 0, []
    for message in packets:
        due = before(coded.packets, plan, message.first + message.count)
        for packet in coded.packets[sent:due]:
            receiver.add_source(packet)
        sent = due
        decoded += receiver.motion(message)
        assert {fit.reference_source for fit in raw[message.first :][: message.count]} <= set(receiver.library.slots())
    assert [motion.number for motion in decoded] == list(range(COUNT))
    for motion, (frame, reference_source, _) in zip(decoded, raw, strict=True):
        assert motion.reference_source == reference_source
        if frame.gram.any():
            assert frame.of(motion.keypoints.T.reshape(-1)) < 1.0


@pytest.mark.parametrize("stride", [1, 2, 4, 16])
@pytest.mark.parametrize("most", [1, 50, 120, 240])
def test_the_sources_of_a_message_are_all_there(stride: int, most: int):
    plan = dense_plan(1000, stride)
    length = together(plan, most)
    assert 1 <= length <= most
    assert -(-length // stride) + 1 <= SOURCES_TOGETHER + 1 < CAPACITY


def test_messages_of_few_sources_are_as_long_as_may_be():
    assert together(sparse_plan(SURVEY, 3), 100) == 100
    assert together(Plan((0,), 57, False), 100) == 100
