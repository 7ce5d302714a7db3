"""Estimates of plans: the price of motion, single frames, and regions as variants will show them."""

import numpy as np
import pytest

from circling import COUNT, PICTURES, SURVEY
from iwcodec.codec.file.motion_pass import motion_size
from iwcodec.codec.file.rate_control.plan_estimate import (
    SHOWN_SOURCE_ERROR,
    VARIANT_ERROR,
    VARIANTS,
    MotionPrice,
    SampledFrames,
    SampledRegions,
    variant_errors,
    with_other_sources,
)
from iwcodec.codec.file.rate_control.source_plan import CodedSources, encode_plan, pictures_of, upfront_plan
from iwcodec.codec.file.rate_control.source_selection import REGION_SIDE, THUMBNAIL, Survey
from iwcodec.codec.file.rate_control.trials import SCALES, Excerpt
from iwcodec.codec.media.quality import psnr
from iwcodec.codec.sources.regions import REGIONS
from stub_runtime import SIZE, StubRuntime

MESSAGE = 10


def coded(sources: int, crf: float = 30) -> CodedSources:
    plan = upfront_plan(SURVEY, sources, crf)
    return encode_plan(plan, pictures_of(plan.frames, lambda: PICTURES, hold=True), SIZE, (8, 8))


def test_motion_is_priced_as_it_is_coded() -> None:
    sources, excerpt = coded(3), Excerpt(SURVEY, lambda: PICTURES, StubRuntime(), MESSAGE)
    price = MotionPrice(excerpt, sources)
    packets = excerpt.motion(sources.plan, excerpt.fits(sources), SCALES[2])
    assert price.at(SCALES[2])[0] == pytest.approx(motion_size(packets) / excerpt.share, rel=0.1)


def test_coarser_motion_costs_less_and_loses_more() -> None:
    price = MotionPrice(Excerpt(SURVEY, lambda: PICTURES, StubRuntime(), MESSAGE), coded(3))
    sizes, losses = zip(*(price.at(scale) for scale in SCALES), strict=True)
    assert list(sizes) == sorted(sizes, reverse=True)
    assert list(losses) == sorted(losses)


@pytest.mark.parametrize("other_db", [30.0, 36.0, 42.0])
def test_the_error_of_the_sources_is_part_of_a_frames(other_db: float) -> None:
    kept, shown = 10**-3.3, SHOWN_SOURCE_ERROR * 10**-3.6
    quality = -10 * np.log10(kept + shown)
    expected = -10 * np.log10(kept + SHOWN_SOURCE_ERROR * 10 ** (-other_db / 10))
    assert with_other_sources(quality, 36.0, other_db) == pytest.approx(expected)


def test_frames_are_judged_once() -> None:
    frames = SampledFrames(SURVEY, lambda: PICTURES, StubRuntime(), 8)
    first = frames.qualities(coded(4), 4)
    assert len(first) == 4
    rest = frames.qualities(coded(4), 8, first)
    assert len(rest) == 4
    assert not first.keys() & rest.keys()
    assert max(first.keys() | rest.keys()) < COUNT


def face_survey(states: list[int]) -> Survey:
    """Frames of a still head whose regions have one grey level each."""
    count = len(states)
    regions = np.empty((count, len(REGIONS), REGION_SIDE, REGION_SIDE, 3), np.uint8)
    regions[:] = np.array(states, np.uint8)[:, None, None, None, None]
    keypoints = np.zeros((count, 20, 3), np.float32)
    keypoints[:, 0, 0], keypoints[:, 1, 0] = -0.3, 0.3
    return Survey(np.zeros((count, THUMBNAIL, THUMBNAIL, 3), np.uint8), keypoints, regions)


def test_variants_leave_the_error_of_coding_where_they_suffice() -> None:
    levels = list(range(0, 200, 200 // VARIANTS))[:VARIANTS]
    assert np.allclose(variant_errors(face_survey(levels * 3)), VARIANT_ERROR)
    more = variant_errors(face_survey([*levels, 255]))
    assert more.max() > VARIANT_ERROR + 100


def test_a_region_counts_at_most_what_a_variant_leaves() -> None:
    survey = face_survey([0] * 5)
    judge = SampledRegions(survey, [0], SIZE)
    original = np.full((SIZE, SIZE, 3), 128, np.uint8)
    shifted = original + np.uint8(4)  # less than VARIANT_ERROR everywhere
    assert judge.quality(0, shifted, original) == pytest.approx(psnr(shifted, original), abs=0.01)
    wrong_eyes = original.copy()
    eyes = np.s_[3 * SIZE // 8 : SIZE // 2, SIZE // 4 : 3 * SIZE // 4]
    wrong_eyes[eyes] = 255
    assert judge.quality(0, wrong_eyes, original) > psnr(wrong_eyes, original) + 1
