"""Do the face's parts stand where they should? Average keypoint distance and missing faces.

As A. Siarohin et al., "First Order Motion Model for Image Animation", NeurIPS 2019, measure animation, with the five
points of MTCNN (K. Zhang et al., IEEE Signal Processing Letters 23, 2016) in place of their 68.
"""

import math
from collections.abc import Callable, Sequence
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from iwcodec.benchmarks.metrics.mtcnn import Mtcnn
from iwcodec.codec.media.types import Picture

EVERY = 5
"""Frames from one that is looked at to the next: finding a face takes many times as long as any other metric."""
CERTAIN = 0.9
"""Least confidence of a face."""

Points = NDArray[np.float32]
"""(5, 2): eyes, nose, corners of the mouth; x, y in pixels."""
Finder = Callable[[Picture], Points | None]


class Landmarks:
    """The points of the surest face of a picture (H, W, 3), uint8 RGB; None without one.

    Raises MetricUnavailableError without PyTorch or the weights (see `mtcnn`).
    """

    def __init__(self) -> None:
        self._faces = Mtcnn()

    def __call__(self, picture: Picture) -> Points | None:
        found = self._faces(picture)
        return found[0].points if found and found[0].certain >= CERTAIN else None


class Remembered:
    """A finder that looks once at each picture: every codec and rate is compared with the same originals."""

    def __init__(self, find: Finder) -> None:
        self._find = find
        self._known: dict[bytes, Points | None] = {}

    def __call__(self, picture: Picture) -> Points | None:
        key = sha256(picture.tobytes()).digest()
        if key not in self._known:
            self._known[key] = self._find(picture)
        return self._known[key]


def compare(
    find: Finder, originals: Sequence[Picture], decoded: Sequence[Picture], find_original: Finder | None = None
) -> dict[str, float | None]:
    """`find_original` is `find`, where it is to be another object (see Remembered).

    Over every EVERY-th frame whose original shows a face: `akd`, the mean distance in pixels of the points where
    both have one, and `missing_faces`, the share where the decoded picture has none. None where there is nothing."""
    distances: list[float] = []
    missing = 0
    for n in range(0, len(originals), EVERY):
        wanted = (find_original or find)(originals[n])
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
