"""Which frames become sources, and in what order they are coded."""

import numpy as np
import pytest

from iwcodec.codec.file.rate_control.source_selection import (
    THUMBNAIL,
    Survey,
    choose_sources,
    coding_order,
    evenly_spaced,
    thumbnail,
)


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


def test_selection_stops_when_the_gain_is_too_small() -> None:
    assert len(choose_sources(clip_of(-1, 0, 1), 30, min_gain_db=0.1)) == 3


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
