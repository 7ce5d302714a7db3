"""Static tables as the integers that constriction's range coder uses: for the browser's decoder, and to count bits."""

import numpy as np
from numpy.typing import NDArray

PRECISION = 24
"""Bits of constriction's probabilities."""


def cumulative_counts(probabilities: NDArray[np.float64]) -> NDArray[np.uint32]:
    """Return the cumulative counts (rows, symbols + 1), 0 to 2**PRECISION, of tables (rows, symbols): exactly those
    of constriction's `Categorical(row, perfect=False)`, which gives every symbol a count of 1 and divides the rest by
    probability, in this order of operations."""
    symbols = probabilities.shape[1]
    sums = np.cumsum(probabilities, axis=1)
    before = np.concatenate([np.zeros_like(sums[:, :1]), sums[:, :-1]], axis=1)
    scale = ((1 << PRECISION) - symbols) / sums[:, -1:]
    left = (before * scale).astype(np.uint32) + np.arange(symbols, dtype=np.uint32)
    return np.concatenate([left, np.full_like(left[:, :1], 1 << PRECISION)], axis=1)
