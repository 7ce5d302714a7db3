"""Landmarks as teachers: names, windows and mirrors agree."""

import numpy as np
import pytest

from iwcodec.models.training.landmarks import LANDMARKS, MESH, MIRRORED, from_mesh, seen_through

WHOLE = np.array([0, 0, 1], np.float32)


def face() -> np.ndarray:
    """A mesh whose vertices all differ, inside the picture."""
    return np.random.default_rng(0).uniform(-0.5, 0.5, (MESH, 2)).astype(np.float32)


def test_every_mirror_is_mutual_and_keeps_the_kind():
    for number, landmark in enumerate(LANDMARKS):
        other = LANDMARKS[landmark.mirror]
        assert other.mirror == number
        assert landmark.name.split()[-1] == other.name.split()[-1]
        assert (landmark.opening is None) == (other.opening is None)


def test_open_eyes_are_stronger_than_shut_ones():
    mesh = face()
    mesh[33], mesh[133] = (-0.1, 0), (0.1, 0)
    mesh[159], mesh[145] = (0, -0.03), (0, 0.03)
    wide = from_mesh(mesh)[0, 2]
    mesh[159] = mesh[145]
    shut = from_mesh(mesh)[0, 2]
    assert wide == pytest.approx(0.1 + 2.2 * 0.3, rel=1e-3)
    assert shut == pytest.approx(0.1)
    assert np.isnan(from_mesh(mesh)[2:, 2]).all()


def test_a_window_enlarges_and_hides_what_is_outside():
    points = from_mesh(face())
    window = np.array([0.1, -0.2, 0.25], np.float32)
    seen = seen_through(points, window, False)
    inside = np.isfinite(seen[:, 0])
    assert 0 < inside.sum() < len(LANDMARKS)
    assert np.allclose(seen[inside, :2] * 0.25 + window[:2], points[inside, :2], atol=1e-6)


def test_mirroring_twice_changes_nothing():
    points = from_mesh(face())
    once = seen_through(points, WHOLE, True)
    assert np.allclose(once[0, :2], points[MIRRORED[0], :2] * (-1, 1))
    assert np.allclose(seen_through(once, WHOLE, True), points, equal_nan=True)
