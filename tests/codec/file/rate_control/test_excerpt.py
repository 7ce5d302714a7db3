"""The excerpt of a clip, and its quality."""

import numpy as np
import pytest

from iwcodec.codec.file.motion_pass import USUAL_SCALE
from iwcodec.codec.file.rate_control.excerpt import (
    NO_WORSE_DB,
    PIECES,
    Excerpt,
    ExcerptQuality,
    excerpt_frames,
    read_excerpt,
)
from iwcodec.codec.file.rate_control.source_plan import (
    STRIDES,
    encode_plan,
    interleaved_plan,
    pictures_of,
    upfront_plan,
)
from iwcodec.codec.file.rate_control.source_selection import Survey
from iwcodec.codec.media.quality import psnr
from iwcodec.codec.sources.av1 import SourceDecoder
from support.codec.circling import COUNT, PICTURES, SURVEY
from support.codec.stub_runtime import SIZE, StubRuntime

MESSAGE = 10


def make_excerpt() -> Excerpt:
    return read_excerpt(SURVEY, lambda: PICTURES, StubRuntime(), MESSAGE)


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
