"""Rate-distortion optimised quantisation of whole messages, for the transform coder.

The keypoint fit (fit/keypoint_fit.py) gives the error of every frame as a quadratic form. A first pass chooses levels
in coding order, each for the lowest sum of error and priced bits; later coordinates of the same frequency compensate
for the error as far as they can (Babai's nearest plane, nearest_plane.py). This pass takes the quadratic form to be the
same in all frames. Coordinate descent follows: each level is tried one step up, one step down and at 0, with its exact
effect on the error of every frame.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.bitstream.packets import Run
from iwcodec.codec.motion.nearest_plane import nearest_plane_factor
from iwcodec.codec.motion.transform_coder import TransformCoder, dct_matrix, step_of, used_frequencies
from iwcodec.codec.motion.transform_tables import REACH, activity_class, base_rows
from iwcodec.codec.motion.types import MAX_LEVEL, PRECISION, Fit, Levels, Quadratic, cumulative_counts

ERROR_PER_BIT = 0.01
"""Price of a bit in the first pass, in squared steps. Finer steps with a higher price lose more at the same rate;
coarser steps with a lower price lose no less."""
DESCENT_PASSES, DESCENT_PRICE = 2, 1.5
"""Most passes of the coordinate descent, and the price of a bit there relative to ERROR_PER_BIT. Over six val clips it
saves 7 % of the bits at equal error, in a fiftieth of the clip's duration. Counting a level's effect on the bits of
later levels saves nothing more and takes twice the time."""
MIN_DESCENT_MOVE = 0.35
"""Steps: the descent leaves a level of 0 alone if its optimum is nearer to 0 than this."""
MIN_COEFFICIENT = 0.3
"""Steps: the first pass leaves out a frequency none of whose coefficients is larger."""
MIN_METRIC_SHARE = 1e-3
"""Frames whose Gram matrix has a smaller trace than this share of the message's largest take interpolated targets, and
thus cost no bits: frames that are shown as unmodified sources."""
RAW_BITS = 16
"""Bits of an escaped level after the escape symbol."""


@dataclass(frozen=True)
class Message:
    """The coded motion of consecutive frames."""

    levels: tuple[Levels, ...]
    """(n, 3 K) of each run of n frames."""
    runs: tuple[Run, ...]
    payload: bytes


class RateDistortionQuantiser:
    """Quantises messages independently of each other."""

    def __init__(self, coder: TransformCoder, scale: int) -> None:
        """`scale`: of the quantisation step (transform_coder.step_of)."""
        self.scale = scale
        self._coder, self._step = coder, step_of(scale)
        counts = np.diff(cumulative_counts(coder.tables.probabilities).astype(np.int64))
        self._bits = (PRECISION - np.log2(counts)).tolist()  # of the range coder's counts, which browsers have, too

    def message(self, frames: Sequence[Fit]) -> Message:
        """Quantise and code consecutive frames, given in the coordinates of their reference sources (space.py)."""
        groups = itertools.groupby(frames, key=lambda fit: (fit.reference_source, fit.skip))
        frames_of = [(slot, [fit.frame for fit in group]) for (slot, _), group in groups]
        levels = tuple(self._run(group) for _, group in frames_of)
        runs = tuple(Run(slot, len(group)) for slot, group in frames_of)
        return Message(levels, runs, self._coder.encode(levels))

    def _run(self, frames: Sequence[Quadratic]) -> Levels:
        """Return the levels (n, 3 K) of a run of n frames."""
        levels = np.zeros((len(frames), len(frames[0].target)), np.int32)
        if not any(frame.gram.any() for frame in frames):
            return levels
        factor = nearest_plane_factor(np.mean([frame.gram for frame in frames], axis=0))
        diagonal = factor.diagonal().tolist()
        targets = dct_matrix(len(frames)) @ interpolated_targets(frames)
        bases = base_rows(*targets.shape)
        zeros = [0] * (targets.shape[1] + 3)
        last, before = zeros, zeros
        for frequency, (target, base) in enumerate(zip(targets, bases.tolist(), strict=True)):
            own = [0] * len(zeros)
            if np.abs(target).max() >= MIN_COEFFICIENT * self._step:
                levels[frequency] = self._first_pass(target, factor, diagonal, base, own, last, before)
            last, before = own, last
        return self._descend(levels, frames)

    def _first_pass(
        self,
        target: NDArray[np.float64],
        factor: NDArray[np.float64],
        diagonal: list[float],
        bases: list[int],
        own: list[int],
        last: list[int],
        before: list[int],
    ) -> list[int]:
        """Return the levels of one frequency with targets (3 K,). Fills `own` with their magnitudes; `own`, `last` and
        `before` as in `activity_class`."""
        target, step, price, levels = target.copy(), self._step, ERROR_PER_BIT * self._step**2, []
        for i, (base, scale) in enumerate(zip(bases, diagonal, strict=True)):
            bits = self._bits[base + activity_class(own, last, before, i)]
            value = float(target[i])
            nearest = max(-MAX_LEVEL, min(MAX_LEVEL, round(value / step)))
            level, missed, least_cost = 0, value / scale, math.inf
            for candidate in {0, nearest, nearest - (nearest > 0) + (nearest < 0)}:
                miss = (value - candidate * step) / scale
                cost = miss * miss + price * _bits_of(bits, candidate)
                if cost < least_cost:
                    level, missed, least_cost = candidate, miss, cost
            levels.append(level)
            own[i + 2] = abs(level)
            target[i + 1 :] -= missed * factor[i, i + 1 :]
        return levels

    def _descend(self, levels: Levels, frames: Sequence[Quadratic]) -> Levels:
        """Improve the levels (n, 3 K) of a run in place by coordinate descent on the error and bits of all frames."""
        error = _RunError(levels, frames, self._step)
        bases, price = base_rows(*levels.shape).tolist(), DESCENT_PRICE * ERROR_PER_BIT * self._step**2
        used = min(used_frequencies(levels) + 1, len(levels))
        zeros = [0] * (levels.shape[1] + 3)
        for _ in range(DESCENT_PASSES):
            last, before, changed = zeros, zeros, False
            for frequency in range(used):
                row = levels[frequency]
                own = [0, 0, *np.abs(row).tolist(), 0]
                for i in error.candidates(frequency, row):
                    level = int(row[i])
                    bits = self._bits[bases[frequency][i] + activity_class(own, last, before, i)]
                    slope, curvature = error.derivatives(frequency, i)
                    costs = {
                        candidate: (candidate - level) * ((candidate - level) * curvature - 2 * slope)
                        + price * _bits_of(bits, candidate)
                        for candidate in (level, level - 1, level + 1, 0)
                        if abs(candidate) <= MAX_LEVEL
                    }
                    best = min(costs, key=lambda candidate: costs[candidate])
                    if best != level:
                        error.update(frequency, i, best - level)
                        row[i], own[i + 2], changed = best, abs(best), True
                last, before = own, last
            if not changed:
                break
        return levels


class _RunError:
    """How the summed error of a run's frames changes with single levels."""

    def __init__(self, levels: Levels, frames: Sequence[Quadratic], step: float) -> None:
        waves, grams = dct_matrix(len(frames)), np.array([frame.gram for frame in frames])
        residual = interpolated_targets(frames) - waves.T @ (levels * step)
        self._waves = waves * step
        self._gradient = np.einsum("tij,tj->it", grams, residual)
        """(3 K, n): minus half the derivative of each frame's error by each coordinate."""
        self._columns = np.ascontiguousarray(grams.transpose(2, 1, 0))  # (3 K, 3 K, n)
        self._curvature = np.square(self._waves) @ np.einsum("tii->ti", grams)
        """(n, 3 K): half the second derivative of the error by each level."""

    def candidates(self, frequency: int, levels: Levels) -> list[int]:
        """Return the coordinates of a frequency, with levels (3 K,), whose level is not 0 or has its optimum further
        from 0 than MIN_DESCENT_MOVE."""
        far = np.abs(self._gradient @ self._waves[frequency]) > MIN_DESCENT_MOVE * self._curvature[frequency]
        return [int(i) for i in np.flatnonzero(far | (levels != 0))]

    def derivatives(self, frequency: int, i: int) -> tuple[float, float]:
        """Return minus half the first derivative of the error by a level, and half the second."""
        return float(self._gradient[i] @ self._waves[frequency]), float(self._curvature[frequency, i])

    def update(self, frequency: int, i: int, by: int) -> None:
        """Apply a change of a level."""
        self._gradient -= by * self._waves[frequency] * self._columns[i]


def _bits_of(bits: list[float], level: int) -> float:
    """Return the bits of a level, given the bits of each symbol of its table."""
    return bits[level + REACH] if abs(level) <= REACH else bits[-1] + RAW_BITS


def interpolated_targets(frames: Sequence[Quadratic]) -> NDArray[np.float64]:
    """Return the targets (n, 3 K) of frames; those below MIN_METRIC_SHARE are interpolated linearly over time."""
    targets = np.array([frame.target for frame in frames])
    traces = np.array([frame.gram.trace() for frame in frames])
    count = np.arange(len(frames))
    kept = count[traces > MIN_METRIC_SHARE * traces.max()]
    return np.stack([np.interp(count, kept, column[kept]) for column in targets.T], axis=1)
