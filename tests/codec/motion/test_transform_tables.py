"""Static tables of the transform coder."""

import numpy as np

from iwcodec.codec.motion.transform_tables import (
    ROWS,
    SYMBOLS,
    activity_class,
    base_rows,
    load_transform_tables,
    rows_of,
    symbols_of,
)

RNG = np.random.default_rng(0)


def test_shipped_tables_have_no_holes() -> None:
    tables = load_transform_tables()
    assert tables.probabilities.shape == (ROWS, SYMBOLS)
    assert tables.probabilities.min() > 0
    np.testing.assert_allclose(tables.probabilities.sum(1), 1)
    assert tables.directions.shape == (60, 60)


def test_rows_and_symbols_stay_in_range() -> None:
    large = RNG.integers(-32_767, 32_768, (40, 60)).astype(np.int32)
    for levels in (large, np.zeros_like(large), large // 5000):
        for length in (40, 256):
            rows = rows_of(levels, length)
            assert 0 <= rows.min() <= rows.max() < ROWS
            assert 0 <= symbols_of(levels).min() <= symbols_of(levels).max() < SYMBOLS


def test_encoder_and_decoder_use_the_same_rows() -> None:
    """The encoder computes all rows of a run at once, the decoder those of one level at a time."""
    levels = RNG.integers(-4, 5, (6, 60)).astype(np.int32)
    together, bases = rows_of(levels, 6), base_rows(6, 60)
    sizes = [[0, 0, *map(abs, row), 0] for row in levels.tolist()]
    last = before = [0] * 63
    for frequency, own in enumerate(sizes):
        for i in range(60):
            known = [*own[: i + 2], *[0] * (61 - i)]
            assert bases[frequency, i] + activity_class(known, last, before, i) == together[frequency, i]
        last, before = own, last
