"""How the encoder judges a decoded frame: by PSNR, in which eyes and mouth count most if it is tuned for the face."""

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.media.quality import psnr, weighted_psnr
from iwcodec.codec.media.types import Picture
from iwcodec.codec.sources.regions import REGIONS, face_mask, region_mask
from iwcodec.models.runtime.pictures import pixel_grid
from iwcodec.models.runtime.types import Keypoints

REGION_WEIGHT, BACKGROUND_WEIGHT = 3.0, 0.5
"""Weights of the squared errors of eyes and mouth, and of what is not the face; that of the face is 1."""


def frame_quality(decoded: Picture, original: Picture, face: Keypoints | None) -> float:
    """Return the PSNR in dB, weighted for the face with keypoints (K, 3) if they are given."""
    if face is None:
        return psnr(decoded, original)
    return weighted_psnr(decoded, original, face_weights(face, len(original)))


def face_weights(keypoints: Keypoints, size: int) -> NDArray[np.float32]:
    """Return weights (size, size) of squared errors for a picture with keypoints (K, 3)."""
    places = pixel_grid(size)
    weights = BACKGROUND_WEIGHT + (1 - BACKGROUND_WEIGHT) * face_mask(keypoints, size)
    for region in REGIONS:
        weights = np.maximum(weights, REGION_WEIGHT * region_mask(keypoints, region, size, places))
    return np.asarray(weights, np.float32)
