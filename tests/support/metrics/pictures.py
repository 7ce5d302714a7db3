"""Test pictures for the metrics: a texture, and the same with noise or shifted."""

from pathlib import Path

import cv2
import numpy as np

from iwcodec.codec.media.types import Picture


def example(name: str) -> Picture:
    """Return an example picture of LPIPS: ref, p0 or p1."""
    path = Path(__file__).parents[2] / "golden" / f"lpips_{name}.png"
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def texture(size: int = 192, seed: int = 0) -> Picture:
    coarse = np.random.default_rng(seed).integers(20, 236, (size // 8, size // 8, 3), np.uint8)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_LINEAR)


def noisy(picture: Picture, amplitude: int, seed: int = 1) -> Picture:
    noise = np.random.default_rng(seed).integers(-amplitude, amplitude + 1, picture.shape)
    return (picture.astype(int) + noise).clip(0, 255).astype(np.uint8)


def shifted(picture: Picture, dx: float) -> Picture:
    size = len(picture)
    matrix = np.array([[1, 0, dx], [0, 1, 0]], np.float64)
    return cv2.warpAffine(picture, matrix, (size, size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)


def pair(amplitude: int, count: int = 3) -> tuple[list[Picture], list[Picture]]:
    originals = [shifted(texture(), 2 * n) for n in range(count)]
    return originals, [noisy(p, amplitude, seed) for seed, p in enumerate(originals)]
