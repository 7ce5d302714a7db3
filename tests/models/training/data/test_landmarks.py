"""Facial landmarks: mirroring, windows and the opening of the eyes."""

import numpy as np
import pytest

from iwcodec.models.training.data.landmarks import LANDMARKS, MESH, MIRRORED, landmarks_from_mesh, through_window

WHOLE = np.array([0, 0, 1], np.float32)


def face() -> np.ndarray:
    """A mesh of random vertices inside the picture."""
    return np.random.default_rng(0).uniform(-0.5, 0.5, (MESH, 2)).astype(np.float32)


def test_mirrors_are_mutual_and_of_the_same_kind() -> None:
    for number, landmark in enumerate(LANDMARKS):
        other = LANDMARKS[landmark.mirror]
        assert other.mirror == number
        assert landmark.name.split()[-1] == other.name.split()[-1]
        assert (landmark.opening is None) == (other.opening is None)


def test_open_eyes_have_a_higher_strength() -> None:
    mesh = face()
    mesh[33], mesh[133] = (-0.1, 0), (0.1, 0)
    mesh[159], mesh[145] = (0, -0.03), (0, 0.03)
    wide = landmarks_from_mesh(mesh)[0, 2]
    mesh[159] = mesh[145]
    shut = landmarks_from_mesh(mesh)[0, 2]
    assert wide == pytest.approx(0.1 + 2.2 * 0.3, rel=1e-3)
    assert shut == pytest.approx(0.1)
    assert np.isnan(landmarks_from_mesh(mesh)[2:, 2]).all()


def test_window_scales_landmarks_and_hides_those_outside() -> None:
    points = landmarks_from_mesh(face())
    window = np.array([0.1, -0.2, 0.25], np.float32)
    visible = through_window(points, window, False)
    inside = np.isfinite(visible[:, 0])
    assert 0 < inside.sum() < len(LANDMARKS)
    assert np.allclose(visible[inside, :2] * 0.25 + window[:2], points[inside, :2], atol=1e-6)


def test_mirroring_twice_changes_nothing() -> None:
    points = landmarks_from_mesh(face())
    once = through_window(points, WHOLE, True)
    assert np.allclose(once[0, :2], points[MIRRORED[0], :2] * (-1, 1))
    assert np.allclose(through_window(once, WHOLE, True), points, equal_nan=True)
