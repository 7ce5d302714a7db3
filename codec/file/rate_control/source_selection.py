"""Selection of the frames that become sources.

The whole clip is known. Sources are selected greedily: each brings the largest total gain over all frames. The gain is
predicted from thumbnails, which show what warping cannot mend (new content, light, blur), and from pose. When a clip is
tuned for the face, eyes and mouth count by themselves: each may come from another source (regions.py).
"""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.media.types import Picture
from iwcodec.codec.sources.library import CAPACITY, pose_distance
from iwcodec.codec.sources.regions import REGION_SIZES, REGIONS, box_places, region_box
from iwcodec.models.runtime.types import Keypoints

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
REGION_SIDE = 16
"""Side of the small pictures of eyes and mouth in pixels."""
REGION_WEIGHT = 3.0
"""Weight of the squared error of eyes and mouth against that of the rest of the picture."""


@dataclass(frozen=True)
class Survey:
    """What the survey pass keeps of every frame of a clip."""

    thumbnails: NDArray[np.uint8]  # (n, THUMBNAIL, THUMBNAIL, 3)
    keypoints: NDArray[np.float32]  # (n, K, 3)
    regions: NDArray[np.uint8] | None = None
    """(n, regions, REGION_SIDE, REGION_SIDE, 3): eyes and mouth, upright; None: the clip is not tuned for the face."""
    required: tuple[int, ...] = ()
    """Frames that must become sources, most important first (shot_sources.py)."""

    corrected: NDArray[np.float32] | None = None
    """(n, K, 3): keypoints with eyes and mouth on the face (face_check.py); None: as they are."""

    @property
    def faces(self) -> NDArray[np.float32] | None:
        """Keypoints (n, K, 3) that show where eyes and mouth are, if the clip is tuned for the face
        (frame_quality.py)."""
        if self.regions is None:
            return None
        return self.keypoints if self.corrected is None else self.corrected

    @cached_property
    def ranked_sources(self) -> list[int]:
        """Frames in the order in which they should become sources, at most CAPACITY."""
        return _ranked_sources(self)


def region_pictures(picture: Picture, keypoints: Keypoints) -> NDArray[np.uint8]:
    """Return small pictures (regions, REGION_SIDE, REGION_SIDE, 3) of eyes and mouth. `keypoints`: (K, 3)."""
    places = [box_places(region_box(keypoints, region, len(picture))) for region in REGIONS]
    patches = [cv2.remap(picture, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for at in places]
    return np.stack([cv2.resize(patch, (REGION_SIDE,) * 2, interpolation=cv2.INTER_AREA) for patch in patches])


def thumbnail(picture: Picture) -> Picture:
    """(H, W, 3) -> (THUMBNAIL, THUMBNAIL, 3)."""
    return cv2.resize(picture, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)


def expected_errors(survey: Survey, candidates: NDArray[np.int64], evaluated: NDArray[np.int64]) -> NDArray[np.float32]:
    """Squared error expected when a frame is reconstructed from one candidate alone: (candidates, evaluated)."""
    distance = mean_square(*(flattened(survey.thumbnails[numbers]) for numbers in (candidates, evaluated)))
    poses = survey.keypoints
    pose = np.stack([pose_distance(poses[candidate], poses[evaluated]) for candidate in candidates])
    return (ERROR_FLOOR + WARPED_ERROR * distance + POSE_COST * pose).astype(np.float32)


def region_errors(
    survey: Survey, candidates: NDArray[np.int64], evaluated: NDArray[np.int64]
) -> list[NDArray[np.float32]]:
    """Additional squared error expected when a region of a frame shows a candidate's, as a share of the picture: for
    each region (candidates, evaluated)."""
    faces = survey.faces
    if survey.regions is None or faces is None:
        return []
    unit = np.linalg.norm(faces[:, 0, :2] - faces[:, 1, :2], axis=1).mean() / 2
    found = []
    for region, size in enumerate(REGION_SIZES):
        share = size[0] * size[1] * unit**2
        looks = (flattened(survey.regions[numbers, region]) for numbers in (candidates, evaluated))
        found.append((REGION_WEIGHT * share * mean_square(*looks)).astype(np.float32))
    return found


def flattened(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(n, ...) -> (n, d)."""
    return pictures.reshape(len(pictures), -1).astype(np.float32)


def mean_square(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean squared difference of each row of `a` (n, d) and each of `b` (m, d): (n, m)."""
    distance = np.square(a).sum(1)[:, None] + np.square(b).sum(1)[None] - 2 * a @ b.T
    return np.asarray(distance.clip(min=0) / a.shape[1])


def choose_sources(survey: Survey, max_sources: int) -> list[int]:
    """Frame numbers of at most `max_sources`, best first; those that are required come before all others."""
    return survey.ranked_sources[:max_sources]


def _ranked_sources(survey: Survey) -> list[int]:
    count = len(survey.thumbnails)
    candidates = np.union1d(evenly_spaced(count, MAX_CANDIDATES), np.array(survey.required, np.int64))
    required = np.searchsorted(candidates, survey.required).tolist()
    evaluated = evenly_spaced(count, MAX_EVALUATED)
    errors = [expected_errors(survey, candidates, evaluated), *region_errors(survey, candidates, evaluated)]
    lowest = [np.full(len(evaluated), np.inf, np.float32) for _ in errors]
    chosen: list[int] = []
    lowest_db = np.zeros(len(evaluated), np.float32)
    while len(chosen) < min(CAPACITY, len(candidates)):
        total = sum(np.minimum(known, of_all) for known, of_all in zip(lowest, errors, strict=True))
        total_db = 10 * np.log10(total)
        gains = (lowest_db - total_db).mean(1)
        gains[chosen] = -np.inf
        best = required[len(chosen)] if len(chosen) < len(required) else int(gains.argmax())
        chosen.append(best)
        lowest, lowest_db = [np.minimum(a, b[best]) for a, b in zip(lowest, errors, strict=True)], total_db[best]
    return [int(candidates[i]) for i in chosen]


def evenly_spaced(count: int, max_numbers: int) -> NDArray[np.int64]:
    """At most `max_numbers` of the numbers below `count`, evenly spaced, first and last included, ascending."""
    return np.unique(np.linspace(0, count - 1, min(count, max_numbers)).round().astype(np.int64))


def coding_order(survey: Survey, frames: list[int]) -> list[int]:
    """Reorder frames for AV1: after the first, always the one whose thumbnail is nearest to the previous frame's, so
    that inter prediction saves bits."""
    flat = flattened(survey.thumbnails[frames])
    remaining = list(range(1, len(frames)))
    order = [0]
    while remaining:
        last = flat[order[-1]]
        nearest = min(remaining, key=lambda i: float(np.square(flat[i] - last).sum()))
        remaining.remove(nearest)
        order.append(nearest)
    return [frames[i] for i in order]
