"""Face mesh: 478 landmarks of a face, the irises included, for the sender to know what eyes and mouth do.

The published attention mesh (I. Grishchenko et al., "Attention Mesh: High-fidelity Face Mesh Prediction in Real-time",
CVPR workshop 2020, arXiv:2006.10962; codec/data/face_mesh.md says where it is from). Its custom operators, which cut
patches of lips and eyes out of its features, are numpy here. 5 ms of a core a picture.
"""

import math
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from iwcodec.codec.media.types import Picture
from iwcodec.codec.sources.regions import REGIONS, Box, box_places, region_box, sampled
from iwcodec.models.runtime.types import Keypoints

FACE_MESH = Path(__file__).parents[1] / "data" / "face_mesh.onnx"
"""From a crop to its landmarks, features and the presence of a face."""
FACE_MESH_REGIONS = FACE_MESH.with_name("face_mesh_regions.onnx")
"""From patches of the features to the landmarks of lips, eyes and irises."""
MIN_PRESENCE = 0.5
"""Probability of a face in the crop below which there are no landmarks."""
SIDE = 192
"""Side of the model's input in pixels, and the unit of its landmarks."""
FEATURES, PATCH = 48, 16
"""Side of the model's feature map, and of the patches that are cut out of it, in cells."""
PATCH_SCALE = 1.5
"""Side of a patch in sides of the box around the region's landmarks."""
FACE_SCALE, BOX_SCALE = 1.95, 1.5
"""Side of the crop in widths of the eyes' region, and in longer sides of the box around the landmarks."""

# fmt: off
LIPS = (
    61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 185, 40, 39, 37, 0, 267, 269, 270, 409,
    78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 191, 80, 81, 82, 13, 312, 311, 310, 415,
    76, 77, 90, 180, 85, 16, 315, 404, 320, 307, 306, 184, 74, 73, 72, 11, 302, 303, 304, 408,
    62, 96, 89, 179, 86, 15, 316, 403, 319, 325, 292, 183, 42, 41, 38, 12, 268, 271, 272, 407,
)
"""Landmarks of the lips in the order of the model: outer and inner contour, then two contours between (20 each)."""
RIGHT_EYE = (
    33, 7, 163, 144, 145, 153, 154, 155, 133, 246, 161, 160, 159, 158, 157, 173,
    130, 25, 110, 24, 23, 22, 26, 112, 243, 247, 30, 29, 27, 28, 56, 190,
    226, 31, 228, 229, 230, 231, 232, 233, 244, 113, 225, 224, 223, 222, 221, 189,
    35, 124, 46, 53, 52, 65, 143, 111, 117, 118, 119, 120, 121, 128, 245, 156, 70, 63, 105, 66, 107, 55, 193,
)
LEFT_EYE = (
    263, 249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398,
    359, 255, 339, 254, 253, 252, 256, 341, 463, 467, 260, 259, 257, 258, 286, 414,
    446, 261, 448, 449, 450, 451, 452, 453, 464, 342, 445, 444, 443, 442, 441, 413,
    265, 353, 276, 283, 282, 295, 372, 340, 346, 347, 348, 349, 350, 357, 465, 383, 300, 293, 334, 296, 336, 285, 417,
)
"""Landmarks of the speaker's eyes in the order of the model: the contour (16), then what lies around it, brow last."""
# fmt: on
RIGHT_IRIS, LEFT_IRIS = tuple(range(468, 473)), tuple(range(473, 478))
"""Landmarks of the irises: the centre first, then four on the rim."""

RIGHT_CORNER, LEFT_CORNER = 33, 263
"""Landmarks at the outer corners of the eyes."""

Landmarks = NDArray[np.float32]
"""(478, 2): x, y in pixels."""
Features = NDArray[np.float32]


def landmarks(picture: Picture, box: Box) -> Landmarks | None:
    """Return the landmarks of a face in a box of a picture, in pixels of the picture; None without a face."""
    found = crop_landmarks(sampled(picture, box_places(box, SIDE)))
    if found is None:
        return None
    places = (found / SIDE - 0.5) * (box.width, box.height)
    return (places @ _rotation(box.angle).T + box.centre).astype(np.float32)


def crop_landmarks(crop: Picture) -> Landmarks | None:
    """Return the landmarks of a uint8 RGB crop (SIDE, SIDE, 3), in its pixels, or None if there is no face in it.

    The face should be upright, in the middle, and take about two thirds of the crop.
    """
    features, flat, presence = _session(FACE_MESH).run(None, {"crop": crop[None] * np.float32(1 / 255)})
    if 1 / (1 + np.exp(-presence.item())) < MIN_PRESENCE:
        return None
    mesh = np.zeros((478, 2))
    mesh[:468] = flat.reshape(-1, 3)[:, :2]
    scaled = mesh * (FEATURES / SIDE)
    lips = patch_to_features(scaled, LIPS, 61, 291)
    right = patch_to_features(scaled, RIGHT_EYE, 33, 133)
    left = patch_to_features(scaled, LEFT_EYE, 362, 263)
    patches = {name: sample(features, matrix) for name, matrix in (("lips", lips), ("right", right), ("left", left))}
    refined = _session(FACE_MESH_REGIONS).run(None, patches)
    places = ((LIPS, lips), (RIGHT_EYE, right), (RIGHT_IRIS, right), (LEFT_EYE, left), (LEFT_IRIS, left))
    for (indices, matrix), values in zip(places, refined, strict=True):
        points = values.reshape(-1, 2) * (FEATURES / SIDE)
        mesh[list(indices)] = (points @ matrix[:, :2].T + matrix[:, 2]) * (SIDE / FEATURES)
    return mesh.astype(np.float32)


def face_box(picture: Picture, keypoints: Keypoints) -> Box:
    """Return the square about the face of a picture with keypoints (K, 3) that suits the mesh: a guess by the
    keypoints, then about the landmarks found, as MediaPipe follows a face from frame to frame."""
    eyes, mouth = (region_box(keypoints, region, len(picture)) for region in REGIONS)
    x, y = ((a + b) / 2 for a, b in zip(eyes.centre, mouth.centre, strict=True))
    side = FACE_SCALE * eyes.width
    guess = Box((x, y), side, side, eyes.angle)
    found = landmarks(picture, guess)
    return guess if found is None else box_around(found)


def box_around(found: Landmarks) -> Box:
    """Return the square about landmarks, level with the eyes' outer corners."""
    points = found.astype(np.float64)
    angle, (x, y), sides = _level_box(points, points[RIGHT_CORNER], points[LEFT_CORNER])
    side = BOX_SCALE * float(sides.max())
    return Box((float(x), float(y)), side, side, angle)


def _level_box(
    points: NDArray[np.float64], start: NDArray[np.float64], end: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Angle, centre (2,) and sides (2,) of the box around points (n, 2) that is level with a line from one to another
    point (2,)."""
    dx, dy = end - start
    angle = math.atan2(dy, dx)
    level = points @ _rotation(angle)
    low, high = level.min(0), level.max(0)
    return angle, _rotation(angle) @ ((low + high) / 2), high - low


def _rotation(angle: float) -> NDArray[np.float64]:
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


@cache
def _session(graph: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(graph.read_bytes(), options, providers=["CPUExecutionProvider"])


def patch_to_features(mesh: NDArray[np.float64], region: tuple[int, ...], start: int, end: int) -> NDArray[np.float64]:
    """(2, 3): affine map from cells of a region's patch to cells of the feature map (Landmarks2TransformMatrix).

    The patch is the box around the region's landmarks (in cells of the feature map), level with the line from landmark
    `start` to landmark `end`, enlarged by PATCH_SCALE.
    """
    angle, centre, sides = _level_box(mesh[list(region)], mesh[start], mesh[end])
    linear = _rotation(angle) * (PATCH_SCALE * sides / PATCH)
    return np.column_stack([linear, centre - linear @ (PATCH / 2, PATCH / 2)])


def sample(features: Features, matrix: NDArray[np.float64]) -> Features:
    """(1, H, W, C) -> (1, PATCH, PATCH, C): features at the centres of a patch's cells (TransformTensorBilinear).

    Bilinear between the centres of the feature map's cells, 0 outside of them.
    """
    _, height, width, _ = features.shape
    y, x = np.mgrid[:PATCH, :PATCH] + 0.5
    x, y = matrix @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)]) - 0.5
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    column, row = (np.floor(axis).clip(0, last - 1).astype(int) for axis, last in ((x, width - 1), (y, height - 1)))
    right, lower = (x - column)[:, None], (y - row)[:, None]
    cells = features[0]
    upper_row = cells[row, column] * (1 - right) + cells[row, column + 1] * right
    lower_row = cells[row + 1, column] * (1 - right) + cells[row + 1, column + 1] * right
    values = np.where(inside[:, None], upper_row * (1 - lower) + lower_row * lower, 0)
    return values.reshape(1, PATCH, PATCH, -1).astype(np.float32)
