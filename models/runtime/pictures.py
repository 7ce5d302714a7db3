"""Picture operations that all runtimes must perform identically."""

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from iwcodec.models.runtime.types import Picture


def resize_area(picture: Picture, side: int) -> Picture:
    """Scale a square picture to the network's input size by area averaging, rounded to integers.

    Keypoints depend on the result, so every runtime uses this function.
    """
    if picture.shape[0] == side:
        return picture
    return np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


@cache
def pixel_grid(side: int) -> NDArray[np.float32]:
    """Pixel coordinates x and y of a square picture, (side, side, 2). The array is cached: do not modify it."""
    axis = np.arange(side, dtype=np.float32)
    return np.stack(np.meshgrid(axis, axis), axis=-1)
