"""Static tables of the transform coder."""

import numpy as np
import pytest

from iwcodec.codec.motion.transform_coder import TransformCoder
from iwcodec.codec.motion.transform_tables import (
    ACTIVITIES,
    REACH,
    ROWS,
    SYMBOLS,
    activity_class,
    base_rows,
    load_transform_tables,
    make_tables,
    rows_of,
    smoothed,
    symbols_of,
)

RNG = np.random.default_rng(0)


def test_shipped_tables_have_no_holes():
    tables = load_transform_tables()
    assert tables.probabilities.shape == (ROWS, SYMBOLS)
    assert tables.probabilities.min() > 0
    np.testing.assert_allclose(tables.probabilities.sum(1), 1)
    assert tables.directions.shape == (60, 60)


def test_rows_and_symbols_stay_in_range():
    wild = RNG.integers(-32_767, 32_768, (40, 60)).astype(np.int32)
    for levels in (wild, np.zeros_like(wild), wild // 5000):
        for length in (40, 256):
            rows = rows_of(levels, length)
            assert 0 <= rows.min() <= rows.max() < ROWS
            assert 0 <= symbols_of(levels).min() <= symbols_of(levels).max() < SYMBOLS


def test_encoder_and_decoder_see_the_same_rows():
    """The encoder computes all rows of a run at once, the decoder one level's after the other."""
    levels = RNG.integers(-4, 5, (6, 60)).astype(np.int32)
    together, bases = rows_of(levels, 6), base_rows(6, 60)
    sizes = [[0, 0, *map(abs, row), 0] for row in levels.tolist()]
    last = before = [0] * 63
    for frequency, own in enumerate(sizes):
        for i in range(60):
            known = [*own[: i + 2], *[0] * (61 - i)]
            assert bases[frequency, i] + activity_class(known, last, before, i) == together[frequency, i]
        last, before = own, last


def test_rare_rows_lean_on_the_others_and_no_side_is_preferred():
    counts = np.zeros((ROWS, SYMBOLS))
    counts[0, REACH + 2] = 1000
    found = smoothed(counts)
    assert found.min() >= 1
    shares = found / found.sum(1, keepdims=True)
    other_coordinate, other_activity = shares[ACTIVITIES], shares[1]
    assert other_coordinate[REACH + 2] == pytest.approx(0.5, abs=0.1)
    assert other_activity[REACH + 2] < 0.2
    np.testing.assert_allclose(found[:, :-1], found[:, -2::-1], atol=1)


def test_tables_made_from_levels_code_them_better():
    levels = (RNG.normal(size=(40, 60)) * 6).round().astype(np.int32)
    counts = np.zeros((ROWS, SYMBOLS))
    np.add.at(counts, (rows_of(levels, 40), symbols_of(levels)), 1)
    shipped = load_transform_tables()
    own = make_tables(smoothed(counts), shipped.directions.astype(np.float32))
    sizes = [len(TransformCoder(tables).encode([levels])) for tables in (own, shipped)]
    assert sizes[0] < sizes[1]
    assert own.id != shipped.id
