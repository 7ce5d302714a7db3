"""What a face does: how far eyes and mouth are open, where the eyes look, how wide the mouth is."""

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.sources.face_mesh import LEFT_CORNER, LEFT_IRIS, RIGHT_CORNER, RIGHT_IRIS, Landmarks

SPREADS = np.array([[0.08, 0.04], [0.045, 0.045]], np.float32)
"""Standard deviations over time of what the eyes (opening, gaze) and the mouth (opening, width) of a speaker do."""


def expression(face: Landmarks) -> NDArray[np.float64]:
    """Return eye opening, gaze, mouth opening and mouth width, (4,).

    Eye opening: distance of the lids over the width of the eye, mean of both eyes. Gaze: where the irises are between
    the corners of the eyes, 0 to 1. Mouth opening: distance of the lips' inner edges; mouth width: of its corners; both
    in distances of the eyes' outer corners.
    """

    def distance(a: int, b: int) -> float:
        return float(np.linalg.norm(face[a] - face[b]))

    def along(point: int, start: int, end: int) -> float:
        """Where a point lies on the line from one landmark (0) to another (1)."""
        line = face[end] - face[start]
        return float((face[point] - face[start]) @ line / (line @ line))

    eyes = distance(RIGHT_CORNER, LEFT_CORNER)
    right = (distance(159, 145) + distance(158, 153)) / 2 / distance(RIGHT_CORNER, 133)
    left = (distance(386, 374) + distance(385, 380)) / 2 / distance(362, LEFT_CORNER)
    gaze = (along(RIGHT_IRIS[0], RIGHT_CORNER, 133) + along(LEFT_IRIS[0], 362, LEFT_CORNER)) / 2
    return np.array([(right + left) / 2, gaze, distance(13, 14) / eyes, distance(61, 291) / eyes])
