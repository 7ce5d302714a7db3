"""LPIPS with made-up weights in the published layout."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from iwcodec.benchmarks.metrics.learned.availability import ALEXNET, LPIPS, MetricUnavailableError
from iwcodec.benchmarks.metrics.learned.lpips import Lpips
from iwcodec.codec.media.types import Picture

ALEXNET_SHAPES = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}
"""Index of each convolution -> (outputs, inputs, side of its kernel)."""


def picture(seed: int, size: int = 64) -> Picture:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    alexnet = {}
    for number, (out, inside, side) in ALEXNET_SHAPES.items():
        alexnet[f"features.{number}.weight"] = torch.randn(out, inside, side, side) / (inside**0.5 * side)
        alexnet[f"features.{number}.bias"] = torch.zeros(out)
    torch.save(alexnet, path / ALEXNET)
    heads = {f"lin{i}.model.1.weight": torch.rand(1, s[0], 1, 1) for i, s in enumerate(ALEXNET_SHAPES.values())}
    torch.save(heads, path / LPIPS)
    return path


def test_lpips_is_a_distance(folder: Path) -> None:
    lpips = Lpips(folder)
    a, b = picture(0), picture(1)
    slightly = (a * 0.95).astype(np.uint8)
    assert lpips(a, a) == 0
    assert lpips(a, b) == pytest.approx(lpips(b, a))
    assert 0 < lpips(a, slightly) < lpips(a, b)


def test_missing_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IWCODEC_METRIC_WEIGHTS", str(tmp_path))
    with pytest.raises(MetricUnavailableError, match="alexnet"):
        Lpips()
