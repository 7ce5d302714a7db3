"""How near a rebuilt picture is to the original."""

import math

import cv2

from .media import Picture

PERFECT_DB = 60.0
"""What identical pictures count as in a mean."""


def psnr(a: Picture, b: Picture) -> float:
    """dB over all RGB values, at most PERFECT_DB."""
    error = cv2.norm(a, b, cv2.NORM_L2SQR) / a.size
    return PERFECT_DB if error == 0 else min(PERFECT_DB, 10 * math.log10(255**2 / error))
