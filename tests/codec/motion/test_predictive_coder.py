"""Predictive coder: bit-exact round trips, independent messages, and FormatError for invalid bytes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iwcodec.codec.errors import FormatError
from iwcodec.codec.motion.predictive_coder import PredictiveCoder
from iwcodec.codec.motion.predictive_tables import load_tables
from iwcodec.codec.motion.types import MAX_LEVEL

CODER = PredictiveCoder(load_tables())


def walk(frames: int, keypoints: int, seed: int, stride: int = 2) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.cumsum(rng.integers(-stride, stride + 1, (frames, keypoints, 3)), 0).astype(np.int32)


@given(st.integers(1, 60), st.integers(1, 64), st.integers(0, 99), st.sampled_from([0, 1, 5, 300]), st.booleans())
@settings(max_examples=40, deadline=None)
def test_round_trip(frames: int, keypoints: int, seed: int, stride: int, referred: bool) -> None:
    levels = walk(frames, keypoints, seed, stride)
    reference = walk(1, keypoints, seed + 1)[0] if referred else None
    payload = CODER.encode(levels, reference)
    np.testing.assert_array_equal(CODER.decode(payload, frames, keypoints, reference), levels)


def test_extreme_levels_are_escaped() -> None:
    levels = np.full((2, 20, 3), MAX_LEVEL // 2, np.int32)
    levels[1] *= -1
    np.testing.assert_array_equal(CODER.decode(CODER.encode(levels, None), 2, 20, None), levels)


def test_a_face_at_rest_costs_at_most_two_bytes_per_frame() -> None:
    resting = np.repeat(walk(1, 20, 3), 50, axis=0)
    first = CODER.encode(resting[:1], None)
    assert len(CODER.encode(resting, None)) - len(first) < 50 * 2


def test_the_wrong_reference_gives_other_levels() -> None:
    levels, reference = walk(3, 20, 1), walk(1, 20, 2)[0]
    payload = CODER.encode(levels, reference)
    assert not np.array_equal(CODER.decode(payload, 3, 20, reference + 1), levels)


@pytest.mark.parametrize(("count", "keypoints"), [(0, 20), (257, 20), (1, 0), (1, 65)])
def test_invalid_counts_are_refused(count: int, keypoints: int) -> None:
    with pytest.raises(FormatError):
        CODER.decode(b"abcd", count, keypoints, None)


def test_too_long_a_payload_is_refused() -> None:
    with pytest.raises(FormatError):
        CODER.decode(bytes(100_000), 1, 20, None)
