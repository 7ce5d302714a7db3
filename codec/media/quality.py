"""How near a rebuilt picture is to the original."""

import math

import cv2
import numpy as np

from iwcodec.codec.media.types import Picture

PERFECT_DB = 60.0
"""What identical pictures count as in a mean."""
GOLDEN = (math.sqrt(5) - 1) / 2


def psnr(a: Picture, b: Picture) -> float:
    """dB over all RGB values, at most PERFECT_DB."""
    error = cv2.norm(a, b, cv2.NORM_L2SQR) / a.size
    return PERFECT_DB if error == 0 else min(PERFECT_DB, 10 * math.log10(255**2 / error))


def judging_order(count: int) -> list[int]:
    """The numbers below `count` in an order in which any beginning is spread evenly over them, and in step with
    nothing: fractional parts of multiples of the golden ratio. Frames differ little from the next, so that a few
    frames say of a clip what several times as many at random would."""
    return [int(rank) for rank in np.argsort(np.argsort(np.arange(count) * GOLDEN % 1))]
