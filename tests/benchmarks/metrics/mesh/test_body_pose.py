"""Landmarks of an upper body against those of the real mediapipe, and how the heatmap refines them.

`tests/golden/body_pose.npz` holds (33, 3) landmarks of scikit-image's astronaut (512x512): x, y in pixels, visibility.
They were made with mediapipe 0.10.21: Pose(static_image_mode=True, model_complexity=1, min_detection_confidence=0.5).
"""

from pathlib import Path

import numpy as np
import pytest

from iwcodec.benchmarks.metrics.learned.availability import MetricUnavailableError
from iwcodec.benchmarks.metrics.mesh.body_pose import BodyPose, refine

GOLDEN = Path(__file__).parents[3] / "golden" / "body_pose.npz"


@pytest.fixture(scope="module")
def find() -> BodyPose:
    try:
        return BodyPose()
    except MetricUnavailableError as error:
        pytest.skip(str(error))


def test_landmarks_are_those_of_mediapipe(find: BodyPose) -> None:
    data = pytest.importorskip("skimage.data")
    body, expected = find(data.astronaut()), np.load(GOLDEN)["astronaut"]
    assert body is not None
    visible = expected[:, 2] > 0.9
    assert visible.sum() == 13  # the head's eleven, and the shoulders
    distance = np.linalg.norm(body[:, :2] - expected[:, :2], axis=1)
    assert distance[visible].mean() < 0.5
    assert distance[visible].max() < 1.5
    np.testing.assert_allclose(body[:, 2], expected[:, 2], atol=0.03)


def test_a_picture_without_a_person_has_no_landmarks(find: BodyPose) -> None:
    assert find(np.full((256, 256, 3), 90, np.uint8)) is None


def test_landmarks_move_to_the_mass_around_them() -> None:
    heat = np.full((64, 64, 3), -20, np.float32)
    heat[12, 21:23, 0] = 20  # two cells of mass one, two to the right of the landmark
    heat[12, 30, 1] = 20  # too far away
    places = np.array([(20.0, 12), (20, 12), (70, 12)]) / 64
    refined = refine(places, heat)
    np.testing.assert_allclose(refined[0] * 64, (21.5, 12), atol=1e-3)
    np.testing.assert_array_equal(refined[1:], places[1:])
