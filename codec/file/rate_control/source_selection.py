"""Selection of the frames that become sources.

The whole clip is known. Sources are selected greedily: each brings the largest total gain over all frames. The gain is
predicted from thumbnails, which show what warping cannot mend (new content, light, blur), and from pose.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.media.types import Picture
from iwcodec.codec.sources.library import pose_distance

THUMBNAIL = 32
"""Side of the thumbnails in pixels: 3 KB per frame, so that ten minutes fit into memory easily."""
MAX_CANDIDATES = 240
"""Maximum number of frames that may become sources, evenly spaced."""
MAX_EVALUATED = 1200
"""Maximum number of frames whose predicted quality is counted, evenly spaced."""
ERROR_FLOOR = 9.0
"""Squared grey levels (of thumbnails): smaller differences are not worth bits."""
POSE_COST = 2500.0
"""Squared grey levels per unit of pose distance: warping far costs quality that thumbnails do not show."""
WARPED_ERROR = 0.5
"""Share of the thumbnail error that remains after warping."""


@dataclass(frozen=True)
class Survey:
    """What the survey pass keeps of every frame of a clip."""

    thumbnails: NDArray[np.uint8]  # (n, THUMBNAIL, THUMBNAIL, 3)
    keypoints: NDArray[np.float32]  # (n, K, 3)


def thumbnail(picture: Picture) -> Picture:
    """(H, W, 3) -> (THUMBNAIL, THUMBNAIL, 3)."""
    return cv2.resize(picture, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)


def expected_errors(survey: Survey, candidates: NDArray[np.int64], evaluated: NDArray[np.int64]) -> NDArray[np.float32]:
    """Squared error expected when a frame is reconstructed from one candidate alone: (candidates, evaluated)."""
    flat = survey.thumbnails.reshape(len(survey.thumbnails), -1).astype(np.float32)
    a, b = flat[candidates], flat[evaluated]
    distance = (np.square(a).sum(1)[:, None] + np.square(b).sum(1)[None] - 2 * a @ b.T) / flat.shape[1]
    poses = survey.keypoints
    pose = np.stack([pose_distance(poses[candidate], poses[evaluated]) for candidate in candidates])
    return (ERROR_FLOOR + WARPED_ERROR * distance.clip(min=0) + POSE_COST * pose).astype(np.float32)


def choose_sources(survey: Survey, max_sources: int, min_gain_db: float = 0.0) -> list[int]:
    """Frame numbers, best first. Stops at `max_sources`, or when the mean gain of one more is below `min_gain_db`."""
    count = len(survey.thumbnails)
    candidates = evenly_spaced(count, MAX_CANDIDATES)
    errors = np.log10(expected_errors(survey, candidates, evenly_spaced(count, MAX_EVALUATED))) * 10
    first = int(errors.mean(1).argmin())
    chosen, lowest = [first], errors[first].copy()
    while len(chosen) < min(max_sources, len(candidates)):
        gains = (lowest - errors).clip(min=0).mean(1)
        gains[chosen] = -1
        best = int(gains.argmax())
        if gains[best] < min_gain_db:
            break
        chosen.append(best)
        np.minimum(lowest, errors[best], out=lowest)
    return [int(candidates[i]) for i in chosen]


def evenly_spaced(count: int, max_numbers: int) -> NDArray[np.int64]:
    """At most `max_numbers` of the numbers below `count`, evenly spaced, first and last included, ascending."""
    return np.unique(np.linspace(0, count - 1, min(count, max_numbers)).round().astype(np.int64))


def coding_order(survey: Survey, frames: list[int]) -> list[int]:
    """Reorder frames for AV1: after the first, always the one whose thumbnail is nearest to the previous frame's, so
    that inter prediction saves bits."""
    flat = survey.thumbnails[frames].reshape(len(frames), -1).astype(np.float32)
    remaining = list(range(1, len(frames)))
    order = [0]
    while remaining:
        last = flat[order[-1]]
        nearest = min(remaining, key=lambda i: float(np.square(flat[i] - last).sum()))
        remaining.remove(nearest)
        order.append(nearest)
    return [frames[i] for i in order]
