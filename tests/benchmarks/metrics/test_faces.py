"""Average keypoint distance and missing faces with a known detector, and with MTCNN on a real face."""

from pathlib import Path

import numpy as np
import pytest

from iwcodec.benchmarks.metrics.faces import STRIDE, CachedDetector, FaceLandmarks, Points, keypoint_distance
from iwcodec.benchmarks.metrics.learned.availability import MetricUnavailableError
from iwcodec.codec.media.types import Picture
from iwcodec.codec.media.video import read_video


def marked(value: int) -> Picture:
    return np.full((4, 4, 3), value, np.uint8)


def by_colour(picture: Picture) -> Points | None:
    """No face in black; elsewhere five points whose x is the grey level."""
    level = float(picture[0, 0, 0])
    return None if level == 0 else np.stack([np.full(5, level), np.arange(5)], 1).astype(np.float32)


def clip(*levels: int) -> list[Picture]:
    """Each level held for STRIDE frames."""
    return [marked(level) for level in levels for _ in range(STRIDE)]


def test_distance_is_the_mean_where_both_have_a_face() -> None:
    assert keypoint_distance(by_colour, clip(10, 20, 30), clip(12, 20, 0)) == {
        "akd": 1.0,
        "missing_faces": pytest.approx(1 / 3),
    }


def test_frames_without_a_face_do_not_count() -> None:
    assert keypoint_distance(by_colour, clip(0, 10), clip(9, 0)) == {"akd": None, "missing_faces": 1.0}
    assert keypoint_distance(by_colour, clip(0), clip(5)) == {"akd": None, "missing_faces": None}


def test_originals_are_detected_once() -> None:
    seen: list[float] = []

    def recorded(picture: Picture) -> Points | None:
        seen.append(float(picture[0, 0, 0]))
        return by_colour(picture)

    cached = CachedDetector(recorded)
    for decoded, akd in ((clip(12, 20, 0), 1), (clip(10, 20, 36), 2)):
        assert keypoint_distance(by_colour, clip(10, 20, 30), decoded, cached)["akd"] == akd
    assert seen == [10, 20, 30]


def test_akd_of_the_speaker(face_clip: Path) -> None:
    try:
        find = FaceLandmarks()
    except MetricUnavailableError as error:
        pytest.skip(str(error))
    picture = next(iter(read_video(face_clip))).picture
    moved = np.roll(picture, 4, axis=1)
    scores = keypoint_distance(find, [picture], [moved])
    assert scores["akd"] == pytest.approx(4, abs=1.5)
    assert scores["missing_faces"] == 0
    assert keypoint_distance(find, [picture], [np.full_like(picture, 90)]) == {"akd": None, "missing_faces": 1}
