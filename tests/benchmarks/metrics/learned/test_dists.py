"""DISTS against its authors' code, and by hand-made pictures.

The values on `tests/golden/lpips_*.png` were computed with DISTS_pt.py of github.com/dingkeyan93/DISTS. The pair for
which it gives a score (images/r0.png and r1.png, 0.3347) gives the same here, but is too large to be part of the tests.
"""

from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from iwcodec.benchmarks.metrics.learned.availability import MetricUnavailableError
from iwcodec.benchmarks.metrics.learned.dists import Dists, l2_pool
from iwcodec.codec.media.types import Picture
from support.metrics.pictures import example, texture
from support.metrics.small_backbones import use_small_backbones


def distance(metric: Dists, a: Picture, b: Picture) -> float:
    return metric.distance(metric.features(a), metric.features(b))


def test_values_of_the_authors_code() -> None:
    try:
        metric = Dists()
    except MetricUnavailableError as error:
        pytest.skip(str(error))
    reference = example("ref")
    assert distance(metric, reference, example("p0")) == pytest.approx(0.38793, abs=2e-4)
    assert distance(metric, reference, example("p1")) == pytest.approx(0.22502, abs=2e-4)
    blurred = [distance(metric, reference, cv2.GaussianBlur(reference, (0, 0), s)) for s in (0.5, 1, 2, 4)]
    assert blurred == sorted(blurred)


def test_dists_is_a_distance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_small_backbones(tmp_path, monkeypatch)
    metric = Dists()
    a, b = texture(64), np.ascontiguousarray(texture(64)[::-1])
    slightly = (a * 0.95).astype(np.uint8)
    assert distance(metric, a, a) == 0
    assert distance(metric, a, b) == pytest.approx(distance(metric, b, a), rel=1e-4)
    assert 0 < distance(metric, a, slightly) < distance(metric, a, b)


def test_pooling_is_the_root_of_a_weighted_mean() -> None:
    x = torch.zeros(1, 2, 8, 8)
    x[0, 0], x[0, 1, 4, 4] = 3, 1
    pooled = l2_pool(x)
    assert pooled.shape == (1, 2, 4, 4)
    assert pooled[0, 0, 1:, 1:].numpy() == pytest.approx(3)
    assert float(pooled[0, 1, 2, 2]) == pytest.approx(0.5)
