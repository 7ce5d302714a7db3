"""Rate-distortion optimised quantisation, frame by frame, of keypoints whose errors are worth very different amounts.

A fit (refinement.py) knows what a wrong keypoint costs: its normal equations give the error of the moved cells as a
quadratic form of the unknowns. Levels are chosen in the order in which they are coded, each where its error and its
bits cost least together; what an error does to the cells, the unknowns that come after it make up for as far as they
can, for their targets move with it (Babai's nearest plane, with a price on every level but the predicted one).
"""

import math

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.motion.prediction import predictions, rounded
from iwcodec.codec.motion.types import Levels, Quadratic, Quantiser

ERROR_PER_BIT = 1.2e-3
"""Share of a frame's squared error that one bit is worth at the usual steps. It grows with them: dearer bits alone
leave keypoints behind for good, and coarser steps alone spend bits on what nobody sees."""
SURE = 1e-5
"""Of the mean error of an unknown, what each has at least: that of some may be nothing but rounding."""
FIRST_BITS, FURTHER_BITS = 2.5, 1.3
"""What a level takes more than the predicted one, roughly, and for each doubling of the miss."""


def error_per_bit(quantiser: Quantiser) -> float:
    return ERROR_PER_BIT * quantiser.step_xy / Quantiser.step_xy


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
    target, missed = error.target[order], np.zeros(len(order))
    levels, moved = np.empty_like(last), np.zeros_like(last)
    of_each = weights[:, :, :count].transpose(2, 0, 1).astype(np.int64)  # what a level of each adds to all
    predicted = predictions(weights, moved, last_moved)
    for k in range(count):
        expected = (last[k] + rounded(predicted[k])).tolist()
        first, after = 3 * k, 3 * k + 3
        wanted = (target[first:after] - missed[:first] @ factor[:first, first:after]).tolist()
        within = factor[first:after, first:after].tolist()
        for axis, step in enumerate(steps.tolist()):  # plain numbers: this runs 60 times a frame
            level, sharpness = expected[axis], within[axis][axis]
            lacks = (wanted[axis] - level * step) / sharpness
            nearest = round(wanted[axis] / step)
            if nearest != level:
                least = (wanted[axis] - nearest * step) / sharpness
                if least**2 + price * bits(nearest - level) < lacks**2:
                    level, lacks = nearest, least
            levels[k, axis], missed[first + axis] = level, lacks
            for later in range(axis + 1, 3):
                wanted[later] -= lacks * within[axis][later]
        moved[k] = levels[k] - last[k]
        predicted += of_each[k] * moved[k]
    return levels


def bits(miss: int) -> float:
    """Rough cost of a miss of the prediction, other than 0, in bits more than none."""
    return FIRST_BITS + FURTHER_BITS * math.log2(abs(miss))
