"""What the motion coders share: quantiser, quadratic error of a frame, fitted frames, and counts of the range coder."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Levels = NDArray[np.int32]
"""Quantised values, |level| <= MAX_LEVEL. Predictive coder: (K, 3) per frame, or (n, K, 3). Transform coder: (n, 3 K)
per run, a row per frequency. Every use states its shape."""

QUANTISER_DEAD_ZONE = 0.7
"""Half width, in steps, of the dead zone around the previous level: a value inside keeps that level, so that a face at
rest costs nothing. Above 0.5, hence wider than the interval of plain rounding."""

PRECISION = 24
"""Bits of the probabilities of constriction's range coder."""
ESCAPE_RANGE = 1 << 16
"""Number of equally likely values of an escaped level, which is coded modulo this."""
MAX_LEVEL = ESCAPE_RANGE // 2 - 1
"""Largest magnitude of a level."""


@dataclass(frozen=True)
class Quantiser:
    """Converts keypoints (..., K, 3), that is (x, y, strength), to integer levels and back."""

    step_xy: float = 1 / 60
    """Step of positions, which lie in [-1, 1]."""
    step_strength: float = 1 / 15
    """Step of strengths, which lie in [0, 1]."""

    @property
    def steps(self) -> NDArray[np.float32]:
        """(3,): steps of x, y and strength."""
        return np.array([self.step_xy, self.step_xy, self.step_strength], np.float32)

    def quantise(self, keypoints: NDArray[np.float32], last: Levels | None = None) -> Levels:
        """Return the nearest levels (..., K, 3). With the previous frame's levels `last` of the same shape, apply
        QUANTISER_DEAD_ZONE around them."""
        exact = keypoints / self.steps
        levels = np.clip(np.rint(exact), -MAX_LEVEL, MAX_LEVEL).astype(np.int32)
        if last is None:
            return levels
        return np.where(np.abs(exact - last) < QUANTISER_DEAD_ZONE, last, levels).astype(np.int32)

    def quantise_track(self, keypoints: NDArray[np.float32]) -> Levels:
        """Quantise consecutive frames (n, K, 3), each with the dead zone around the frame before."""
        out: list[Levels] = []
        for frame in keypoints:
            out.append(self.quantise(frame, out[-1] if out else None))
        return np.stack(out)

    def dequantise(self, levels: Levels) -> NDArray[np.float32]:
        """Return keypoints (..., K, 3), positions clipped to [-1, 1] and strengths to [0, 1]."""
        values = levels.astype(np.float32) * self.steps
        low, high = np.array([-1, -1, 0], np.float32), np.ones(3, np.float32)
        return np.asarray(np.clip(values, low, high), np.float32)

    def round_trip(self, keypoints: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return keypoints (..., K, 3) quantised to the nearest levels and dequantised."""
        return self.dequantise(self.quantise(keypoints))


@dataclass(frozen=True)
class Quadratic:
    """Error (x - target)^T gram (x - target) of a frame's unknowns x (all x, all y, all strengths of the keypoints), or
    of its MotionSpace coordinates; as a fraction of the error that remains at the target."""

    target: NDArray[np.float64]  # (3 K,)
    gram: NDArray[np.float64]
    """(3 K, 3 K), positive definite: the Gram matrix J^T J of the fit, whose J holds the derivatives of the warped
    picture. All zero for frames of no motion error, such as sources shown unmodified."""

    def of(self, unknowns: NDArray[np.float64]) -> float:
        """Return the error of unknowns (3 K,)."""
        off = unknowns - self.target
        return float(off @ self.gram @ off)


class Fit(NamedTuple):
    """A fitted frame, as the transform coder takes it."""

    frame: Quadratic
    reference_source: int
    """Slot of the reference source."""
    skip: bool = False
    """Skip mode: the reference source is shown unmodified. Such frames form runs of their own, all levels 0."""


class CodedFrame(NamedTuple):
    """A transform-coded frame as decoded, from which others may be predicted."""

    coordinates: NDArray[np.float64]
    """(3 K,): in the coordinates of the reference source (space.py)."""
    reference_source: int
    """Slot of the reference source."""
    regions: tuple[int | None, ...]
    """Slots of the sources that the regions show; None: the reference source."""


def cumulative_counts(probabilities: NDArray[np.float64]) -> NDArray[np.uint32]:
    """Return the cumulative counts (rows, symbols + 1), 0 to 2**PRECISION, of tables (rows, symbols), for the browser's
    decoder and to count bits: exactly those of constriction's `Categorical(row, perfect=False)`, which gives every
    symbol a count of 1 and divides the rest by probability, in this order of operations."""
    symbols = probabilities.shape[1]
    sums = np.cumsum(probabilities, axis=1)
    before = np.concatenate([np.zeros_like(sums[:, :1]), sums[:, :-1]], axis=1)
    scale = ((1 << PRECISION) - symbols) / sums[:, -1:]
    left = (before * scale).astype(np.uint32) + np.arange(symbols, dtype=np.uint32)
    return np.concatenate([left, np.full_like(left[:, :1], 1 << PRECISION)], axis=1)
