"""The face mesh on the bundled speaker, and its operators of numpy.

`tests/golden/face_mesh.npz`: landmarks by the real mediapipe; tests/benchmarks/metrics/mesh/test_face_mesh.py says how.
"""

import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest

from iwcodec.codec.media.types import Picture
from iwcodec.codec.media.video import read_video, sample_clip
from iwcodec.codec.sources.expression import expression
from iwcodec.codec.sources.face_mesh import (
    LEFT_EYE,
    LIPS,
    PATCH,
    RIGHT_EYE,
    box_around,
    face_box,
    landmarks,
    patch_to_features,
    sample,
)
from iwcodec.models.runtime.load import load_runtime
from support.codec.textured_source import textured_source

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "face_mesh.npz")


@pytest.fixture(scope="module")
def picture() -> Picture:
    frame = next(itertools.islice(read_video(sample_clip()), 1)).picture
    return np.ascontiguousarray(frame[:, 270:630])


@pytest.mark.parametrize("name", ["squares", "turned"])
def test_landmarks_are_those_of_mediapipe(name: str, picture: Picture) -> None:
    expected = GOLDEN[name].reshape(-1, 478, 2)[0]
    if name == "turned":
        picture = cv2.warpAffine(picture, cv2.getRotationMatrix2D((180, 180), 25, 1), (360, 360))
    found = landmarks(picture, box_around(expected))
    assert np.linalg.norm(found - expected, axis=1).mean() < 0.025 * np.linalg.norm(expected[33] - expected[263])
    np.testing.assert_allclose(expression(found), expression(expected), atol=0.03)


def test_the_box_of_a_picture_is_about_its_face(picture: Picture) -> None:
    small = np.asarray(cv2.resize(picture, (256, 256), interpolation=cv2.INTER_AREA), np.uint8)
    box, expected = face_box(small, load_runtime().detect(small)), box_around(GOLDEN["squares"][0] * (256 / 360))
    np.testing.assert_allclose(box.centre, expected.centre, atol=0.02 * expected.width)
    assert box.width == pytest.approx(expected.width, rel=0.04)
    assert box.angle == pytest.approx(expected.angle, abs=0.03)


def test_there_are_no_landmarks_without_a_face() -> None:
    source = textured_source()
    assert landmarks(source.picture, face_box(source.picture, source.keypoints)) is None


def test_a_box_is_level_with_the_eyes() -> None:
    turn = np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
    found = np.zeros((478, 2))
    found[33], found[263], found[0], found[1] = (-10, 0), (10, 0), (0, -5), (0, 5)
    box = box_around((found @ turn.T + (50, 60)).astype(np.float32))
    np.testing.assert_allclose((*box.centre, box.width, box.height, box.angle), (50, 60, 30, 30, 0.3), atol=1e-5)


def test_regions_are_disjoint_landmarks_of_the_mesh() -> None:
    indices = [*LIPS, *RIGHT_EYE, *LEFT_EYE]
    assert len(indices) == len(set(indices)) == 80 + 71 + 71
    assert max(indices) < 468


def test_a_patch_covers_the_enlarged_box_of_its_landmarks() -> None:
    mesh = np.zeros((468, 2))
    mesh[:4] = (10, 20), (22, 20), (16, 18), (16, 24)
    matrix = patch_to_features(mesh, (0, 1, 2, 3), 0, 1)
    np.testing.assert_allclose(matrix @ (0, 0, 1), (16 - 9, 21 - 4.5))
    np.testing.assert_allclose(matrix @ (PATCH, PATCH, 1), (16 + 9, 21 + 4.5))


def test_a_patch_turns_with_the_line_between_its_ends() -> None:
    mesh = np.zeros((468, 2))
    mesh[:4] = (10, 20), (22, 20), (16, 18), (16, 24)
    level = patch_to_features(mesh, (0, 1, 2, 3), 0, 1)
    turn = np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
    np.testing.assert_allclose(patch_to_features(mesh @ turn.T, (0, 1, 2, 3), 0, 1), turn @ level, atol=1e-12)


def test_sampling_is_bilinear_and_zero_outside() -> None:
    y, x = np.mgrid[:48, :48].astype(np.float32)
    features = np.stack([x, y], -1)[None]
    patch = sample(features, np.array([[0.5, 0, 10], [0, 0.25, 20]]))
    assert patch.shape == (1, PATCH, PATCH, 2)
    np.testing.assert_allclose(patch[0, 3, 5], (10 + 5.5 / 2 - 0.5, 20 + 3.5 / 4 - 0.5))
    outside = sample(features, np.array([[1.0, 0, 40], [0, 1, 0]]))
    assert outside[0, :, 7].all(axis=0)[0]
    assert not outside[0, :, 8:].any()
