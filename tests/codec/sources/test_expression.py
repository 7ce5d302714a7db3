"""What a face of landmarks made by hand does."""

import numpy as np
import pytest

from iwcodec.codec.sources.expression import expression
from support.codec.face_landmarks import EYE_DISTANCE, face


def test_the_expression_of_a_known_face() -> None:
    np.testing.assert_allclose(expression(face(1, 0.4, 6, 48)), (1 / 3, 0.4, 0.06, 0.48), rtol=1e-5)


def test_an_eye_half_closed_has_half_the_opening() -> None:
    assert expression(face(0.5))[0] == pytest.approx(expression(face(1))[0] / 2)
    np.testing.assert_allclose(expression(face(0.5))[1:], expression(face(1))[1:])


def test_a_mouth_opened_by_six_pixels() -> None:
    assert expression(face(mouth=8))[2] - expression(face(mouth=2))[2] == pytest.approx(6 / EYE_DISTANCE)


def test_a_gaze_moved_by_a_tenth_of_the_eye() -> None:
    assert expression(face(gaze=0.6))[1] - expression(face(gaze=0.5))[1] == pytest.approx(0.1)


def test_an_expression_does_not_depend_on_size_place_and_tilt() -> None:
    turn = np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
    moved = (1.7 * face(0.8, 0.4, 5) @ turn.T + (30, -20)).astype(np.float32)
    np.testing.assert_allclose(expression(moved), expression(face(0.8, 0.4, 5)), rtol=1e-4)
