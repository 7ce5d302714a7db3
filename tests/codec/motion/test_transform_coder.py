"""Transform coder: bit-exact round trips, independent messages, and FormatError for invalid bytes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iwcodec.codec.errors import FormatError
from iwcodec.codec.motion.transform_coder import (
    SCALES,
    TransformCoder,
    dct_matrix,
    inverse_transform,
    scale_of,
    step_of,
    used_frequencies,
)
from iwcodec.codec.motion.transform_tables import load_transform_tables
from iwcodec.codec.motion.types import MAX_LEVEL

CODER = TransformCoder(load_transform_tables())
GOLDEN = bytes.fromhex(
    "9f2f61e883948b58dce6b564c45b81cc446f195b4abe13ed6ad08574f82d26df502415fb3ea5679610fb2d12433e809a"
    "a0542603aaa42e1840e671dd08f1e772ccec99c01b4b55874c2b3b563a6507778479ec95442aa2573a9e61aecc4d0bc6"
    "8af2e9ab97be2fef"
)


def falling(frames: int, coordinates: int, seed: int, size: float = 4.0) -> np.ndarray:
    """Levels that decrease with frequency and coordinate."""
    rng = np.random.default_rng(seed)
    shape = 1 / (1 + np.arange(frames)[:, None] + np.arange(coordinates) / 8)
    return np.rint(rng.normal(size=(frames, coordinates)) * shape * size).astype(np.int32)


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=4),
    st.integers(1, 64),
    st.integers(0, 99),
    st.sampled_from([0.0, 1.0, 9.0, 300.0]),
)
@settings(max_examples=40, deadline=None)
def test_round_trip(lengths: list[int], coordinates: int, seed: int, size: float) -> None:
    levels = [falling(length, coordinates, seed + n, size) for n, length in enumerate(lengths)]
    found = CODER.decode(CODER.encode(levels), lengths, coordinates)
    for given_levels, back in zip(levels, found, strict=True):
        np.testing.assert_array_equal(back, given_levels)


def test_golden_payload() -> None:
    """Existing files must stay readable with the shipped tables."""
    np.testing.assert_array_equal(CODER.decode(GOLDEN, [8], 60)[0], falling(8, 60, 5))
    assert CODER.encode([falling(8, 60, 5)]) == GOLDEN


def test_extreme_levels_are_escaped() -> None:
    levels = np.full((2, 60), MAX_LEVEL, np.int32)
    levels[1] *= -1
    np.testing.assert_array_equal(CODER.decode(CODER.encode([levels]), [2], 60)[0], levels)


def test_a_run_without_motion_costs_at_most_two_bytes() -> None:
    assert len(CODER.encode([np.zeros((50, 60), np.int32)])) <= 2


@pytest.mark.parametrize("lengths", [[], [0], [3, 0], [257], [200, 57]])
def test_invalid_run_lengths_are_refused(lengths: list[int]) -> None:
    with pytest.raises(FormatError):
        CODER.decode(b"abcd", lengths, 60)


def test_too_long_a_payload_is_refused() -> None:
    with pytest.raises(FormatError):
        CODER.decode(bytes(100_000), [1], 60)


def test_scales_and_steps_are_inverse() -> None:
    assert [scale_of(step_of(scale)) for scale in range(SCALES)] == list(range(SCALES))
    assert step_of(96) == 1.0
    assert step_of(112) == 2.0
    assert (scale_of(1e-9), scale_of(1e9)) == (0, SCALES - 1)


@pytest.mark.parametrize("count", [1, 2, 50, 256])
def test_the_dct_matrix_is_orthonormal(count: int) -> None:
    np.testing.assert_allclose(dct_matrix(count) @ dct_matrix(count).T, np.eye(count), atol=1e-12)


def test_the_inverse_transform_inverts_the_dct() -> None:
    levels = falling(12, 60, 3)
    np.testing.assert_allclose(dct_matrix(12) @ inverse_transform(levels, 96), levels, atol=1e-9)


def test_zero_frequencies_at_the_end_are_not_used() -> None:
    levels = np.zeros((6, 60), np.int32)
    assert used_frequencies(levels) == 0
    levels[3, 7] = -1
    assert used_frequencies(levels) == 4
