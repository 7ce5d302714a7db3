"""Average keypoint distance of upper bodies: whether head, shoulders and arms are where the original has them.

The protocol of faces.py with the landmarks of BlazePose, for clips that show more than a face.
"""

from collections.abc import Callable, Sequence

import numpy as np

from iwcodec.benchmarks.metrics.faces import STRIDE
from iwcodec.benchmarks.metrics.mesh.body_pose import UPPER_BODY, Body
from iwcodec.codec.media.types import Picture

MIN_VISIBILITY = 0.5
"""Landmarks that the original hides or cuts off with a greater probability than this are not compared."""

Detector = Callable[[Picture], Body | None]


def pose_distance(
    detect: Detector,
    originals: Sequence[Picture],
    decoded: Sequence[Picture],
    detect_original: Detector | None = None,
) -> dict[str, float | None]:
    """AKD and missing bodies over every STRIDE-th frame whose original shows an upper body.

    `pose_akd`: mean distance in pixels of the visible landmarks where both pictures have a body, None without such a
    frame. `missing_bodies`: share of frames whose decoded picture has no body, None if no original has one.
    `detect_original` is used on the originals if given.
    """
    distances: list[float] = []
    missing = 0
    upper = list(UPPER_BODY)
    for n in range(0, len(originals), STRIDE):
        expected = (detect_original or detect)(originals[n])
        if expected is None or not (visible := expected[upper, 2] >= MIN_VISIBILITY).any():
            continue
        found = detect(decoded[n])
        if found is None:
            missing += 1
        else:
            offsets = (expected - found)[upper, :2][visible]
            distances.append(float(np.linalg.norm(offsets, axis=1).mean()))
    measured = len(distances) + missing
    return {
        "pose_akd": float(np.mean(distances)) if distances else None,
        "missing_bodies": missing / measured if measured else None,
    }
