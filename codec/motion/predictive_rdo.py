"""Rate-distortion optimised quantisation of single frames, for the predictive coder.

The normal equations of the keypoint fit (fit/keypoint_fit.py) give the error of the warped picture as a quadratic form
of the unknowns, whose weights differ widely. Levels are chosen in coding order: each is either the predicted level or
the nearest one, whichever has the lower sum of error and priced bits. Unknowns coded later compensate for the error as
far as they can (Babai's nearest plane, with a price on every level but the predicted one).
"""

import math

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.motion.nearest_plane import nearest_plane_factor
from iwcodec.codec.motion.prediction import predict_scaled, round_scaled
from iwcodec.codec.motion.types import Levels, Quadratic, Quantiser

ERROR_PER_BIT = 1.2e-3
"""Price of a bit, as a fraction of the frame's squared error, at the default steps. It grows in proportion to the
steps: a higher price alone makes keypoints lag permanently, coarser steps alone spend bits on invisible changes."""
FIRST_BITS, BITS_PER_DOUBLING = 2.5, 1.3
"""Approximate bits of a residual of magnitude 1 beyond those of residual 0, and of each doubling of the magnitude."""


def error_per_bit(quantiser: Quantiser) -> float:
    """Return the price of a bit, as a fraction of the frame's squared error, at the quantiser's steps."""
    return ERROR_PER_BIT * quantiser.step_xy / Quantiser.step_xy


def choose_levels(
    error: Quadratic,
    steps: NDArray[np.float32],
    last: Levels,
    last_delta: Levels,
    weights: NDArray[np.int32],
    price: float,
) -> Levels:
    """Return the levels (K, 3) of a frame.

    `error`: of the frame's unknowns. `steps`: (3,). `last`: levels (K, 3) of the previous frame. `last_delta`: their
    change (K, 3) from the frame before that. `weights`: inter weights (K, 3, 2 K) of the predictor. `price`: error per
    bit.
    """
    count = len(last)
    order = np.arange(3 * count).reshape(3, count).T.reshape(-1)  # coding order: keypoint by keypoint
    factor = nearest_plane_factor(error.gram, order)
    target, missed = error.target[order], np.zeros(len(order))
    levels, delta = np.empty_like(last), np.zeros_like(last)
    weights_of = weights[:, :, :count].transpose(2, 0, 1).astype(np.int64)  # by the keypoint that predicts
    predicted = predict_scaled(weights, delta, last_delta)
    for k in range(count):
        expected = (last[k] + round_scaled(predicted[k])).tolist()
        first, after = 3 * k, 3 * k + 3
        targets = (target[first:after] - missed[:first] @ factor[:first, first:after]).tolist()
        within = factor[first:after, first:after].tolist()
        for axis, step in enumerate(steps.tolist()):  # plain floats: this runs 60 times a frame
            level, diagonal = expected[axis], within[axis][axis]
            miss = (targets[axis] - level * step) / diagonal
            nearest = round(targets[axis] / step)
            if nearest != level:
                nearest_miss = (targets[axis] - nearest * step) / diagonal
                if nearest_miss**2 + price * approximate_bits(nearest - level) < miss**2:
                    level, miss = nearest, nearest_miss
            levels[k, axis], missed[first + axis] = level, miss
            for later in range(axis + 1, 3):
                targets[later] -= miss * within[axis][later]
        delta[k] = levels[k] - last[k]
        predicted += weights_of[k] * delta[k]
    return levels


def approximate_bits(residual: int) -> float:
    """Return the approximate bits of a residual other than 0, beyond those of residual 0."""
    return FIRST_BITS + BITS_PER_DOUBLING * math.log2(abs(residual))
