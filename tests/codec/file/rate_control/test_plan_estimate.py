"""Estimates of plans: the price of motion, single frames, and regions as variants will show them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from iwcodec.codec.file.motion_pass import motion_size
from iwcodec.codec.file.rate_control.excerpt import read_excerpt
from iwcodec.codec.file.rate_control.plan_estimate import (
    SHOWN_SOURCE_ERROR,
    VARIANT_ERROR,
    VARIANTS,
    MotionPrice,
    SampledFrames,
    SampledRegions,
    variant_errors,
    with_coding_error,
)
from iwcodec.codec.file.rate_control.source_plan import CodedSources, Plan, encode_plan, pictures_of, upfront_plan
from iwcodec.codec.file.rate_control.source_selection import REGION_SIDE, THUMBNAIL, Survey, thumbnail
from iwcodec.codec.file.rate_control.trials import SCALES
from iwcodec.codec.fit.keypoint_fit import CANDIDATES
from iwcodec.codec.media.quality import psnr
from iwcodec.codec.media.types import Picture
from iwcodec.codec.sources.regions import REGIONS
from support.codec.circling import COUNT, PICTURES, SURVEY
from support.codec.stub_runtime import SIZE, StubRuntime

MESSAGE = 10


def coded(sources: int, crf: float = 30) -> CodedSources:
    plan = upfront_plan(SURVEY, sources, crf)
    return encode_plan(plan, pictures_of(plan.frames, lambda: PICTURES, hold=True), SIZE, (8, 8))


def test_motion_is_priced_as_it_is_coded() -> None:
    sources, excerpt = coded(3), read_excerpt(SURVEY, lambda: PICTURES, StubRuntime(), MESSAGE)
    price = MotionPrice(excerpt, sources)
    packets = excerpt.motion(sources.plan, excerpt.fits(sources), SCALES[2])
    assert price.at(SCALES[2])[0] == pytest.approx(motion_size(packets) / excerpt.share, rel=0.1)


def test_coarser_motion_costs_less_and_loses_more() -> None:
    price = MotionPrice(read_excerpt(SURVEY, lambda: PICTURES, StubRuntime(), MESSAGE), coded(3))
    sizes, losses = zip(*(price.at(scale) for scale in SCALES), strict=True)
    assert list(sizes) == sorted(sizes, reverse=True)
    assert list(losses) == sorted(losses)


@pytest.mark.parametrize("source_db", [30.0, 36.0, 42.0])
def test_the_error_of_the_sources_is_part_of_a_frames(source_db: float) -> None:
    kept = np.array([10**-3.3, 10**-2.8])
    expected = -10 * np.log10(kept + SHOWN_SOURCE_ERROR * 10 ** (-source_db / 10))
    assert with_coding_error(-10 * np.log10(kept), source_db) == pytest.approx(expected)


class CountingRuntime(StubRuntime):
    def __init__(self) -> None:
        super().__init__()
        self.rebuilt = 0

    def reconstruct(self, *arguments: Any) -> Picture:
        self.rebuilt += 1
        return super().reconstruct(*arguments)


def test_frames_are_judged_by_the_source_that_fits_best_and_only_once() -> None:
    runtime = CountingRuntime()
    frames = SampledFrames(SURVEY, dict(enumerate(PICTURES)), runtime, 8, 8)
    few, many = (frames.qualities(upfront_plan(SURVEY, number)) for number in (1, 16))
    assert len(few) == 8
    assert many.mean() > few.mean()
    before = runtime.rebuilt
    assert frames.qualities(upfront_plan(SURVEY, 1)) == pytest.approx(few)
    assert runtime.rebuilt == before


@pytest.mark.parametrize("sources", [1, 4])
def test_few_reconstructed_frames_tell_the_quality_of_all(sources: int) -> None:
    runtime, plan = CountingRuntime(), upfront_plan(SURVEY, sources)
    all_rebuilt = SampledFrames(SURVEY, dict(enumerate(PICTURES)), StubRuntime(), 24, 24).qualities(plan)
    estimated = SampledFrames(SURVEY, dict(enumerate(PICTURES)), runtime, 24, 8).qualities(plan)
    assert runtime.rebuilt == 8
    assert estimated[:8] == pytest.approx(all_rebuilt[:8])
    assert len(estimated) == len(all_rebuilt)
    assert estimated.mean() == pytest.approx(all_rebuilt.mean(), abs=abs(all_rebuilt[:8].mean() - all_rebuilt.mean()))


def test_sources_are_not_judged() -> None:
    frames = SampledFrames(SURVEY, dict(enumerate(PICTURES)), StubRuntime(), COUNT, COUNT)
    assert len(frames.qualities(Plan(tuple(range(0, COUNT, 2)), 50, True))) == COUNT // 2


def test_frames_are_fitted_to_sources_that_look_like_them() -> None:
    """Where sources show different things, those near in pose may show another shot."""
    pictures = {n: PICTURES[0] if n < 45 else 255 - PICTURES[0] for n in range(COUNT)}
    thumbnails = np.stack([thumbnail(picture) for picture in pictures.values()])
    survey = Survey(thumbnails, np.repeat(SURVEY.keypoints[:1], COUNT, 0))
    frames = SampledFrames(survey, pictures, StubRuntime(), 8, 8)
    plan = Plan((*range(40, 40 + CANDIDATES), 60), 50, True, unlike=True)
    assert frames.qualities(plan).min() > 40 > frames.qualities(replace(plan, unlike=False)).min()


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
