"""Quantiser and quadratic error."""

import constriction
import numpy as np
import pytest

from iwcodec.codec.motion.predictive_tables import load_tables
from iwcodec.codec.motion.transform_tables import load_transform_tables
from iwcodec.codec.motion.types import PRECISION, QUANTISER_DEAD_ZONE, Quadratic, Quantiser, cumulative_counts


def test_quantiser_is_exact_to_half_a_step_and_clips() -> None:
    quantiser = Quantiser()
    keypoints = np.random.default_rng(0).uniform(-1, 1, (5, 20, 3)).astype(np.float32)
    keypoints[..., 2] = np.abs(keypoints[..., 2])
    back = quantiser.dequantise(quantiser.quantise(keypoints))
    assert (np.abs(back - keypoints) <= quantiser.steps / 2 + 1e-6).all()
    assert np.abs(quantiser.dequantise(np.full((20, 3), 9999, np.int32))).max() <= 1


def test_the_dead_zone_suppresses_jitter_but_not_motion() -> None:
    quantiser = Quantiser()
    level = np.full((20, 3), 10, np.int32)
    jitter = (level + 0.9 * QUANTISER_DEAD_ZONE).astype(np.float32) * quantiser.steps
    np.testing.assert_array_equal(quantiser.quantise(jitter, level), level)
    np.testing.assert_array_equal(quantiser.quantise(jitter + quantiser.steps, level), level + 2)


def test_a_round_trip_is_quantisation_without_dead_zone() -> None:
    quantiser = Quantiser()
    keypoints = np.random.default_rng(1).uniform(0, 1, (20, 3)).astype(np.float32)
    np.testing.assert_array_equal(quantiser.round_trip(keypoints), quantiser.dequantise(quantiser.quantise(keypoints)))


def test_the_quadratic_error_is_zero_at_the_target() -> None:
    error = Quadratic(np.array([1.0, -2.0, 0.5]), np.diag([1.0, 2.0, 3.0]))
    assert error.of(error.target) == 0
    assert error.of(np.array([2.0, -2.0, -0.5])) == 4


@pytest.mark.parametrize("probabilities", [load_transform_tables().probabilities, load_tables().probabilities])
def test_each_symbol_begins_where_constriction_says(probabilities: np.ndarray) -> None:
    model = constriction.stream.model.Categorical(perfect=False)
    counts = cumulative_counts(probabilities)
    assert (counts[:, 0] == 0).all()
    assert (counts[:, -1] == 1 << PRECISION).all()
    rows = np.random.default_rng(0).choice(len(counts), 20, replace=False)
    for row in rows:
        for symbol in range(1, counts.shape[1] - 1):
            first = int(counts[row, symbol])
            assert decoded_at(first, model, probabilities[row]) == symbol
            assert decoded_at(first - 1, model, probabilities[row]) == symbol - 1


def decoded_at(quantile: int, model: constriction.stream.model.Categorical, row: np.ndarray) -> int:
    """The symbol of a message whose first 24 bits are `quantile`, exactly."""
    point = quantile * ((1 << 40) - 1)
    words = np.array([point >> 32, point & 0xFFFF_FFFF, 0, 0], np.uint32)
    return int(constriction.stream.queue.RangeDecoder(words).decode(model, row[None])[0])
