"""The face detector on the bundled clip and on pictures made from it."""

from itertools import islice

import cv2
import numpy as np
import pytest

from iwcodec.codec.media.crop.face_detector import FaceDetector
from iwcodec.codec.media.video import read_video, sample_clip


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector()


@pytest.fixture(scope="module")
def speaker() -> np.ndarray:
    """The sample's first picture, 360 x 640, with a face right of the middle."""
    return next(read_video(sample_clip())).picture


def test_the_face_of_the_sample_is_located(detector: FaceDetector, speaker: np.ndarray) -> None:
    (face,) = detector.detect(speaker)
    assert face.score > 0.8
    assert 400 < face.x + face.w / 2 < 480
    assert 120 < face.y + face.h / 2 < 200
    assert 220 < face.h < 330


def test_every_frame_of_the_sample_has_one_face(detector: FaceDetector) -> None:
    for frame in islice(read_video(sample_clip()), 0, None, 20):
        assert len(detector.detect(frame.picture)) == 1


def test_no_face_in_grey_or_noise(detector: FaceDetector) -> None:
    assert detector.detect(np.full((240, 320, 3), 128, np.uint8)) == []
    assert detector.detect(np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)) == []


@pytest.mark.parametrize("turn", [0, 1])
def test_small_faces_and_tall_pictures_are_handled(detector: FaceDetector, speaker: np.ndarray, turn: int) -> None:
    small = cv2.resize(speaker[:, 260:620], (100, 100), interpolation=cv2.INTER_AREA)
    wide = np.full((720, 1280, 3), 90, np.uint8)
    if turn:
        wide = np.ascontiguousarray(wide.transpose(1, 0, 2))
    wide[400:500, 300:400] = small
    (face,) = detector.detect(wide)
    assert 335 < face.x + face.w / 2 < 365
    assert 425 < face.y + face.h / 2 < 465


def test_two_faces_are_told_apart(detector: FaceDetector, speaker: np.ndarray) -> None:
    half = speaker[:, 240:640]
    faces = sorted(detector.detect(np.hstack([half, half])), key=lambda face: face.x)
    assert len(faces) == 2
    assert faces[1].x - faces[0].x == pytest.approx(400, abs=10)
