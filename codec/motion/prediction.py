"""Prediction of keypoint levels, in integers alone.

A face moves as a whole: once the first keypoints of a frame are known, so is most of the others' motion. How far a
keypoint has moved since the frame before is predicted linearly from how far those already coded have moved, and from
how far all had moved in the frame before that. A first frame is predicted in the same way from the tables' means.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHIFT = 12
"""Weights are in units of 1 / 2**SHIFT."""
RIDGE = 30.0
"""Squared levels added to the diagonal of the fit: weights of values that hardly ever move stay small."""
INTRA_RIDGE = 300.0


@dataclass(frozen=True)
class Predictor:
    inter: NDArray[np.int32]
    """(K, 3, 2 K): weights of this frame's moves, nought from the keypoint itself on, and of the last frame's."""
    intra: NDArray[np.int32]
    """(K, 3, 2 K): the same for deviations from the means; the second half is nought."""

    @staticmethod
    def zero(keypoints: int) -> "Predictor":
        nothing = np.zeros((keypoints, 3, 2 * keypoints), np.int32)
        return Predictor(nothing, nothing)


def predict(weights: NDArray[np.int32], moved: NDArray[np.int32], last: NDArray[np.int32]) -> NDArray[np.int32]:
    """Weights (n, 3, 2 K) of n keypoints, moves (K, 3) of this frame and the last -> predicted moves (n, 3)."""
    return rounded(predictions(weights, moved, last))


def predictions(weights: NDArray[np.int32], moved: NDArray[np.int32], last: NDArray[np.int32]) -> NDArray[np.int64]:
    """The same in units of 1 / 2**SHIFT: to these, `weights` times further moves can be added."""
    features = np.concatenate([moved, last]).T.astype(np.int64)  # (3, 2 K)
    return np.asarray(np.einsum("naf,af->na", weights, features), np.int64)


def rounded(predicted: NDArray[np.int64]) -> NDArray[np.int32]:
    return ((predicted + (1 << SHIFT - 1)) >> SHIFT).astype(np.int32)


def fit(moves: NDArray[np.int32], last: NDArray[np.int32], ridge: float) -> NDArray[np.int32]:
    """Moves (n, K, 3) of n frames and of those before them -> weights (K, 3, 2 K)."""
    count = moves.shape[1]
    weights = np.zeros((count, 3, 2 * count))
    for axis in range(3):
        features = np.concatenate([moves[..., axis], last[..., axis]], axis=1).astype(np.float64)
        for k in range(count):
            known = [*range(k), *range(count, 2 * count)]
            x = features[:, known]
            gram = x.T @ x + ridge * np.eye(len(known))
            weights[k, axis, known] = np.linalg.solve(gram, x.T @ features[:, k])
    return np.clip((weights * (1 << SHIFT)).round(), -(1 << 15), (1 << 15) - 1).astype(np.int32)


def fit_predictor(tracks: list[NDArray[np.int32]], means: NDArray[np.int32]) -> Predictor:
    """Least squares over quantised tracks (n, K, 3)."""
    moves = [np.diff(track, axis=0) for track in tracks]
    now = np.concatenate([m[1:] for m in moves])
    before = np.concatenate([m[:-1] for m in moves])
    starts = np.concatenate([track[::5] for track in tracks]) - means
    return Predictor(fit(now, before, RIDGE), fit(starts, np.zeros_like(starts), INTRA_RIDGE))
