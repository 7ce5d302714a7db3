"""The motion of a clip: fitted to the sources it is reconstructed from, and coded within a budget."""

import numpy as np
import pytest

from iwcodec.codec.decoder import Decoder
from iwcodec.codec.file.motion_pass import (
    FINEST_SCALE,
    MAX_MESSAGE_SOURCES,
    USUAL_SCALE,
    decode_motion,
    fit_motion,
    fit_upfront,
    interpolated_fits,
    message_length,
    motion_size,
    nodes,
    quantise_to_budget,
    to_source_coordinates,
)
from iwcodec.codec.file.rate_control.source_plan import (
    BUDGET_TOLERANCE,
    CodedSources,
    Plan,
    encode_plan,
    interleaved_plan,
    pictures_of,
    upfront_plan,
)
from iwcodec.codec.fit.keypoint_fit import live_fit
from iwcodec.codec.motion.types import Fit, Quadratic
from iwcodec.codec.sources.library import CAPACITY
from support.codec.circling import COUNT, PICTURES, SURVEY
from support.codec.stub_runtime import SIZE, StubRuntime

MESSAGE = 30


def fits_of(rows: np.ndarray) -> list[Fit]:
    return [Fit(Quadratic(row, np.eye(60)), 0) for row in rows]


def lively_fits() -> list[Fit]:
    return fits_of(np.random.default_rng(0).normal(size=(60, 60)) * np.geomspace(20, 0.2, 60))


FEW = 32
"""Sources in a library, fewer than the circling clip can have."""


def encode_sources(plan: Plan) -> CodedSources:
    return encode_plan(plan, pictures_of(plan.frames, lambda: PICTURES, hold=plan.upfront), SIZE)


def fit_circling(coded: CodedSources, capacity: int = CAPACITY) -> tuple[list[Fit], list[Fit]]:
    """Fits of the circling clip, and the same in source coordinates."""
    decoder = Decoder(StubRuntime(), capacity=capacity)
    fits = list(fit_motion(PICTURES, SURVEY.keypoints, coded, MESSAGE, decoder, live_fit()))
    decoder = Decoder(StubRuntime(), capacity=capacity)
    again = fit_motion(PICTURES, SURVEY.keypoints, coded, MESSAGE, decoder, live_fit())
    return fits, list(to_source_coordinates(again, decoder))


def test_cheap_motion_is_coded_at_the_usual_scale() -> None:
    packets = quantise_to_budget(fits_of(np.ones((60, 60))), MESSAGE, 10_000)
    assert {packet.scale for packet in packets} == {USUAL_SCALE}
    assert [(packet.first, packet.count) for packet in packets] == [(0, MESSAGE), (MESSAGE, MESSAGE)]


def test_the_scale_follows_the_budget() -> None:
    usual = motion_size(quantise_to_budget(lively_fits(), MESSAGE, np.inf))
    packets = quantise_to_budget(lively_fits(), MESSAGE, 0.8 * usual)
    assert packets[0].scale > USUAL_SCALE
    assert 0.6 * usual < motion_size(packets) <= 0.8 * usual * (1 + BUDGET_TOLERANCE)
    packets = quantise_to_budget(lively_fits(), MESSAGE, 1.2 * usual, finest=FINEST_SCALE)
    assert FINEST_SCALE < packets[0].scale < USUAL_SCALE
    assert usual < motion_size(packets) <= 1.2 * usual * (1 + BUDGET_TOLERANCE)


def test_an_impossible_budget_gives_the_coarsest_scale() -> None:
    packets = quantise_to_budget(lively_fits(), MESSAGE, 1.0)
    assert max(len(packet.payload) for packet in packets) <= 4


@pytest.mark.parametrize("upfront", [True, False])
def test_frames_that_are_sources_need_no_motion(upfront: bool) -> None:
    plan = upfront_plan(SURVEY, 3) if upfront else interleaved_plan(COUNT, 30)
    coded = encode_sources(plan)
    _, fits = fit_circling(coded)
    assert len(fits) == COUNT
    assert {number for number, fit in enumerate(fits) if not fit.frame.gram.any()} == set(plan.frames)
    assert {fit.reference_source for fit in fits} <= {packet.slot for packet in coded.packets}


@pytest.mark.parametrize("stride", [None, 2])
def test_a_receiver_decodes_the_fitted_keypoints(stride: int | None) -> None:
    """Apart from quantisation loss. Also for more sources than a library holds, where poses return after their first
    sources were evicted."""
    plan = upfront_plan(SURVEY, 2) if stride is None else interleaved_plan(COUNT, stride)
    coded = encode_sources(plan)
    assert plan.upfront or len(coded.packets) > FEW
    fits, coordinates = fit_circling(coded, FEW)
    packets = quantise_to_budget(coordinates, MESSAGE, np.inf, FINEST_SCALE, FINEST_SCALE)
    receiver, decoded = Decoder(StubRuntime(), capacity=FEW), []
    for motion in decode_motion(coded, packets, receiver):
        decoded.append(motion)
        assert fits[motion.number].reference_source in receiver.library.slots()
    assert [motion.number for motion in decoded] == list(range(COUNT))
    for motion, (frame, reference_source, _) in zip(decoded, fits, strict=True):
        assert motion.reference_source == reference_source
        if frame.gram.any():
            assert frame.of(motion.keypoints.T.reshape(-1)) < 1.0


@pytest.mark.parametrize("stride", [1, 2, 4, 16])
@pytest.mark.parametrize("max_frames", [1, 50, 120, 240])
def test_a_library_holds_the_sources_of_a_message(stride: int, max_frames: int) -> None:
    length = message_length(interleaved_plan(1000, stride), max_frames)
    assert 1 <= length <= max_frames
    assert -(-length // stride) + 1 <= MAX_MESSAGE_SOURCES + 1 < CAPACITY


def test_messages_of_few_sources_have_the_maximum_length() -> None:
    assert message_length(upfront_plan(SURVEY, 3), 100) == 100
    assert message_length(Plan((0,), 57, False), 100) == 100


def test_every_second_frame_and_the_last_are_nodes() -> None:
    assert nodes(6, 2) == [0, 2, 4, 5]
    assert nodes(5, 2) == [0, 2, 4]
    assert nodes(3, 1) == [0, 1, 2]
    assert nodes(1, 2) == [0]


def test_fits_are_interpolated_between_frames_of_the_same_reference_source() -> None:
    rows, gram = np.arange(5.0)[:, None] * np.ones((1, 60)), np.eye(60)
    a, b, other = (Fit(Quadratic(rows[n], gram), source) for n, source in ((0, 0), (2, 0), (4, 1)))
    found = interpolated_fits({0: a, 2: b, 4: other})
    assert [fit.frame.target[0] for fit in found] == [0, 1, 2, 2, 4]
    assert [fit.reference_source for fit in found] == [0, 0, 0, 0, 1]


def test_a_frame_after_one_in_skip_mode_is_skipped_too() -> None:
    skipped = Fit(Quadratic(np.zeros(60), np.zeros((60, 60))), 0, True)
    fitted = Fit(Quadratic(np.ones(60), np.eye(60)), 0)
    assert [fit.skip for fit in interpolated_fits({0: skipped, 2: fitted, 4: skipped})] == [
        True,
        True,
        False,
        False,
        True,
    ]


def test_half_of_the_frames_are_fitted_nearly_as_well() -> None:
    coded = encode_sources(upfront_plan(SURVEY, 1, 30))

    def fits(step: int) -> list[Fit]:
        decoder = Decoder(StubRuntime())
        return list(fit_upfront(PICTURES, SURVEY.keypoints, coded, MESSAGE, decoder, live_fit, step=step))

    every, half = fits(1), fits(2)
    assert len(half) == len(every) == COUNT
    sources = {packet.frame for packet in coded.packets}
    assert all(not half[number].frame.gram.any() for number in sources if number is not None)
    targets, of_half = (np.array([fit.frame.target for fit in fits]) for fits in (every, half))
    assert np.abs(of_half - targets).mean() < 0.1 * np.abs(targets).max()
