"""Do the face's parts stand where they should? Average keypoint distance and missing faces.

As A. Siarohin et al., "First Order Motion Model for Image Animation", NeurIPS 2019, measure animation, with the five
points of MTCNN (K. Zhang et al., IEEE Signal Processing Letters 23, 2016) in place of their 68.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..media import Picture
from .metrics import MetricUnavailableError

EVERY = 5
"""Frames from one that is looked at to the next: finding a face takes many times as long as any other metric."""
CERTAIN = 0.9
"""Least confidence of a face."""

Points = NDArray[np.float32]
"""(5, 2): eyes, nose, corners of the mouth; x, y in pixels."""
Finder = Callable[[Picture], Points | None]


class Landmarks:
    """The points of the surest face of a picture (H, W, 3), uint8 RGB; None without one.

    Raises MetricUnavailableError without facenet-pytorch, which carries the weights.
    """

    def __init__(self) -> None:
        try:
            from facenet_pytorch import MTCNN
        except (ImportError, RuntimeError) as error:  # torchvision raises the latter where it does not fit torch
            raise MetricUnavailableError(
                "AKD needs facenet-pytorch and a torchvision built for this torch (pip install --no-deps both), "
                f"requests, tqdm and Pillow: {error}."
            ) from error
        self._finder = MTCNN(select_largest=False, device="cpu")

    def __call__(self, picture: Picture) -> Points | None:
        _, certain, points = self._finder.detect(np.ascontiguousarray(picture), landmarks=True)
        if points is None or certain[0] < CERTAIN:
            return None
        return np.asarray(points[0], np.float32)


def compare(find: Finder, originals: Sequence[Picture], decoded: Sequence[Picture]) -> dict[str, float | None]:
    """Over every EVERY-th frame whose original shows a face: `akd`, the mean distance in pixels of the points where
    both have one, and `missing_faces`, the share where the decoded picture has none. None where there is nothing."""
    distances: list[float] = []
    missing = 0
    for n in range(0, len(originals), EVERY):
        wanted = find(originals[n])
        if wanted is None:
            continue
        found = find(decoded[n])
        if found is None:
            missing += 1
        else:
            distances.append(float(np.linalg.norm(wanted - found, axis=1).mean()))
    seen = len(distances) + missing
    mean = math.fsum(distances) / len(distances) if distances else None
    return {"akd": mean, "missing_faces": missing / seen if seen else None}
