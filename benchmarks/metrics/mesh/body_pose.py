"""MediaPipe's body pose: 33 landmarks of a person, for upper bodies.

V. Bazarevsky et al., "BlazePose: On-device Real-time Body Pose Tracking", CVPR workshop 2020 (arXiv:2006.10204). Uses
the models in the wheel of mediapipe (Apache-2.0; see `iwcodec bench weights`), and computes what
`mediapipe.solutions.pose.Pose` does with static_image_mode and model_complexity 1.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from iwcodec.benchmarks.metrics.mesh.detector import BODY, Detector, Square, enlarged, sigmoid, upright_square
from iwcodec.benchmarks.metrics.mesh.tflite import Tensor, TfliteGraph
from iwcodec.benchmarks.weights import BODY_POSE, weight_file
from iwcodec.codec.media.types import Picture

LANDMARKS = 33
UPPER_BODY = range(17)
"""Nose, eyes, ears, mouth, shoulders, elbows and wrists."""
MIN_PRESENCE = 0.5
"""Probability of a person in the crop below which there are no landmarks."""
SIDE = 256
"""Side of the model's input in pixels, and the unit of its landmarks."""
BODY_SCALE = 1.25
"""Side of the model's crop in widths of the circle around the body."""
REACH, MIN_HEAT = 3, 0.5
"""A landmark moves to the centre of the heatmap's mass up to REACH cells around it, if that reaches MIN_HEAT."""

Body = NDArray[np.float64]
"""(33, 3): x, y in pixels, and the probability that the landmark is in the picture and not hidden."""


class BodyPose:
    """The 33 landmarks of the most confident person of a uint8 RGB picture (H, W, 3), in its pixels; None without one.

    Raises MetricUnavailableError without LiteRT or the weights.
    """

    def __init__(self) -> None:
        self._detect = Detector(BODY)
        outputs = ["Identity", "Identity_1", "Identity_3"]
        self._pose = TfliteGraph(weight_file(BODY_POSE), outputs)

    def __call__(self, picture: Picture) -> Body | None:
        height, width = picture.shape[:2]
        picture = enlarged(picture)
        found = self._detect(picture)
        if found is None:
            return None
        square = upright_square(found, BODY_SCALE)
        body = self._landmarks(picture, square)
        if body is None:
            return None
        body[:, :2] *= width / picture.shape[1], height / picture.shape[0]
        return body

    def _landmarks(self, picture: Picture, square: Square) -> Body | None:
        crop = square.crop(picture, SIDE, cv2.BORDER_REPLICATE)
        flat, presence, heat = self._pose(crop[None] * np.float32(1 / 255))
        if float(presence.item()) < MIN_PRESENCE:
            return None
        values = flat.reshape(-1, 5)[:LANDMARKS]
        places = refine(values[:, :2] / SIDE, heat[0])
        return np.column_stack([square.to_picture(places), sigmoid(values[:, 3])])


def refine(places: NDArray[np.float64], heat: Tensor) -> NDArray[np.float64]:
    """Move landmarks (n, 2), in shares of the crop, to the heatmap's mass around them; `heat`: logits (H, W, >= n)."""
    height, width = heat.shape[:2]
    refined = places.copy()
    for n, (x, y) in enumerate(places * (width, height)):
        column, row = int(x), int(y)
        if not (0 <= column < width and 0 <= row < height):
            continue
        left, top = max(column - REACH, 0), max(row - REACH, 0)
        mass = sigmoid(heat[top : row + REACH + 1, left : column + REACH + 1, n])
        if mass.max() >= MIN_HEAT:
            rows, columns = np.indices(mass.shape)
            centre = (columns + left) * mass, (rows + top) * mass
            refined[n] = [axis.sum() / mass.sum() for axis in centre] / np.array([width, height])
    return refined
