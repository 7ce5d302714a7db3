"""Average keypoint distance (AKD) and missing faces: whether facial features are where the original has them.

The protocol of A. Siarohin et al., "First Order Motion Model for Image Animation", NeurIPS 2019, with the five points
of MTCNN (K. Zhang et al., IEEE Signal Processing Letters 23, 2016) instead of 68 landmarks.
"""

import math
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from iwcodec.benchmarks.metrics.mtcnn import Mtcnn
from iwcodec.codec.media.types import Picture

STRIDE = 5
"""Every Nth frame is measured: face detection takes many times as long as any other metric."""
MIN_CONFIDENCE = 0.9
"""A detection below this confidence does not count as a face."""

Points = NDArray[np.float32]
"""(5, 2): eyes, nose, corners of the mouth; x, y in pixels."""
Found = TypeVar("Found")
LandmarkDetector = Callable[[Picture], Points | None]


class FaceLandmarks:
    """Landmarks of the most confident face of a uint8 RGB picture (H, W, 3); None without a face.

    Raises MetricUnavailableError without PyTorch or the weights (see `mtcnn`).
    """

    def __init__(self) -> None:
        self._mtcnn = Mtcnn()

    def __call__(self, picture: Picture) -> Points | None:
        faces = self._mtcnn(picture)
        return faces[0].points if faces and faces[0].confidence >= MIN_CONFIDENCE else None


class CachedDetector(Generic[Found]):
    """A detector that runs once per picture: every codec and rate is compared with the same originals."""

    def __init__(self, detect: Callable[[Picture], Found | None]) -> None:
        self._detect = detect
        self._cache: dict[bytes, Found | None] = {}

    def __call__(self, picture: Picture) -> Found | None:
        key = sha256(picture.tobytes()).digest()
        if key not in self._cache:
            self._cache[key] = self._detect(picture)
        return self._cache[key]


def keypoint_distance(
    detect: LandmarkDetector,
    originals: Sequence[Picture],
    decoded: Sequence[Picture],
    detect_original: LandmarkDetector | None = None,
) -> dict[str, float | None]:
    """AKD and missing faces over every STRIDE-th frame whose original shows a face.

    `akd`: mean distance in pixels of the landmarks where both pictures have a face, None if there is no such frame.
    `missing_faces`: share of frames whose decoded picture has no face, None if no original has one.
    `detect_original` is used on the originals if given (see CachedDetector).
    """
    akd, missing = mean_distance(detect, originals, decoded, detect_original, _point_distance)
    return {"akd": akd, "missing_faces": missing}


def _point_distance(expected: Points, found: Points) -> float:
    return float(np.linalg.norm(expected - found, axis=1).mean())


def mean_distance(
    detect: Callable[[Picture], Found | None],
    originals: Sequence[Picture],
    decoded: Sequence[Picture],
    detect_original: Callable[[Picture], Found | None] | None,
    distance: Callable[[Found, Found], float | None],
) -> tuple[float | None, float | None]:
    """Mean distance where both pictures have a face or body, and the share of frames whose decoded picture has none.

    Frames without one in the original, or whose distance to itself is None, do not count. A value is None if no frame
    counts.
    """
    distances: list[float] = []
    missing = 0
    for n in range(0, len(originals), STRIDE):
        expected = (detect_original or detect)(originals[n])
        if expected is None or distance(expected, expected) is None:
            continue
        found = detect(decoded[n])
        measured = None if found is None else distance(expected, found)
        if measured is None:
            missing += 1
        else:
            distances.append(measured)
    count = len(distances) + missing
    mean = math.fsum(distances) / len(distances) if distances else None
    return mean, missing / count if count else None
