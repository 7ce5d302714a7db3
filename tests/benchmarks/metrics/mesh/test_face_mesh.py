"""Face landmarks of the bundled speaker against those of the real mediapipe.

`tests/golden/face_mesh.npz` holds landmarks in pixels: `squares` of columns 270 to 630 of FRAMES of the bundled clip
(360x360), `turned` of the first square turned by 25 degrees, `whole` of the whole first frame (640x360). They were made
with mediapipe 0.10.21 on the pictures enlarged to a height of 512 (cv2.resize, INTER_CUBIC):
FaceMesh(static_image_mode=True, max_num_faces=1, refine_landmarks=True, min_detection_confidence=0.3).
"""

import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest

from iwcodec.benchmarks.metrics.learned.availability import MetricUnavailableError
from iwcodec.benchmarks.metrics.mesh.face_mesh import FaceMesh
from iwcodec.codec.media.types import Picture
from iwcodec.codec.media.video import read_video, sample_clip
from iwcodec.codec.sources.face_mesh import Landmarks

GOLDEN = Path(__file__).parents[3] / "golden" / "face_mesh.npz"
FRAMES = (0, 24, 48)


@pytest.fixture(scope="module")
def find() -> FaceMesh:
    try:
        return FaceMesh()
    except MetricUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def frames() -> list[Picture]:
    pictures = [frame.picture for frame in itertools.islice(read_video(sample_clip()), FRAMES[-1] + 1)]
    return [pictures[n] for n in FRAMES]


def square(frame: Picture) -> Picture:
    return np.ascontiguousarray(frame[:, 270:630])


def assert_close(landmarks: Landmarks | None, expected: Landmarks) -> None:
    assert landmarks is not None
    assert landmarks.shape == (478, 2)
    distance = np.linalg.norm(landmarks - expected, axis=1)
    assert distance.mean() < 0.2
    assert distance.max() < 0.6


def test_landmarks_are_those_of_mediapipe(find: FaceMesh, frames: list[Picture]) -> None:
    for frame, expected in zip(frames, np.load(GOLDEN)["squares"], strict=True):
        assert_close(find(square(frame)), expected)


def test_landmarks_of_a_turned_picture_are_those_of_mediapipe(find: FaceMesh, frames: list[Picture]) -> None:
    matrix = cv2.getRotationMatrix2D((180, 180), 25, 1)
    assert_close(find(cv2.warpAffine(square(frames[0]), matrix, (360, 360))), np.load(GOLDEN)["turned"])


def test_landmarks_of_a_wide_picture_are_those_of_mediapipe(find: FaceMesh, frames: list[Picture]) -> None:
    assert_close(find(frames[0]), np.load(GOLDEN)["whole"])


def test_a_second_run_finds_the_same(find: FaceMesh, frames: list[Picture]) -> None:
    first, second = find(frames[0]), FaceMesh()(frames[0])
    assert first is not None
    np.testing.assert_array_equal(first, second)


def test_a_picture_without_a_face_has_no_landmarks(find: FaceMesh) -> None:
    assert find(np.full((256, 256, 3), 90, np.uint8)) is None


def test_without_weights_the_command_that_fetches_them_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IWCODEC_WEIGHTS", str(tmp_path))
    with pytest.raises(MetricUnavailableError, match="iwcodec bench weights"):
        FaceMesh()
