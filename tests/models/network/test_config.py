"""Network configurations."""

import pytest

from iwcodec.models.network.config import LITE, LITE512, ModelConfig


def test_up_blocks_keep_the_attention_grid() -> None:
    assert (LITE512.size, LITE512.net_size, LITE512.side) == (512, LITE.size, LITE.side) == (512, 256, 64)


def test_round_trip_and_unknown_keys() -> None:
    assert ModelConfig.from_dict(LITE.to_dict()) == LITE
    with pytest.raises(ValueError, match="sise"):
        ModelConfig.from_dict({"name": "x", "sise": 3})
