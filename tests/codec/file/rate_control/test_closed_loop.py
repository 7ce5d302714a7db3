"""Closed-loop evaluation: quality as a receiver sees it, and the decisions that follow from it."""

from collections.abc import Sequence

import numpy as np
import pytest

from iwcodec.codec.bitstream.packets import MotionPacket, Run
from iwcodec.codec.decoder import Decoder
from iwcodec.codec.file.motion_pass import USUAL_SCALE, fit_motion, quantise_messages, to_source_coordinates
from iwcodec.codec.file.rate_control.closed_loop import (
    SUPPRESSION_FRAMES,
    SUPPRESSIONS,
    Stream,
    best_stream,
    choose_suppression,
    evaluated_frames,
    most_used_slot,
    receive,
    stream_quality,
)
from iwcodec.codec.file.rate_control.source_plan import Plan, encode_plan, interleaved_plan, pictures_of, upfront_plan
from iwcodec.codec.fit.keypoint_fit import quick_fit
from iwcodec.codec.media.quality import psnr
from iwcodec.codec.media.types import Picture
from iwcodec.codec.motion.encoder import MotionEncoder
from iwcodec.codec.sources.library import CAPACITY
from iwcodec.models.runtime.types import Keypoints, Source
from support.codec.circling import COUNT, PICTURES, SURVEY
from support.codec.stub_runtime import SIZE, StubRuntime

MESSAGE = 10


def make_stream(plan: Plan) -> Stream:
    coded = encode_plan(plan, pictures_of(plan.frames, lambda: PICTURES, hold=True), SIZE)
    decoder = Decoder(StubRuntime())
    fits = list(
        to_source_coordinates(fit_motion(PICTURES, SURVEY.keypoints, coded, MESSAGE, decoder, quick_fit()), decoder)
    )
    messages = (fits[first : first + MESSAGE] for first in range(0, len(fits), MESSAGE))
    return Stream(coded, list(quantise_messages(messages, USUAL_SCALE)), active=1)


@pytest.fixture(scope="module")
def streams() -> list[Stream]:
    """The stub network reconstructs nothing but brightness, so that sources and their quality decide."""
    plans = (upfront_plan(SURVEY, 2, crf=60), interleaved_plan(COUNT, 4, crf=20), upfront_plan(SURVEY, 4))
    return [make_stream(plan) for plan in plans]


@pytest.fixture(scope="module")
def three_sources() -> Stream:
    """With the motion of a call: no frame is in skip mode, and every one is reconstructed."""
    plan = upfront_plan(SURVEY, 3)
    coded = encode_plan(plan, pictures_of(plan.frames, lambda: PICTURES, hold=True), SIZE)
    encoder = MotionEncoder()
    for keypoints in SURVEY.keypoints:
        encoder.push(keypoints)
    return Stream(coded, [encoder.pack(first, MESSAGE) for first in range(0, COUNT, MESSAGE)], active=3)


def test_received_frames_are_those_of_a_decoder(streams: list[Stream]) -> None:
    for stream in streams:
        decoder = Decoder(StubRuntime(), capacity=CAPACITY, active=stream.active)
        for packet in stream.coded.packets:
            decoder.add_source(packet)
        shown = {frame.number: frame.picture for packet in stream.motion for frame in decoder.push(packet)}
        assert len(shown) == COUNT
        received = {frame.number: frame for frame in receive(stream, range(COUNT), StubRuntime())}
        assert list(received) == list(range(COUNT))
        assert all(np.array_equal(received[n].picture(StubRuntime()), shown[n]) for n in shown)
        originals = {number: PICTURES[number] for number in (0, 7, 20, COUNT - 1)}
        expected = sum(psnr(shown[number], originals[number]) for number in originals) / len(originals)
        assert stream_quality(stream, originals, StubRuntime()) == pytest.approx(expected)


def test_the_best_stream_is_chosen_in_any_order(streams: list[Stream]) -> None:
    originals = dict(enumerate(PICTURES))
    best = max(streams, key=lambda stream: stream_quality(stream, originals, StubRuntime()))
    assert best is streams[1]
    for order in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        assert best_stream([streams[n] for n in order], COUNT, lambda: PICTURES, StubRuntime()) is best


def test_a_single_stream_is_not_evaluated(streams: list[Stream]) -> None:
    def never() -> list:
        raise AssertionError

    assert best_stream(streams[:1], COUNT, never, StubRuntime()) is streams[0]


class BestAt(StubRuntime):
    """Reconstructs best at one suppression; each tenth of a pixel from it adds an error of so many grey levels."""

    def __init__(self, best: int, error_per_tenth: float = 1.0) -> None:
        self._best, self._error_per_tenth = best, error_per_tenth

    def reconstruct(self, keypoints: Keypoints, sources: Sequence[Source], suppression: float = 0.0) -> Picture:
        shown = super().reconstruct(keypoints, sources)
        error = self._error_per_tenth * abs(round(10 * suppression) - self._best)
        return np.clip(shown + np.where(np.indices(shown.shape).sum(0) % 2, error, -error), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("best", SUPPRESSIONS)
def test_the_suppression_that_reconstructs_best_is_chosen(best: int, three_sources: Stream) -> None:
    assert choose_suppression(three_sources, COUNT, lambda: PICTURES, BestAt(best, 4.0)) == best


def test_shifts_are_not_suppressed_for_a_negligible_gain(three_sources: Stream) -> None:
    assert choose_suppression(three_sources, COUNT, lambda: PICTURES, StubRuntime()) == 0
    largest = SUPPRESSIONS[-1]
    assert choose_suppression(three_sources, COUNT, lambda: PICTURES, BestAt(largest, 0.01)) == 0  # of a grey level
    assert choose_suppression(three_sources, COUNT, lambda: PICTURES, BestAt(largest, 4.0)) == largest


def test_sources_are_not_evaluated_for_suppression(three_sources: Stream) -> None:
    sources = three_sources.coded.plan.frames
    frames = evaluated_frames(COUNT, SUPPRESSION_FRAMES, sources)
    assert len(set(frames)) == len(frames) == SUPPRESSION_FRAMES
    assert not set(frames) & set(sources)
    assert max(frames) < COUNT


def test_a_stream_of_sources_alone_needs_no_suppression() -> None:
    stream = make_stream(interleaved_plan(COUNT, 1))
    assert choose_suppression(stream, COUNT, lambda: PICTURES, BestAt(8)) == 0


def test_the_source_of_most_frames_among_those_not_excluded() -> None:
    payload = b"\0"
    motion = [
        MotionPacket(0, 9, None, payload, (Run(0, 4), Run(1, 3), Run(2, 2))),
        MotionPacket(9, 3, None, payload, (Run(2, 3),)),
    ]
    assert most_used_slot(motion) == 2
    assert most_used_slot(motion, {2}) == 0
    assert most_used_slot(motion, {0, 1, 2}) is None
    assert most_used_slot([]) is None
