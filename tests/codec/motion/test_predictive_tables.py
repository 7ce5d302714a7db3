import numpy as np

from iwcodec.codec.motion.predictive_tables import (
    CONTEXTS,
    SYMBOLS,
    causal_classes,
    frame_contexts,
    load_tables,
    rows_of,
    symbols_of,
)


def test_shipped_tables_have_no_holes() -> None:
    tables = load_tables()
    assert tables.probabilities.shape == (CONTEXTS, SYMBOLS)
    assert tables.probabilities.min() > 0
    np.testing.assert_allclose(tables.probabilities.sum(1), 1)


def test_contexts_and_symbols_stay_in_range() -> None:
    large = np.random.default_rng(0).integers(-9999, 9999, (20, 3)).astype(np.int32)
    for last in (large, np.zeros_like(large), large // 1000, None):
        for residuals in (large, np.zeros_like(large)):
            rows = rows_of(frame_contexts(last, 20), residuals)
            assert 0 <= rows.min() <= rows.max() < CONTEXTS
            assert 0 <= symbols_of(residuals).min() <= symbols_of(residuals).max() < SYMBOLS


def test_encoder_and_decoder_use_the_same_rows() -> None:
    """The encoder computes all rows of a frame at once, the decoder those of one keypoint at a time."""
    residuals = np.random.default_rng(1).integers(-4, 5, (20, 3)).astype(np.int32)
    base = frame_contexts(residuals[::-1], 20)
    together = rows_of(base, residuals)
    for k in range(20):
        known = np.abs(residuals[:k])
        classes = causal_classes(int(known[:, :2].sum()), int(known[:, 2].sum()), k)
        np.testing.assert_array_equal(base[k] + classes, together[k])
