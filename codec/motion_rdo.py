"""Rate-distortion optimised quantisation of keypoints whose errors are worth very different amounts.

A fit (refinement.py) knows what a wrong keypoint costs: its normal equations give the error of the moved cells as a
quadratic form of the unknowns. Levels are chosen in the order in which they are coded, each where its error and its
bits cost least together; what an error does to the cells, the unknowns that come after it make up for as far as they
can, for their targets move with it (Babai's nearest plane, with a price on every level but the predicted one).
"""

import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .motion import Levels, MotionCoder, Quantiser
from .motion_prediction import Predictor, predict

ERROR_PER_BIT = 2e-4
"""Squared [-1, 1] units, summed over the fit's cells, that one bit is worth at the usual steps. It grows with their
square: dearer bits alone leave keypoints behind for good, and coarser steps alone spend bits on what nobody sees."""
DEARER = 1.6
MOST_TRIES = 12
FIRST_BITS, FURTHER_BITS = 2.5, 1.3
"""What a level takes more than the predicted one, roughly, and for each doubling of the miss."""


@dataclass(frozen=True)
class Quadratic:
    """Squared error (x - target) gram (x - target) of unknowns x: all x of the keypoints, all y, all strengths."""

    target: NDArray[np.float64]  # (3 K,)
    gram: NDArray[np.float64]  # (3 K, 3 K), positive definite


class Spool:
    """The fits of a whole clip, on disk: 15 KB a frame."""

    def __init__(self, frames: Iterable[Quadratic]) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # closed by __exit__
        self._unknowns = 0
        for frame in frames:
            self._unknowns = len(frame.target)
            self._file.write(np.concatenate([frame.target, frame.gram.reshape(-1)]).astype(np.float32).tobytes())
        self._file.flush()

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def messages(self, frames: int) -> Iterator[list[Quadratic]]:
        """All of them in order, so many at a time."""
        self._file.seek(0)
        width = 4 * self._unknowns * (self._unknowns + 1)
        while block := self._file.read(frames * width):
            rows = np.frombuffer(block, np.float32).reshape(-1, width // 4).astype(np.float64)
            count = self._unknowns
            yield [Quadratic(row[:count], row[count:].reshape(count, count)) for row in rows]


class MotionQuantiser:
    """Quantises the messages of one clip, in order."""

    def __init__(self, coder: MotionCoder, quantiser: Quantiser) -> None:
        self._coder, self._quantiser = coder, quantiser
        self._last: Levels | None = None
        self._last_moved: Levels | None = None

    def message(self, frames: Sequence[Quadratic], most_bytes: float) -> Levels:
        """Levels (n, K, 3) of the frames of one message, in at most so many bytes where any trade gets there."""
        trade = ERROR_PER_BIT * (self._quantiser.step_xy / Quantiser.step_xy) ** 2
        for _ in range(MOST_TRIES):
            levels = self._levels(frames, trade)
            if len(self._coder.encode(levels, None)) <= most_bytes:
                break
            trade *= DEARER
        moves = np.diff(levels[-2:], axis=0) if len(levels) > 1 else np.zeros_like(levels)
        self._last, self._last_moved = levels[-1], moves[0]
        return levels

    def _levels(self, frames: Sequence[Quadratic], error_per_bit: float) -> Levels:
        steps, predictor = self._quantiser.steps, self._coder.tables.predictor
        last, moved, out = self._last, self._last_moved, []
        for frame in frames:
            if last is None or moved is None:
                levels = self._quantiser.quantise(frame.target.reshape(3, -1).T.astype(np.float32))
                moved = np.zeros_like(levels)
            else:
                levels = choose_levels(frame, steps, last, moved, predictor, error_per_bit)
                moved = levels - last
            last = levels
            out.append(levels)
        return np.stack(out)


def choose_levels(
    error: Quadratic,
    steps: NDArray[np.float32],
    last: Levels,
    last_moved: Levels,
    predictor: Predictor,
    error_per_bit: float,
) -> Levels:
    """Levels (K, 3) of a frame; `last` are those of the frame before, `last_moved` how far they had moved."""
    count = len(last)
    order = np.arange(3 * count).reshape(3, count).T.reshape(-1)  # as they are coded: keypoint by keypoint
    # Row i of the factor: how the targets that follow move with an error of unknown i; its diagonal: what it costs.
    factor = np.linalg.cholesky(np.linalg.inv(error.gram[np.ix_(order, order)])).T
    target, sharpness = error.target[order], factor.diagonal().tolist()
    levels, moved = np.empty_like(last), np.zeros_like(last)
    for k in range(count):
        expected = (last[k] + predict(predictor.inter[k : k + 1], moved, last_moved)[0]).tolist()
        for axis, step in enumerate(steps.tolist()):  # plain numbers: this runs 60 times a frame
            i = 3 * k + axis
            wanted = float(target[i])
            level, missed = expected[axis], (wanted - expected[axis] * step) / sharpness[i]
            nearest = round(wanted / step)
            if nearest != level:
                least = (wanted - nearest * step) / sharpness[i]
                if least**2 + error_per_bit * bits(nearest - level) < missed**2:
                    level, missed = nearest, least
            levels[k, axis] = level
            target[i + 1 :] -= missed * factor[i, i + 1 :]
        moved[k] = levels[k] - last[k]
    return levels


def bits(miss: int) -> float:
    """Rough cost of a miss of the prediction, other than 0, in bits more than none."""
    return FIRST_BITS + FURTHER_BITS * math.log2(abs(miss))
