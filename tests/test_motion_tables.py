import numpy as np
from iwcodec.motion import MotionCoder
from iwcodec.motion_tables import CONTEXTS, SYMBOLS, contexts, load_tables, symbols_of, train_tables


def test_shipped_tables_have_no_holes():
    tables = load_tables()
    assert tables.probabilities.shape == (CONTEXTS, SYMBOLS)
    assert tables.probabilities.min() > 0
    np.testing.assert_allclose(tables.probabilities.sum(1), 1)


def test_contexts_and_symbols_stay_in_range():
    wild = np.random.default_rng(0).integers(-9999, 9999, (20, 3)).astype(np.int32)
    for residuals in (wild, np.zeros_like(wild), wild // 1000):
        assert 0 <= contexts(residuals).min() <= contexts(residuals).max() < CONTEXTS
        assert 0 <= symbols_of(residuals).min() <= symbols_of(residuals).max() < SYMBOLS


def test_tables_made_from_a_track_code_it_better():
    rng = np.random.default_rng(1)
    track = np.cumsum(rng.integers(-6, 7, (400, 20, 3)), 0).astype(np.int32)
    own = train_tables([track])
    sizes = [len(MotionCoder(tables).encode(track[50:90], track[49])) for tables in (own, load_tables())]
    assert sizes[0] < sizes[1]
    assert own.id != load_tables().id
