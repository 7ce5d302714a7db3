"""Quantiser and quadratic error."""

import numpy as np

from iwcodec.codec.motion.types import QUANTISER_DEAD_ZONE, Quadratic, Quantiser


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
