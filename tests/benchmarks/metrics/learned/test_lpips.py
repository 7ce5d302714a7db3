"""LPIPS against its published values, and by hand-made pictures.

`tests/golden/lpips_*.png` are the example pictures of its repository, which gives 0.722 and 0.138 for AlexNet. The
values for VGG-16 were computed with the repository's own code.
"""

from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from iwcodec.benchmarks.metrics.learned.availability import MetricUnavailableError
from iwcodec.benchmarks.metrics.learned.lpips import Lpips
from iwcodec.codec.media.types import Picture
from support.metrics.pictures import example, texture
from support.metrics.small_backbones import use_small_backbones


def distance(metric: Lpips, a: Picture, b: Picture) -> float:
    return metric.distance(metric.features(a), metric.features(b))


def published(network: str) -> Lpips:
    try:
        return Lpips(network)
    except MetricUnavailableError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(("network", "far", "near"), [("alex", 0.7219, 0.1376), ("vgg", 0.5686, 0.4217)])
def test_published_values(network: str, far: float, near: float) -> None:
    metric = published(network)
    reference = example("ref")
    assert distance(metric, reference, example("p0")) == pytest.approx(far, abs=2e-4)
    assert distance(metric, reference, example("p1")) == pytest.approx(near, abs=2e-4)
    blurred = [distance(metric, reference, cv2.GaussianBlur(reference, (0, 0), s)) for s in (0.5, 1, 2, 4)]
    assert blurred == sorted(blurred)


@pytest.mark.parametrize("network", ["alex", "vgg"])
def test_lpips_is_a_distance(network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_small_backbones(tmp_path, monkeypatch)
    metric = Lpips(network)
    a, b = texture(64), np.ascontiguousarray(texture(64)[::-1])
    slightly = (a * 0.95).astype(np.uint8)
    assert distance(metric, a, a) == 0
    assert distance(metric, a, b) == pytest.approx(distance(metric, b, a))
    assert 0 < distance(metric, a, slightly) < distance(metric, a, b)
