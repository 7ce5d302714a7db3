"""Levels of the transform coder, each chosen where its error and its bits cost least together.

A fit (refinement.py) knows what a wrong keypoint costs. In the order in which levels are coded, what the error of one
does to the picture those after it of the same frequency make up for as far as they can, for their targets move with it
(Babai's nearest plane, with a price on bits; motion_rdo.py does the same frame by frame). That takes errors to cost
the same in all frames. Then each level is looked at again, a step up, a step down and 0, by what it does to every
frame.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.bitstream.packets import Run
from iwcodec.codec.motion.predictive_rdo import SURE
from iwcodec.codec.motion.transform_coder import TransformCoder, cosines, step_of, used_frequencies
from iwcodec.codec.motion.transform_tables import REACH, activity_class, base_rows
from iwcodec.codec.motion.types import MAX_LEVEL, Fit, Levels, Quadratic

ERROR_PER_BIT = 0.01
"""What a bit is worth, in squared steps. At finer steps and dearer bits as many of them lose more; at coarser steps and
cheaper bits no less."""
LOOKS, DEARER = 2, 1.5
"""How often levels are looked at again, and the price of a bit then: what it wins is worth as much as finer steps. Over
six val clips 7 % fewer bits for the same error, in a fiftieth of the clip's time; counting what a level does to the
bits of those coded after it brings nothing more, in twice the time."""
STIRRED = 0.35
"""Steps: a level of 0 that would move by less is not looked at."""
SILENT = 0.3
"""Steps: a frequency of which no coordinate has more is left out unseen."""
FREE = 1e-3
"""Share of the dearest frame's metric: frames with less, as those that are shown as they came, cost no bits."""
RAW_BITS = 16


@dataclass(frozen=True)
class Message:
    """The motion of a few frames, ready to be packed."""

    levels: tuple[Levels, ...]
    runs: tuple[Run, ...]
    payload: bytes


class Chooser:
    """Quantises messages, each by itself."""

    def __init__(self, coder: TransformCoder, scale: int) -> None:
        self._coder, self._step = coder, step_of(scale)
        with np.errstate(divide="ignore"):
            self._bits = (-np.log2(coder.tables.probabilities)).tolist()

    def message(self, frames: Sequence[Fit]) -> Message:
        """Frames in the coordinates of the sources that lead (motion_space.py)."""
        groups = itertools.groupby(frames, key=lambda fit: (fit.reference_source, fit.still))
        frames_of = [(slot, [fit.frame for fit in group]) for (slot, _), group in groups]
        levels = tuple(self._run(group) for _, group in frames_of)
        runs = tuple(Run(slot, len(group)) for slot, group in frames_of)
        return Message(levels, runs, self._coder.encode(levels))

    def _run(self, frames: Sequence[Quadratic]) -> Levels:
        """Levels of consecutive frames that one source leads."""
        levels = np.zeros((len(frames), len(frames[0].target)), np.int32)
        if not any(frame.gram.any() for frame in frames):
            return levels
        factor, sharpness = making_up(np.mean([frame.gram for frame in frames], axis=0))
        targets = cosines(len(frames)) @ bridged(frames)
        bases = base_rows(*targets.shape)
        nothing = [0] * (targets.shape[1] + 3)
        last, before = nothing, nothing
        for frequency, (target, base) in enumerate(zip(targets, bases.tolist(), strict=True)):
            own = [0] * len(nothing)
            if np.abs(target).max() >= SILENT * self._step:
                levels[frequency] = self._chosen(target, factor, sharpness, base, own, last, before)
            last, before = own, last
        return self._again(levels, frames)

    def _again(self, levels: Levels, frames: Sequence[Quadratic]) -> Levels:
        """Coordinate descent on error and bits of all frames together."""
        left = _Left(levels, frames, self._step)
        bases, price = base_rows(*levels.shape).tolist(), DEARER * ERROR_PER_BIT * self._step**2
        used = min(used_frequencies(levels) + 1, len(levels))
        nothing = [0] * (levels.shape[1] + 3)
        for _ in range(LOOKS):
            known, changed = [nothing, nothing], False
            for frequency in range(used):
                row, known = levels[frequency], [*known[-2:], [0, 0, *np.abs(levels[frequency]).tolist(), 0]]
                for i in left.stirred(frequency, row):
                    level, own = int(row[i]), known[-1]
                    bits = self._bits[bases[frequency][i] + activity_class(own, known[-2], known[-3], i)]
                    costs = {
                        tried: left.change(frequency, i, tried - level) + price * _bits_of(bits, tried)
                        for tried in (level, level - 1, level + 1, 0)
                        if abs(tried) <= MAX_LEVEL
                    }
                    best = min(costs, key=lambda tried: costs[tried])
                    if best != level:
                        left.take(frequency, i, best - level)
                        row[i], own[i + 2], changed = best, abs(best), True
            if not changed:
                break
        return levels

    def _chosen(
        self,
        target: NDArray[np.float64],
        factor: NDArray[np.float64],
        sharpness: list[float],
        bases: list[int],
        own: list[int],
        last: list[int],
        before: list[int],
    ) -> list[int]:
        """Levels of one frequency; `own`, `last` and `before` as activity_class takes them, the first filled here."""
        target, step, price, found = target.copy(), self._step, ERROR_PER_BIT * self._step**2, []
        for i, (base, sharp) in enumerate(zip(bases, sharpness, strict=True)):
            bits = self._bits[base + activity_class(own, last, before, i)]
            wanted = float(target[i])
            near = max(-MAX_LEVEL, min(MAX_LEVEL, round(wanted / step)))
            level, missed, least = 0, wanted / sharp, math.inf
            for tried in {0, near, near - (near > 0) + (near < 0)}:
                miss = (wanted - tried * step) / sharp
                cost = miss * miss + price * _bits_of(bits, tried)
                if cost < least:
                    level, missed, least = tried, miss, cost
            found.append(level)
            own[i + 2] = abs(level)
            target[i + 1 :] -= missed * factor[i, i + 1 :]
        return found


class _Left:
    """What is left of the targets, and how the error changes with a level."""

    def __init__(self, levels: Levels, frames: Sequence[Quadratic], step: float) -> None:
        waves, grams = cosines(len(frames)), np.array([frame.gram for frame in frames])
        off = bridged(frames) - waves.T @ (levels * step)
        self._waves = waves * step
        self._pull = np.einsum("tij,tj->it", grams, off)
        """(3 K, n): half of how the error of each frame falls with each coordinate."""
        self._columns = np.ascontiguousarray(grams.transpose(2, 1, 0))  # (3 K, 3 K, n)
        self._curve = np.square(self._waves) @ np.einsum("tii->ti", grams)

    def stirred(self, frequency: int, levels: NDArray[np.int32]) -> list[int]:
        """Coordinates whose level is not 0, or might not be."""
        moves = np.abs(self._pull @ self._waves[frequency]) > STIRRED * self._curve[frequency]
        return [int(i) for i in np.flatnonzero(moves | (levels != 0))]

    def change(self, frequency: int, i: int, by: int) -> float:
        """Of the error, where a level changes so."""
        return by * (by * float(self._curve[frequency, i]) - 2 * float(self._pull[i] @ self._waves[frequency]))

    def take(self, frequency: int, i: int, by: int) -> None:
        self._pull -= by * self._waves[frequency] * self._columns[i]


def _bits_of(bits: list[float], level: int) -> float:
    """In a row of the tables."""
    return bits[level + REACH] if abs(level) <= REACH else bits[-1] + RAW_BITS


def making_up(gram: NDArray[np.float64]) -> tuple[NDArray[np.float64], list[float]]:
    """Row i of the factor: how the targets that follow move with an error of coordinate i; and its diagonal: an error
    costs the square of its quotient by that."""
    ridge = SURE * gram.trace() / len(gram) * np.eye(len(gram))
    backwards = np.linalg.cholesky((gram + ridge)[::-1, ::-1])
    factor = np.linalg.inv(backwards[::-1, ::-1])
    return factor, factor.diagonal().tolist()


def bridged(frames: Sequence[Quadratic]) -> NDArray[np.float64]:
    """The targets (n, 3 K); those of frames that cost next to nothing lie between the others'."""
    targets = np.array([frame.target for frame in frames])
    worth = np.array([frame.gram.trace() for frame in frames])
    count = np.arange(len(frames))
    dear = count[worth > FREE * worth.max()]
    return np.stack([np.interp(count, dear, column[dear]) for column in targets.T], axis=1)
