"""Features of AlexNet and VGG-16, with small networks of the same layout."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from iwcodec.benchmarks.metrics.learned.availability import MetricUnavailableError
from iwcodec.benchmarks.metrics.learned.backbones import Backbone, to_tensor
from iwcodec.benchmarks.weights import ALEXNET
from support.metrics.pictures import texture
from support.metrics.small_backbones import CHANNELS, network, use_small_backbones


@pytest.mark.parametrize(("name", "sides"), [("alex", [15, 7, 3, 3, 3]), ("vgg", [64, 32, 16, 8, 4])])
def test_features_of_every_stage(name: str, sides: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_small_backbones(tmp_path, monkeypatch)
    stages = list(Backbone(name).features(to_tensor(texture(64))))
    assert [tuple(stage.shape) for stage in stages] == [(1, CHANNELS, side, side) for side in sides]
    assert all(stage.min() >= 0 and stage.max() > 0 for stage in stages)


def test_kernels_lie_as_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_small_backbones(tmp_path, monkeypatch)
    picture = texture(64)
    first = next(iter(Backbone("alex").features(to_tensor(picture))))
    layer = network(ALEXNET)["AlexNet_0"]["Conv_0"]
    patch = picture[4 * 3 - 2 : 4 * 3 + 9, 4 * 5 - 2 : 4 * 5 + 9] / 255  # stride 4, padding 2
    expected = np.maximum(np.einsum("yxi,yxio->o", patch, layer["kernel"]) + layer["bias"], 0)
    np.testing.assert_allclose(first[0, :, 3, 5], expected, atol=1e-5)


def test_missing_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IWCODEC_WEIGHTS", str(tmp_path))
    with pytest.raises(MetricUnavailableError, match=r"alexnet\.ckpt are missing.*iwcodec bench weights"):
        Backbone("alex")
