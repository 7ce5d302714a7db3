"""Rate-distortion optimised quantisation of keypoints whose errors are worth very different amounts.

A fit (refinement.py) knows what a wrong keypoint costs: its normal equations give the error of the moved cells as a
quadratic form of the unknowns. Levels are chosen in the order in which they are coded, each where its error and its
bits cost least together; what an error does to the cells, the unknowns that come after it make up for as far as they
can, for their targets move with it (Babai's nearest plane, with a price on every level but the predicted one).
"""

import itertools
import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .motion import Levels, MotionCoder, Quantiser, coded_frames, filled_in
from .motion_prediction import predict

ERROR_PER_BIT = 3e-3
"""Share of a frame's squared error that one bit is worth at the usual steps. It grows with them: dearer bits alone
leave keypoints behind for good, and coarser steps alone spend bits on what nobody sees."""
FIRST_PRICE = 0.25
"""Of a bit in the first frame of a message: those after it inherit what it gets right."""
DEARER = 1.6
STRIDES = (1, 2, 3, 4, 6)
"""Of so many frames one is coded."""
ASTRAY = 0.15
"""What a frame is taken to lose, as the logarithm of its error, where another source leads than it was fitted from."""
MOST_WRONG = 8.0
"""Times what is left anyway: the quadratic form knows nothing of errors that are larger."""
MOST_TRIES = 12
SURE = 1e-5
"""Of the mean error of an unknown, what each has at least: that of some may be nothing but rounding."""
FIRST_BITS, FURTHER_BITS = 2.5, 1.3
"""What a level takes more than the predicted one, roughly, and for each doubling of the miss."""


@dataclass(frozen=True)
class Quadratic:
    """Error (x - target) gram (x - target) of unknowns x: all x of the keypoints, all y, all strengths. It counts as a
    share of what error there is."""

    target: NDArray[np.float64]  # (3 K,)
    gram: NDArray[np.float64]  # (3 K, 3 K), positive definite

    def of(self, keypoints: NDArray[np.float32]) -> float:
        """Of keypoints (K, 3)."""
        off = keypoints.T.reshape(-1) - self.target
        return float(off @ self.gram @ off)


@dataclass(frozen=True)
class Message:
    """The motion of a few frames, ready to be packed."""

    levels: Levels  # (m, K, 3), of the coded frames
    stride: int
    leaders: tuple[int, ...]
    """Slot of the source that leads in each of the frames."""
    payload: bytes


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
    """Quantises messages, each by itself."""

    def __init__(self, coder: MotionCoder, quantiser: Quantiser) -> None:
        self._coder, self._quantiser = coder, quantiser

    def message(self, frames: Sequence[Quadratic], leaders: Sequence[int], most_bytes: float = math.inf) -> Message:
        """The frames of one message, in at most so many bytes where any trade gets there; as many of them coded as pays
        in error and bits together."""
        trade = error_per_bit(self._quantiser)
        for _ in range(MOST_TRIES):
            message = self._best(frames, leaders, trade)
            if len(message.payload) <= most_bytes:
                break
            trade *= DEARER
        return message

    def _best(self, frames: Sequence[Quadratic], leaders: Sequence[int], trade: float) -> Message:
        best, least = None, math.inf
        for stride in STRIDES:
            found = self._strided(frames, leaders, stride, trade)
            cost = self._error(found, frames, leaders) + trade * 8 * len(found.payload)
            if cost > least:
                break
            best, least = found, cost
        assert best is not None
        return best

    def _strided(self, frames: Sequence[Quadratic], leaders: Sequence[int], stride: int, trade: float) -> Message:
        coded = coded_frames(len(frames), stride)
        levels = self._levels([frames[number] for number in coded], trade)
        return Message(levels, stride, led_between(leaders, coded), self._coder.encode(levels, None))

    def _error(self, message: Message, frames: Sequence[Quadratic], leaders: Sequence[int]) -> float:
        coded = coded_frames(len(frames), message.stride)
        rows = filled_in(self._quantiser.dequantise(message.levels), coded, message.leaders)
        return sum(
            math.log1p(frame.of(row)) if wanted == leader else ASTRAY
            for frame, row, wanted, leader in zip(frames, rows, leaders, message.leaders, strict=True)
        )

    def _levels(self, frames: Sequence[Quadratic], trade: float) -> Levels:
        tables, steps = self._coder.tables, self._quantiser.steps
        out: list[Levels] = []
        last, moved = tables.means, np.zeros_like(tables.means)
        weights, price = tables.predictor.intra, FIRST_PRICE * trade
        for frame in frames:
            levels = choose_levels(frame, steps, last, moved, weights, price)
            moved = levels - last if out else np.zeros_like(levels)
            # Decibels count: what a bit must save grows with the error, which is much like that of the frame before.
            wrong = frame.of(self._quantiser.dequantise(levels))
            last, weights, price = levels, tables.predictor.inter, trade * (1 + min(wrong, MOST_WRONG))
            out.append(levels)
        return np.stack(out)


def error_per_bit(quantiser: Quantiser) -> float:
    return ERROR_PER_BIT * quantiser.step_xy / Quantiser.step_xy


def led_between(leaders: Sequence[int], coded: Sequence[int]) -> tuple[int, ...]:
    """What leads in each frame, where those between coded frames follow the nearer one."""
    led = list(leaders)
    for a, b in itertools.pairwise(coded):
        led[a:b] = [leaders[a] if number - a <= b - number else leaders[b] for number in range(a, b)]
    return tuple(led)


def choose_levels(
    error: Quadratic,
    steps: NDArray[np.float32],
    last: Levels,
    last_moved: Levels,
    weights: NDArray[np.int32],
    price: float,
) -> Levels:
    """Levels (K, 3) of a frame; `last` are those of the frame before, `last_moved` how far they had moved, `weights`
    the predictor's, `price` the error that a bit is worth."""
    count = len(last)
    order = np.arange(3 * count).reshape(3, count).T.reshape(-1)  # as they are coded: keypoint by keypoint
    # Row i of the factor: how the targets that follow move with an error of unknown i; its diagonal: what it costs.
    ridge = SURE * error.gram.trace() / len(order) * np.eye(len(order))
    backwards = np.linalg.cholesky((error.gram[np.ix_(order, order)] + ridge)[::-1, ::-1])
    factor = np.linalg.inv(backwards[::-1, ::-1])
    target, sharpness = error.target[order], factor.diagonal().tolist()
    levels, moved = np.empty_like(last), np.zeros_like(last)
    for k in range(count):
        expected = (last[k] + predict(weights[k : k + 1], moved, last_moved)[0]).tolist()
        for axis, step in enumerate(steps.tolist()):  # plain numbers: this runs 60 times a frame
            i = 3 * k + axis
            wanted = float(target[i])
            level, missed = expected[axis], (wanted - expected[axis] * step) / sharpness[i]
            nearest = round(wanted / step)
            if nearest != level:
                least = (wanted - nearest * step) / sharpness[i]
                if least**2 + price * bits(nearest - level) < missed**2:
                    level, missed = nearest, least
            levels[k, axis] = level
            target[i + 1 :] -= missed * factor[i, i + 1 :]
        moved[k] = levels[k] - last[k]
    return levels


def bits(miss: int) -> float:
    """Rough cost of a miss of the prediction, other than 0, in bits more than none."""
    return FIRST_BITS + FURTHER_BITS * math.log2(abs(miss))
