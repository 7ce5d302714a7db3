"""Levels of the transform coder, each chosen where its error and its bits cost least together.

A fit (refinement.py) knows what a wrong keypoint costs. In the order in which levels are coded, what the error of one
does to the picture those after it of the same frequency make up for as far as they can, for their targets move with it
(Babai's nearest plane, with a price on bits; motion_rdo.py does the same frame by frame).
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .motion_rdo import SURE, Quadratic
from .motion_transform import LARGEST_LEVEL, Levels, TransformCoder, cosines, step_of
from .packets import Run
from .transform_tables import REACH, activity_class, base_rows

ERROR_PER_BIT = 0.01
"""What a bit is worth, in squared steps. At finer steps and dearer bits as many of them lose more; at coarser steps and
cheaper bits no less."""
SILENT = 0.3
"""Steps: a frequency of which no coordinate has more is left out unseen."""
FREE = 1e-3
"""Share of the dearest frame's metric: frames with less, as those that are shown as they came, cost no bits."""
RAW_BITS = 16
Fit = tuple[Quadratic, int]
"""What is wanted of a frame with what errors of it cost, which is nothing where it is shown as it came; and the slot of
the source that leads."""


@dataclass(frozen=True)
class Message:
    """The motion of a few frames, ready to be packed."""

    levels: tuple[Levels, ...]
    led: tuple[Run, ...]
    payload: bytes


class Chooser:
    """Quantises messages, each by itself."""

    def __init__(self, coder: TransformCoder, scale: int) -> None:
        self._coder, self._step = coder, step_of(scale)
        with np.errstate(divide="ignore"):
            self._bits = (-np.log2(coder.tables.probabilities)).tolist()

    def message(self, frames: Sequence[Fit]) -> Message:
        """Frames in the coordinates of the sources that lead (motion_space.py)."""
        runs = [
            (slot, [frame for frame, _ in group]) for slot, group in itertools.groupby(frames, key=lambda fit: fit[1])
        ]
        levels = tuple(self._run(group) for _, group in runs)
        led = tuple(Run(slot, len(group)) for slot, group in runs)
        return Message(levels, led, self._coder.encode(levels))

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
            near = max(-LARGEST_LEVEL, min(LARGEST_LEVEL, round(wanted / step)))
            level, missed, least = 0, wanted / sharp, math.inf
            for tried in {0, near, near - (near > 0) + (near < 0)}:
                miss = (wanted - tried * step) / sharp
                cost = miss * miss + price * (bits[tried + REACH] if abs(tried) <= REACH else bits[-1] + RAW_BITS)
                if cost < least:
                    level, missed, least = tried, miss, cost
            found.append(level)
            own[i + 2] = abs(level)
            target[i + 1 :] -= missed * factor[i, i + 1 :]
        return found


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
