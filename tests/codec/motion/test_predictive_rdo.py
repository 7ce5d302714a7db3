"""Rate-distortion optimised quantisation of single frames: bits are spent where they reduce the error."""

import numpy as np

from iwcodec.codec.motion.prediction import Predictor
from iwcodec.codec.motion.predictive_rdo import choose_levels
from iwcodec.codec.motion.types import Quadratic, Quantiser

K = 20
STEPS = Quantiser().steps
RNG = np.random.default_rng(0)
ZEROS = np.zeros((K, 3), np.int32)
ZERO_WEIGHTS = Predictor.zero(K).inter


def gram(seed: int = 0) -> np.ndarray:
    """A Gram matrix of correlated unknowns of very different weights."""
    rows = np.random.default_rng(seed).normal(size=(400, 3 * K)) * np.geomspace(0.05, 1, 3 * K)
    return rows.T @ rows + 0.05 * np.eye(3 * K)


def error_of(levels: np.ndarray, frame: Quadratic) -> float:
    return frame.of((levels * STEPS).T.reshape(-1))


def frame(seed: int = 0) -> Quadratic:
    return Quadratic(np.random.default_rng(seed).normal(size=3 * K) * 0.05, gram(seed))


def test_free_bits_give_less_error_than_rounding() -> None:
    for seed in range(5):
        target = frame(seed)
        rounded = np.rint(target.target.reshape(3, -1).T / STEPS).astype(np.int32)
        chosen = choose_levels(target, STEPS, ZEROS, ZEROS, ZERO_WEIGHTS, 0.0)
        assert error_of(chosen, target) < error_of(rounded, target)


def test_a_higher_price_gives_fewer_changes_and_more_error() -> None:
    target = frame()
    found = [choose_levels(target, STEPS, ZEROS, ZEROS, ZERO_WEIGHTS, price) for price in (0.0, 1e-4, 1e-2, 1e3)]
    changes = [np.count_nonzero(levels) for levels in found]
    errors = [error_of(levels, target) for levels in found]
    assert changes == sorted(changes, reverse=True)
    assert errors == sorted(errors)
    assert changes[-1] == 0


def test_the_predicted_level_is_free() -> None:
    weights = np.zeros((K, 3, 2 * K), np.int32)
    weights[:, :, K:] = (1 << 12) * np.eye(K, dtype=np.int32)[:, None, :]  # predicts the delta of the previous frame
    moved = RNG.integers(-3, 4, (K, 3)).astype(np.int32)
    chosen = choose_levels(frame(), STEPS, ZEROS, moved, weights, 1e3)
    np.testing.assert_array_equal(chosen, moved)
