"""Exported graphs produce the pictures of PyTorch."""

from pathlib import Path

import numpy as np
import pytest

from iwcodec.models.runtime.onnx import OnnxRuntime
from iwcodec.models.runtime.torch import TorchRuntime
from iwcodec.models.runtime.types import MAX_ACTIVE
from support.models.tiny_networks import block_pictures


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("count", range(1, MAX_ACTIVE + 1))
def test_graphs_accept_any_number_of_sources(exported_models: Path, count: int, size: int) -> None:
    runtimes = (TorchRuntime(f"tiny-{size}", "cpu", exported_models), OnnxRuntime(f"tiny-{size}", 1, exported_models))
    results = []
    for runtime in runtimes:
        sources = [runtime.prepare(p) for p in block_pictures(count, size)]
        keypoints = runtime.detect(block_pictures(count, size)[-1])
        results.append([runtime.reconstruct(keypoints, sources, suppression).astype(int) for suppression in (0.0, 2.0)])
    assert results[0][0].shape == (size, size, 3)
    for expected, actual in zip(*results, strict=True):
        assert np.abs(expected - actual).mean() < 0.1
    assert np.abs(results[0][0] - results[0][1]).mean() > 0.5  # the suppression has an effect here
