"""Integer tables are exactly those that constriction decodes with."""

import constriction
import numpy as np
import pytest

from iwcodec.codec.motion.cumulative import PRECISION, cumulative_counts
from iwcodec.codec.motion.predictive_tables import load_tables
from iwcodec.codec.motion.transform_tables import load_transform_tables


@pytest.mark.parametrize("probabilities", [load_transform_tables().probabilities, load_tables().probabilities])
def test_each_symbol_begins_where_constriction_says(probabilities: np.ndarray) -> None:
    model = constriction.stream.model.Categorical(perfect=False)
    counts = cumulative_counts(probabilities)
    assert (counts[:, 0] == 0).all()
    assert (counts[:, -1] == 1 << PRECISION).all()
    rows = np.random.default_rng(0).choice(len(counts), 20, replace=False)
    for row in rows:
        for symbol in range(1, counts.shape[1] - 1):
            first = int(counts[row, symbol])
            assert decoded_at(first, model, probabilities[row]) == symbol
            assert decoded_at(first - 1, model, probabilities[row]) == symbol - 1


def decoded_at(quantile: int, model: constriction.stream.model.Categorical, row: np.ndarray) -> int:
    """The symbol of a message whose first 24 bits are `quantile`, exactly."""
    point = quantile * ((1 << 40) - 1)
    words = np.array([point >> 32, point & 0xFFFF_FFFF, 0, 0], np.uint32)
    return int(constriction.stream.queue.RangeDecoder(words).decode(model, row[None])[0])
