"""What the motion coders share: quantiser, quadratic error of a frame, and a fitted frame."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Levels = NDArray[np.int32]

DEAD_ZONE = 0.7
"""Steps: a value this near to its last level keeps it, so that a still face costs nothing."""

ESCAPE_RANGE = 1 << 16
"""Values that an escaped level is coded as, modulo this, with equal probabilities."""
MAX_LEVEL = ESCAPE_RANGE // 2 - 1


@dataclass(frozen=True)
class Quantiser:
    """Keypoints (..., K, 3) <-> integer levels. Steps in [-1, 1] units for places, in 0..1 for strengths."""

    step_xy: float = 1 / 60
    step_strength: float = 1 / 15

    @property
    def steps(self) -> NDArray[np.float32]:
        return np.array([self.step_xy, self.step_xy, self.step_strength], np.float32)

    def quantise(self, keypoints: NDArray[np.float32], last: Levels | None = None) -> Levels:
        """Nearest levels; with the `last` frame's levels, a dead zone around them."""
        exact = keypoints / self.steps
        levels = np.clip(np.rint(exact), -MAX_LEVEL, MAX_LEVEL).astype(np.int32)
        if last is None:
            return levels
        return np.where(np.abs(exact - last) < DEAD_ZONE, last, levels).astype(np.int32)

    def quantise_track(self, keypoints: NDArray[np.float32]) -> Levels:
        """Consecutive frames (n, K, 3), each with the dead zone of the one before."""
        out: list[Levels] = []
        for frame in keypoints:
            out.append(self.quantise(frame, out[-1] if out else None))
        return np.stack(out)

    def dequantise(self, levels: Levels) -> NDArray[np.float32]:
        """Places clipped to [-1, 1], strengths to [0, 1]."""
        values = levels.astype(np.float32) * self.steps
        low, high = np.array([-1, -1, 0], np.float32), np.ones(3, np.float32)
        return np.asarray(np.clip(values, low, high), np.float32)


@dataclass(frozen=True)
class Quadratic:
    """Error (x - target) gram (x - target) of unknowns x: all x of the keypoints, all y, all strengths. It counts as a
    share of what error there is."""

    target: NDArray[np.float64]  # (3 K,)
    gram: NDArray[np.float64]  # (3 K, 3 K), positive definite

    def of(self, unknowns: NDArray[np.float64]) -> float:
        """Of unknowns (3 K,)."""
        off = unknowns - self.target
        return float(off @ self.gram @ off)


class Fit(NamedTuple):
    """What is wanted of a frame."""

    frame: Quadratic
    """With what errors of it cost, which is nothing where it is shown as it came."""
    reference_source: int
    """The slot of the source that leads."""
    still: bool = False
    """Whether that source is shown as it lies: these frames are runs by themselves, in which nothing moves."""
