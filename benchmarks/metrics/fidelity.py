"""Fidelity of a decoded picture on luma: PSNR-Y, SSIM, MS-SSIM. Pictures are uint8 RGB (H, W, 3)."""

import math
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.media.quality import PERFECT_DB
from iwcodec.codec.media.types import Picture

Plane = NDArray[np.float64]
SsimMaps = tuple[Plane, Plane]
"""Per pixel: contrast x structure, luminance."""

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponent of each scale, finest first, as published."""
MIN_MS_SSIM_SIDE = 176
"""Smallest picture side in pixels: at the coarsest of five scales an 11 x 11 window still fits."""


def luma(picture: Picture) -> Plane:
    """BT.601 luma over the full range, 0 to 255, not rounded."""
    return np.asarray(picture @ np.array([0.299, 0.587, 0.114]), np.float64)


def psnr_y(original: Plane, decoded: Plane) -> float:
    """PSNR of luma in dB, capped at PERFECT_DB."""
    error = float(np.mean(np.square(original - decoded)))
    return PERFECT_DB if error == 0 else min(PERFECT_DB, 10 * math.log10(255**2 / error))


def ssim(original: Plane, decoded: Plane) -> float:
    """Mean structural similarity of luma; Z. Wang et al., IEEE Trans. Image Processing 13 (2004), 11 x 11 Gaussian."""
    return ssim_from_maps(ssim_maps(original, decoded))


def ssim_from_maps(maps: SsimMaps) -> float:
    return float(np.mean(maps[0] * maps[1]))


def ms_ssim(original: Plane, decoded: Plane, maps: SsimMaps | None = None) -> float:
    """Multi-scale SSIM of luma; Z. Wang, E. Simoncelli, A. Bovik, Asilomar 2003.

    `maps` are the SSIM maps of the finest scale, if already computed. Raises ValueError below MIN_MS_SSIM_SIDE.
    """
    if min(original.shape) < MIN_MS_SSIM_SIDE:
        raise ValueError(f"MS-SSIM needs pictures of at least {MIN_MS_SSIM_SIDE} pixels, not {min(original.shape)}")
    maps = maps or ssim_maps(original, decoded)
    product = 1.0
    for scale, weight in enumerate(MS_SSIM_WEIGHTS):
        if scale:
            original, decoded = _halve(original), _halve(decoded)
            maps = ssim_maps(original, decoded)
        structure, luminance = maps
        term = float(np.mean(structure * luminance if scale == len(MS_SSIM_WEIGHTS) - 1 else structure))
        product *= max(term, 0.0) ** weight
    return product


def ssim_maps(a: Plane, b: Plane) -> SsimMaps:
    """Contrast x structure and luminance terms wherever the whole window lies inside the picture."""
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b, square_a, square_b, product = _blur(a, b, a * a, b * b, a * b)
    variance_a, variance_b = square_a - mean_a**2, square_b - mean_b**2
    structure = (2 * (product - mean_a * mean_b) + c2) / (variance_a + variance_b + c2)
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return structure, luminance


def _blur(*planes: Plane) -> Iterator[Plane]:
    for plane in planes:
        blurred = np.asarray(cv2.GaussianBlur(plane, (11, 11), 1.5), np.float64)
        yield blurred[5:-5, 5:-5]


def _halve(plane: Plane) -> Plane:
    """Mean of each 2 x 2 block; an odd last row or column is dropped."""
    even = plane[: plane.shape[0] // 2 * 2, : plane.shape[1] // 2 * 2]
    return (even[0::2, 0::2] + even[1::2, 0::2] + even[0::2, 1::2] + even[1::2, 1::2]) / 4
