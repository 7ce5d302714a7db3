"""How near a rebuilt picture is to the original."""

import math

import numpy as np

from .media import Picture

PERFECT_DB = 60.0
"""What identical pictures count as in a mean."""


def psnr(a: Picture, b: Picture) -> float:
    """dB over all RGB values, at most PERFECT_DB."""
    error = float(np.mean(np.square(a.astype(np.float32) - b.astype(np.float32))))
    return PERFECT_DB if error == 0 else min(PERFECT_DB, 10 * math.log10(255**2 / error))
