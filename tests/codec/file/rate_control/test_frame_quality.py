"""How the encoder judges a frame of a face."""

import numpy as np
import pytest

from iwcodec.codec.file.rate_control.frame_quality import face_weights, frame_quality
from iwcodec.codec.media.quality import psnr
from iwcodec.codec.sources.regions import EYES, MOUTH, region_box
from iwcodec.models.runtime.types import Keypoints

SIZE = 128


@pytest.fixture
def face() -> Keypoints:
    keypoints = np.zeros((20, 3), np.float32)
    keypoints[:2, :2] = (-0.2, -0.25), (0.2, -0.25)
    keypoints[7:11, 1] = 0.35
    return keypoints


def with_error(at: tuple[float, float]) -> np.ndarray:
    """A grey picture with a brighter square."""
    picture = np.full((SIZE, SIZE, 3), 100, np.uint8)
    x, y = (round(place) for place in at)
    picture[y - 3 : y + 3, x - 3 : x + 3] = 140
    return picture


def test_eyes_and_mouth_count_most(face: Keypoints) -> None:
    grey, weights = np.full((SIZE, SIZE, 3), 100, np.uint8), face_weights(face, SIZE)
    eyes, mouth = (region_box(face, region, SIZE).centre for region in (EYES, MOUTH))
    cheek, corner = (eyes[0] + 20, eyes[1] + 16), (6.0, 6.0)
    assert weights.shape == (SIZE, SIZE)
    assert weights.min() > 0
    qualities = [frame_quality(with_error(at), grey, face) for at in (eyes, mouth, cheek, corner)]
    assert max(qualities[:2]) < min(qualities[2:])
    assert qualities[2] == pytest.approx(qualities[3])


def test_without_a_face_it_is_psnr() -> None:
    grey, off = np.full((SIZE, SIZE, 3), 100, np.uint8), with_error((60, 60))
    assert frame_quality(off, grey, None) == psnr(off, grey)
