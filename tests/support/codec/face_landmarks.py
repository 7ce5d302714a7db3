"""Landmarks of a face made by hand."""

import numpy as np

from iwcodec.codec.sources.face_mesh import Landmarks

EYE_DISTANCE = 100.0
"""Pixels between the outer corners of the eyes of `face`."""


def face(eyes: float = 1.0, gaze: float = 0.5, mouth: float = 0.0, width: float = 50.0) -> Landmarks:
    """A face whose eyes are 30 pixels wide and 10 * `eyes` high, with a mouth of the given opening and width."""
    points = np.tile(np.array([[50.0, 90.0]], np.float32), (478, 1))
    for outer, inner, upper, lower, iris, x in (
        (33, 133, (159, 158), (145, 153), 468, 0),
        (263, 362, (386, 385), (374, 380), 473, 100),
    ):
        towards = 1 if x == 0 else -1
        points[outer], points[inner] = (x, 0), (x + 30 * towards, 0)
        for n, (top, bottom) in enumerate(zip(upper, lower, strict=True)):
            middle = x + (12 + 6 * n) * towards
            points[top], points[bottom] = (middle, -5 * eyes), (middle, 5 * eyes)
        points[iris] = (30 * gaze if x == 0 else 70 + 30 * gaze, 0)
    points[13], points[14] = (50, 70 - mouth / 2), (50, 70 + mouth / 2)
    points[61], points[291] = (50 - width / 2, 70), (50 + width / 2, 70)
    return points
