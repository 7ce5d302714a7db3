"""PSNR, and the order in which frames are sampled to estimate it."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.media.types import Picture

PERFECT_DB = 60.0
"""PSNR that identical pictures count as in a mean."""
GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


def psnr(a: Picture, b: Picture) -> float:
    """Return the PSNR over all RGB values in dB, at most PERFECT_DB."""
    error = cv2.norm(a, b, cv2.NORM_L2SQR) / a.size
    return PERFECT_DB if error == 0 else min(PERFECT_DB, 10 * math.log10(255**2 / error))


def weighted_psnr(a: Picture, b: Picture, weights: NDArray[np.float32]) -> float:
    """Return the PSNR in dB, at most PERFECT_DB, with a weight for the squared error of each pixel (H, W)."""
    squares = np.square(np.subtract(a, b, dtype=np.float32)).mean(-1)
    error = float((squares * weights).sum() / weights.sum())
    return PERFECT_DB if error == 0 else min(PERFECT_DB, 10 * math.log10(255**2 / error))


def sampling_order(count: int) -> list[int]:
    """Return the numbers 0 to `count` - 1 in an order of which any prefix is evenly spread and avoids every period.

    They are the ranks of the fractional parts of multiples of the golden ratio. Neighbouring frames are similar, so a
    few evenly spread frames estimate a clip's quality as well as several times as many random ones.
    """
    return [int(rank) for rank in np.argsort(np.argsort(np.arange(count) * GOLDEN_RATIO % 1))]
