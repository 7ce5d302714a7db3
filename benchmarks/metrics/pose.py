"""Average keypoint distance of upper bodies: whether head, shoulders and arms are where the original has them.

The protocol of faces.py with the landmarks of BlazePose, for clips that show more than a face.
"""

from collections.abc import Callable, Sequence

import numpy as np

from iwcodec.benchmarks.metrics.faces import mean_distance
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
    """AKD and missing bodies over every Nth frame (faces.STRIDE) whose original shows an upper body.

    `pose_akd`: mean distance in pixels of the visible landmarks where both pictures have a body, None without such a
    frame. `missing_bodies`: share of frames whose decoded picture has no body, None if no original has one.
    `detect_original` is used on the originals if given.
    """
    akd, missing = mean_distance(detect, originals, decoded, detect_original, _visible_distance)
    return {"pose_akd": akd, "missing_bodies": missing}


def _visible_distance(expected: Body, found: Body) -> float | None:
    """Of the upper body's landmarks that `expected` shows; None if it shows none."""
    upper = list(UPPER_BODY)
    visible = expected[upper, 2] >= MIN_VISIBILITY
    offsets = (expected - found)[upper, :2][visible]
    return float(np.linalg.norm(offsets, axis=1).mean()) if visible.any() else None
