"""How the encoder judges a decoded frame: by PSNR, in which eyes and mouth count most if it is tuned for the face."""

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.media.quality import psnr, weighted_psnr
from iwcodec.codec.media.types import Picture
from iwcodec.codec.sources.regions import REGIONS, region_mask
from iwcodec.models.runtime.pictures import pixel_grid
from iwcodec.models.runtime.types import Keypoints

REGION_WEIGHT = 3.0
"""Weight of the squared error of eyes and mouth; that of the rest of the picture is 1."""


def frame_quality(decoded: Picture, original: Picture, face: Keypoints | None) -> float:
    """Return the PSNR in dB, weighted for the face with keypoints (K, 3) if they are given."""
    if face is None:
        return psnr(decoded, original)
    return weighted_psnr(decoded, original, face_weights(face, len(original)))


def face_weights(keypoints: Keypoints, size: int) -> NDArray[np.float32]:
    """Return weights (size, size) of squared errors for a picture with keypoints (K, 3)."""
    places = pixel_grid(size)
    masks = [region_mask(keypoints, region, size, places) for region in REGIONS]
    return np.asarray(1 + (REGION_WEIGHT - 1) * np.maximum.reduce(masks), np.float32)
