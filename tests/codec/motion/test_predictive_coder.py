"""Motion: bit-exact round trips, every message by itself, bounded whatever the bytes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iwcodec.codec.errors import FormatError
from iwcodec.codec.motion.predictive_coder import MotionCoder
from iwcodec.codec.motion.predictive_tables import load_tables
from iwcodec.codec.motion.types import DEAD_ZONE, MAX_LEVEL, Quantiser

CODER = MotionCoder(load_tables())


def walk(frames: int, keypoints: int, seed: int, stride: int = 2) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.cumsum(rng.integers(-stride, stride + 1, (frames, keypoints, 3)), 0).astype(np.int32)


@given(st.integers(1, 60), st.integers(1, 64), st.integers(0, 99), st.sampled_from([0, 1, 5, 300]), st.booleans())
@settings(max_examples=40, deadline=None)
def test_round_trip(frames: int, keypoints: int, seed: int, stride: int, referred: bool):
    levels = walk(frames, keypoints, seed, stride)
    reference = walk(1, keypoints, seed + 1)[0] if referred else None
    payload = CODER.encode(levels, reference)
    np.testing.assert_array_equal(CODER.decode(payload, frames, keypoints, reference), levels)


def test_extreme_levels_escape():
    levels = np.full((2, 20, 3), MAX_LEVEL // 2, np.int32)
    levels[1] *= -1
    np.testing.assert_array_equal(CODER.decode(CODER.encode(levels, None), 2, 20, None), levels)


def test_a_still_face_costs_almost_nothing():
    still = np.repeat(walk(1, 20, 3), 50, axis=0)
    moving = CODER.encode(still[:1], None)
    assert len(CODER.encode(still, None)) - len(moving) < 50 * 2


def test_the_wrong_reference_gives_other_levels():
    levels, reference = walk(3, 20, 1), walk(1, 20, 2)[0]
    payload = CODER.encode(levels, reference)
    assert not np.array_equal(CODER.decode(payload, 3, 20, reference + 1), levels)


@pytest.mark.parametrize(("count", "keypoints"), [(0, 20), (257, 20), (1, 0), (1, 65)])
def test_impossible_counts(count: int, keypoints: int):
    with pytest.raises(FormatError):
        CODER.decode(b"abcd", count, keypoints, None)


def test_a_payload_too_long():
    with pytest.raises(FormatError):
        CODER.decode(bytes(100_000), 1, 20, None)


def test_quantiser_is_exact_to_half_a_step_and_clips():
    quantiser = Quantiser()
    keypoints = np.random.default_rng(0).uniform(-1, 1, (5, 20, 3)).astype(np.float32)
    keypoints[..., 2] = np.abs(keypoints[..., 2])
    back = quantiser.dequantise(quantiser.quantise(keypoints))
    assert (np.abs(back - keypoints) <= quantiser.steps / 2 + 1e-6).all()
    assert np.abs(quantiser.dequantise(np.full((20, 3), 9999, np.int32))).max() <= 1


def test_the_dead_zone_holds_jitter_and_lets_motion_through():
    quantiser = Quantiser()
    level = np.full((20, 3), 10, np.int32)
    jitter = (level + 0.9 * DEAD_ZONE).astype(np.float32) * quantiser.steps
    np.testing.assert_array_equal(quantiser.quantise(jitter, level), level)
    np.testing.assert_array_equal(quantiser.quantise(jitter + quantiser.steps, level), level + 2)
