"""MediaPipe's short-range face detector and its body detector, which share a structure.

V. Bazarevsky et al., "BlazeFace", CVPR workshop 2019 (arXiv:1907.05047), and "BlazePose", CVPR workshop 2020
(arXiv:2006.10204). Decodes, merges and crops as MediaPipe's graphs do. Only the most confident detection is returned.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from iwcodec.benchmarks.metrics.mesh.tflite import Tensor, TfliteGraph
from iwcodec.benchmarks.weights import BODY_DETECTOR, FACE_DETECTOR, weight_file
from iwcodec.codec.media.types import Picture

MIN_HEIGHT, ENLARGED = 384, 512
"""Pictures lower than MIN_HEIGHT pixels are enlarged to ENLARGED, as the published figures of expression are measured:
the models' crops then have more than one picture pixel for each of their own."""
MAX_OVERLAP = 0.3
"""Boxes that overlap the most confident one by more than this intersection over union are averaged with it."""
RIGHT_EYE, LEFT_EYE = 0, 1
"""The speaker's eyes in a face's six points."""
HIPS, EXTENT = 0, 1
"""The middle of the hips, and a point on the circle around the whole body, in a body's four points."""


@dataclass(frozen=True)
class Model:
    """A published detector."""

    file: str
    """Name of its weights."""
    outputs: tuple[str, str]
    """Names of its boxes and its logits."""
    side: int
    """Side of its input in pixels, and the unit of its boxes."""
    grids: Sequence[tuple[int, int]]
    """Cells a side of each grid of anchors, and anchors per cell."""
    min_confidence: float
    """A detection below this confidence is dropped."""


# MediaPipe's default for faces is 0.5; blurred faces of low rates need less.
FACE = Model(FACE_DETECTOR, ("regressors", "classificators"), 128, ((16, 2), (8, 6)), 0.3)
BODY = Model(BODY_DETECTOR, ("Identity", "Identity_1"), 224, ((28, 2), (14, 2), (7, 6)), 0.5)


@dataclass(frozen=True)
class Detection:
    """A detected face or body; all coordinates in pixels of the picture."""

    confidence: float
    box: NDArray[np.float64]  # (4,): left, top, right, bottom
    points: NDArray[np.float64]
    """(6, 2) of a face: right eye, left eye, nose tip, mouth, right ear, left ear. (4, 2) of a body: middle of the
    hips, extent of the whole body, middle of the shoulders, extent of the upper body."""


@dataclass(frozen=True)
class Square:
    """A square region of a picture, in pixels, turned by `angle` radians (clockwise on the screen)."""

    x: float
    y: float
    side: float
    angle: float = 0.0

    def to_picture(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Points (..., 2) in shares of the square (0..1) -> pixels of the picture."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        turned = (np.asarray(points, np.float64) - 0.5) @ np.array([[cos, sin], [-sin, cos]])
        return turned * self.side + (self.x, self.y)

    def crop(self, picture: Picture, side: int, border: int) -> Picture:
        """The region, resampled to `side` x `side`; `border` is an OpenCV border mode for what lies outside."""
        corners = np.array([(0, 1), (0, 0), (1, 0), (1, 1)], np.float32)
        matrix = cv2.getPerspectiveTransform(self.to_picture(corners).astype(np.float32), corners * side)
        cropped: Picture = cv2.warpPerspective(picture, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=border)
        return cropped


class Detector:
    """The most confident face or body of a uint8 RGB picture (H, W, 3), or None.

    Raises MetricUnavailableError without LiteRT or the weights.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._graph = TfliteGraph(weight_file(model.file), model.outputs)
        self._anchors = anchors(model.grids)

    def __call__(self, picture: Picture) -> Detection | None:
        height, width = picture.shape[:2]
        whole = Square(width / 2, height / 2, max(width, height))
        pixels = whole.crop(picture, self._model.side, cv2.BORDER_CONSTANT)
        offsets, logits = self._graph(pixels[None] * np.float32(1 / 127.5) - 1)
        confidence = sigmoid(logits[0, :, 0])
        boxes, points = decode(offsets[0] / self._model.side, self._anchors)
        confident = confidence >= self._model.min_confidence
        if not confident.any():
            return None
        best = merge(confidence[confident], boxes[confident], points[confident])
        return Detection(
            best.confidence, whole.to_picture(best.box.reshape(2, 2)).ravel(), whole.to_picture(best.points)
        )


def enlarged(picture: Picture) -> Picture:
    """A picture lower than MIN_HEIGHT at a height of ENLARGED; others as they are."""
    height, width = picture.shape[:2]
    if height >= MIN_HEIGHT:
        return picture
    size = round(width * ENLARGED / height), ENLARGED
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC), np.uint8)


def sigmoid(logits: Tensor) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-logits.astype(np.float64).clip(-100, 100))))


def anchors(grids: Sequence[tuple[int, int]]) -> NDArray[np.float64]:
    """(n, 2): centres of a detector's anchors in shares of its input; see Model.grids."""
    levels = []
    for cells, count in grids:
        y, x = np.divmod(np.arange(cells * cells), cells)
        levels.append(np.repeat((np.stack([x, y], 1) + 0.5) / cells, count, axis=0))
    return np.concatenate(levels)


def decode(offsets: Tensor, centres: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Offsets (n, 4 + 2 p) from the anchors -> boxes (n, 4) and points (n, p, 2), all in shares of the input."""
    values = offsets.astype(np.float64).reshape(len(offsets), -1, 2)
    middle, half = values[:, 0] + centres, values[:, 1] / 2
    return np.concatenate([middle - half, middle + half], 1), values[:, 2:] + centres[:, None]


def merge(confidence: NDArray[np.float64], boxes: NDArray[np.float64], points: NDArray[np.float64]) -> Detection:
    """The most confident box, averaged with all that overlap it by MAX_OVERLAP, weighted by confidence."""
    best = int(confidence.argmax())
    sides = np.minimum(boxes[:, 2:], boxes[best, 2:]) - np.maximum(boxes[:, :2], boxes[best, :2])
    shared = sides.clip(min=0).prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    weights = np.where(shared > MAX_OVERLAP * (areas + areas[best] - shared), confidence, 0)
    return Detection(float(confidence[best]), np.average(boxes, 0, weights), np.average(points, 0, weights))


def eye_level_square(face: Detection, scale: float) -> Square:
    """The square about a face's box, `scale` times its longer side, turned so that the line of the eyes is level."""
    (left, top), (right, bottom) = face.box.reshape(2, 2)
    dx, dy = face.points[LEFT_EYE] - face.points[RIGHT_EYE]
    side = scale * max(right - left, bottom - top)
    return Square((left + right) / 2, (top + bottom) / 2, side, float(np.arctan2(dy, dx)))


def upright_square(body: Detection, scale: float) -> Square:
    """The square about the middle of the hips, `scale` times the width of the circle around the body, turned so that
    the body stands upright."""
    x, y = body.points[HIPS]
    dx, dy = body.points[EXTENT] - body.points[HIPS]
    return Square(x, y, scale * 2 * float(np.hypot(dx, dy)), float(np.arctan2(dx, -dy)))
