"""Linear prediction of keypoint levels, in integer arithmetic only.

A face moves mostly as a whole: the motion of the first keypoints of a frame predicts that of the others. The delta of a
keypoint (its level minus that of the previous frame) is predicted linearly from the deltas of the keypoints already
coded in this frame and from the deltas of all keypoints in the previous frame. In an intra frame, deltas are deviations
from the mean levels of the tables.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHIFT = 12
"""Fixed-point precision: weights are multiples of 2**-SHIFT."""


@dataclass(frozen=True)
class Predictor:
    """Prediction weights for each keypoint and axis."""

    inter: NDArray[np.int32]
    """(K, 3, 2 K): weights of this frame's deltas (0 from the keypoint itself on), then of the previous frame's."""
    intra: NDArray[np.int32]
    """(K, 3, 2 K): the same for deviations from the means; the second half is 0."""

    @staticmethod
    def zero(keypoints: int) -> "Predictor":
        """Return a predictor that always predicts 0."""
        weights = np.zeros((keypoints, 3, 2 * keypoints), np.int32)
        return Predictor(weights, weights)


def predict(weights: NDArray[np.int32], delta: NDArray[np.int32], last_delta: NDArray[np.int32]) -> NDArray[np.int32]:
    """Predict deltas (n, 3) of n keypoints from their weights (n, 3, 2 K), the deltas (K, 3) of this frame, as far as
    they are known, and those of the previous frame (K, 3)."""
    return round_scaled(predict_scaled(weights, delta, last_delta))


def predict_scaled(
    weights: NDArray[np.int32], delta: NDArray[np.int32], last_delta: NDArray[np.int32]
) -> NDArray[np.int64]:
    """As `predict`, in multiples of 2**-SHIFT. Linear: `weights` times further deltas can be added to the result."""
    features = np.concatenate([delta, last_delta]).T.astype(np.int64)  # (3, 2 K)
    return np.asarray(np.einsum("naf,af->na", weights, features), np.int64)


def round_scaled(predicted: NDArray[np.int64]) -> NDArray[np.int32]:
    """Round multiples of 2**-SHIFT to the nearest integers, halves upwards."""
    return ((predicted + (1 << SHIFT - 1)) >> SHIFT).astype(np.int32)
