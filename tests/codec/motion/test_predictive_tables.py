import numpy as np

from iwcodec.codec.motion.predictive_coder import MotionCoder
from iwcodec.codec.motion.predictive_tables import (
    CONTEXTS,
    SYMBOLS,
    frame_contexts,
    load_tables,
    rows_of,
    so_far_class,
    symbols_of,
    train_tables,
)


def test_shipped_tables_have_no_holes():
    tables = load_tables()
    assert tables.probabilities.shape == (CONTEXTS, SYMBOLS)
    assert tables.probabilities.min() > 0
    np.testing.assert_allclose(tables.probabilities.sum(1), 1)


def test_contexts_and_symbols_stay_in_range():
    wild = np.random.default_rng(0).integers(-9999, 9999, (20, 3)).astype(np.int32)
    for last in (wild, np.zeros_like(wild), wild // 1000, None):
        for misses in (wild, np.zeros_like(wild)):
            rows = rows_of(frame_contexts(last, 20), misses)
            assert 0 <= rows.min() <= rows.max() < CONTEXTS
            assert 0 <= symbols_of(misses).min() <= symbols_of(misses).max() < SYMBOLS


def test_encoder_and_decoder_see_the_same_rows():
    """The encoder computes all rows of a frame at once, the decoder one keypoint's after the other."""
    misses = np.random.default_rng(1).integers(-4, 5, (20, 3)).astype(np.int32)
    base = frame_contexts(misses[::-1], 20)
    together = rows_of(base, misses)
    known = np.zeros(2, np.int64)
    for k in range(20):
        np.testing.assert_array_equal(base[k] + so_far_class(known, np.array(k)), together[k])
        known += np.abs(misses[k, :2]).sum(), np.abs(misses[k, 2])


def test_tables_made_from_a_track_code_it_better():
    rng = np.random.default_rng(1)
    track = np.cumsum(rng.integers(-6, 7, (400, 20, 3)), 0).astype(np.int32)
    own = train_tables([track])
    sizes = [len(MotionCoder(tables).encode(track[50:90], track[49])) for tables in (own, load_tables())]
    assert sizes[0] < sizes[1]
    assert own.id != load_tables().id
