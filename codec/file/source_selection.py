"""Which frames become sources: the codec's rate control.

For a file the whole clip is known. Each source is chosen greedily to bring the largest total gain over all frames,
judged on thumbnails of what attention cannot mend (what is seen at all, light, blur) and on pose.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.media.types import Picture
from iwcodec.codec.sources.library import pose_distance

THUMBNAIL = 32
"""Side of the thumbnails: 3 KB a frame, so that ten minutes fit easily."""
CANDIDATES = 240
"""Frames that may become sources, evenly spaced."""
JUDGES = 1200
"""Frames whose quality is counted, evenly spaced."""
FLOOR = 9.0
"""Squared grey levels (thumbnails): differences below are not worth bits."""
POSE_COST = 2500.0
"""Squared grey levels for one unit of pose distance: warping far costs quality that thumbnails do not show."""
WARPED = 0.5
"""Share of the thumbnail error that survives warping."""


@dataclass(frozen=True)
class Survey:
    """What the first pass over a clip keeps of every frame."""

    thumbnails: NDArray[np.uint8]  # (n, THUMBNAIL, THUMBNAIL, 3)
    keypoints: NDArray[np.float32]  # (n, K, 3)


def thumbnail(picture: Picture) -> Picture:
    return cv2.resize(picture, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)


def expected_errors(survey: Survey, candidates: NDArray[np.int64], judges: NDArray[np.int64]) -> NDArray[np.float32]:
    """(candidates, judges): squared error expected when a frame is rebuilt from one candidate alone."""
    flat = survey.thumbnails.reshape(len(survey.thumbnails), -1).astype(np.float32)
    a, b = flat[candidates], flat[judges]
    distance = (np.square(a).sum(1)[:, None] + np.square(b).sum(1)[None] - 2 * a @ b.T) / flat.shape[1]
    poses = survey.keypoints
    pose = np.stack([pose_distance(poses[c], poses[judges]) for c in candidates])
    return (FLOOR + WARPED * distance.clip(min=0) + POSE_COST * pose).astype(np.float32)


def choose_sources(survey: Survey, most: int, least_gain_db: float = 0.0) -> list[int]:
    """Frame numbers, best first. Stops at `most`, or when the mean gain of one more falls under `least_gain_db`."""
    count = len(survey.thumbnails)
    candidates = spaced(count, CANDIDATES)
    errors = np.log10(expected_errors(survey, candidates, spaced(count, JUDGES))) * 10
    first = int(errors.mean(1).argmin())
    chosen, reached = [first], errors[first].copy()
    while len(chosen) < min(most, len(candidates)):
        gains = (reached - errors).clip(min=0).mean(1)
        gains[chosen] = -1
        best = int(gains.argmax())
        if gains[best] < least_gain_db:
            break
        chosen.append(best)
        np.minimum(reached, errors[best], out=reached)
    return [int(candidates[i]) for i in chosen]


def spaced(count: int, most: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def coding_order(survey: Survey, chosen: list[int]) -> list[int]:
    """The same frames, each followed by the one that looks most like one already coded: shorter inter frames."""
    flat = survey.thumbnails[chosen].reshape(len(chosen), -1).astype(np.float32)
    left = list(range(1, len(chosen)))
    order = [0]
    while left:
        last = flat[order[-1]]
        nearest = min(left, key=lambda i: float(np.square(flat[i] - last).sum()))
        left.remove(nearest)
        order.append(nearest)
    return [chosen[i] for i in order]
