"""Which frames become sources, and in what order they are coded."""

from dataclasses import replace

import numpy as np
import pytest

from iwcodec.codec.file.rate_control.source_selection import (
    REGION_SIDE,
    THUMBNAIL,
    Survey,
    choose_sources,
    coding_order,
    evenly_spaced,
    region_errors,
    region_pictures,
    thumbnail,
)
from iwcodec.codec.sources.regions import EYES, MOUTH, REGIONS, region_box


def clip_of(*poses: float, each: int = 10) -> Survey:
    """A clip that shows each pose for `each` frames; a pose has its own grey level and keypoints."""
    levels = np.repeat(np.array(poses, np.float32), each)
    noise = np.random.default_rng(0).normal(0, 0.3, len(levels))
    thumbnails = np.clip(128 + 80 * levels + noise, 0, 255).astype(np.uint8)[:, None, None, None]
    keypoints = np.repeat(levels[:, None, None], 5, 1) * np.array([0.5, 0.5, 0], np.float32) + 0.2
    return Survey(np.broadcast_to(thumbnails, (len(levels), THUMBNAIL, THUMBNAIL, 3)), keypoints.astype(np.float32))


def test_a_single_source_shows_the_most_common_pose() -> None:
    survey = clip_of(-1, 0, 0, 0, 1)
    (chosen,) = choose_sources(survey, 1)
    assert 10 <= chosen < 40


def test_each_pose_gets_a_source_before_any_gets_two() -> None:
    chosen = choose_sources(clip_of(-1, 0, 1), 3)
    assert sorted(n // 10 for n in chosen) == [0, 1, 2]


def test_every_frame_becomes_a_source_if_more_are_asked_for() -> None:
    survey = clip_of(0.0, 1.0, each=2)
    assert sorted(choose_sources(survey, 30)) == [0, 1, 2, 3]


def test_coding_order_goes_to_the_nearest_thumbnail() -> None:
    survey = clip_of(-1, -0.5, 0.5, 1)
    assert coding_order(survey, [5, 35, 25, 15]) == [5, 15, 25, 35]


@pytest.mark.parametrize("count", [1, 5, 1000])
def test_evenly_spaced_includes_both_ends(count: int) -> None:
    numbers = evenly_spaced(count, 7)
    assert numbers[0] == 0
    assert numbers[-1] == count - 1
    assert len(numbers) == min(count, 7)


def test_size_of_thumbnails() -> None:
    assert thumbnail(np.zeros((256, 256, 3), np.uint8)).shape == (THUMBNAIL, THUMBNAIL, 3)


def expressions(each: int = 10) -> Survey:
    """A still head with open and closed eyes and mouth in all four combinations, open and open first, `each` frames of
    each."""
    states = np.repeat(np.array([(0, 0), (1, 1), (0, 1), (1, 0)]), each, 0)
    regions = np.broadcast_to(
        (60 + 120 * states).astype(np.uint8)[..., None, None, None],
        (len(states), len(REGIONS), REGION_SIDE, REGION_SIDE, 3),
    )
    keypoints = np.zeros((len(states), 20, 3), np.float32)
    keypoints[:, 0, 0], keypoints[:, 1, 0] = -0.2, 0.2
    return Survey(np.full((len(states), THUMBNAIL, THUMBNAIL, 3), 128, np.uint8), keypoints, regions)


def test_eyes_come_from_one_source_and_the_mouth_from_another() -> None:
    """Two sources have every state of both regions; frames are not counted as whole faces, of which there are four."""
    assert {n // 10 for n in choose_sources(expressions(), 2)} in ({0, 1}, {2, 3})


def test_errors_of_regions_are_those_of_their_pictures() -> None:
    survey, frames = expressions(each=1), np.arange(4)
    eyes, mouth = region_errors(survey, frames, frames)
    assert np.array_equal(eyes > 0, np.array([[0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]], bool))
    assert np.array_equal(mouth > 0, np.array([[0, 1, 1, 0], [1, 0, 0, 1], [1, 0, 0, 1], [0, 1, 1, 0]], bool))
    larger = replace(survey, keypoints=survey.keypoints * np.array([2, 2, 1], np.float32))
    assert region_errors(larger, frames, frames)[0].max() == pytest.approx(4 * eyes.max())  # as a share of the picture
    assert region_errors(replace(survey, regions=None), frames, frames) == []


def test_pictures_of_regions_are_cut_where_they_are() -> None:
    keypoints = np.zeros((20, 3), np.float32)
    keypoints[0, :2], keypoints[1, :2] = (-0.2, -0.25), (0.2, -0.25)
    keypoints[7:11, 1] = 0.35
    picture = np.zeros((256, 256, 3), np.uint8)
    x, y = region_box(keypoints, MOUTH, 256).centre
    picture[round(y) - 5 : round(y) + 5, round(x) - 5 : round(x) + 5] = 255
    found = region_pictures(picture, keypoints)
    assert (found.shape, found.dtype) == ((len(REGIONS), REGION_SIDE, REGION_SIDE, 3), np.uint8)
    assert not found[EYES].any()
    assert (
        found[MOUTH, REGION_SIDE // 2 - 1 : REGION_SIDE // 2 + 1, REGION_SIDE // 2 - 1 : REGION_SIDE // 2 + 1].min()
        > 200
    )
