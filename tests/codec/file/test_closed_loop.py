"""Of several streams of a clip the one that is shown best is kept."""

import pytest

from circling import COUNT, PICTURES, SURVEY
from iwcodec.codec.decoder import Decoder
from iwcodec.codec.file.closed_loop import Stream, best_stream, quality, receiver_of
from iwcodec.codec.file.motion_pass import USUAL_SCALE, fitted_motion, from_sources, packed_motion
from iwcodec.codec.file.source_plan import Plan, code, dense_plan, sparse_plan, wanted
from iwcodec.codec.fit.keypoint_fit import quick_fit
from iwcodec.codec.media.quality import psnr
from stub_runtime import SIZE, StubRuntime

MESSAGE = 10


def stream(plan: Plan) -> Stream:
    runtime = StubRuntime()
    coded = code(plan, wanted(plan.frames, lambda: PICTURES, hold=True), SIZE)
    decoder = Decoder(runtime)
    found = fitted_motion(PICTURES, SURVEY.keypoints, coded, MESSAGE, decoder, quick_fit())
    fits = list(from_sources(found, decoder))
    messages = (fits[first : first + MESSAGE] for first in range(0, len(fits), MESSAGE))
    return Stream(coded, list(packed_motion(messages, USUAL_SCALE)), 1)


@pytest.fixture(scope="module")
def streams() -> list[Stream]:
    """This network rebuilds nothing but brightness, so that sources decide, and how well they are coded."""
    return [
        stream(plan) for plan in (sparse_plan(SURVEY, 2, crf=60), dense_plan(COUNT, 4, crf=20), sparse_plan(SURVEY, 4))
    ]


def test_quality_is_that_of_the_frames_as_they_are_shown(streams: list[Stream]):
    for one in streams:
        decoder = receiver_of(one, StubRuntime())
        for packet in one.coded.packets:
            decoder.add_source(packet)
        shown = {frame.number: frame.picture for packet in one.motion for frame in decoder.push(packet)}
        assert len(shown) == COUNT
        judges = {number: PICTURES[number] for number in (0, 7, 20, COUNT - 1)}
        expected = sum(psnr(shown[number], judges[number]) for number in judges) / len(judges)
        assert quality(one, judges, receiver_of(one, StubRuntime())) == pytest.approx(expected)


def test_the_best_stream_is_found_wherever_it_stands(streams: list[Stream]):
    whole = dict(enumerate(PICTURES))
    best = max(streams, key=lambda one: quality(one, whole, receiver_of(one, StubRuntime())))
    assert best is streams[1]
    for order in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        assert best_stream([streams[n] for n in order], COUNT, lambda: PICTURES, StubRuntime()) is best


def test_a_stream_alone_is_not_looked_at(streams: list[Stream]):
    def never() -> list:
        raise AssertionError

    assert best_stream(streams[:1], COUNT, never, StubRuntime()) is streams[0]
