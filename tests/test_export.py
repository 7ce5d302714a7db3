"""Exported graphs give what torch gives."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from iwcodec.models.config import TINY
from iwcodec.models.export import TOLERANCE, export, load_checkpoint
from iwcodec.models.network import ImplicitWarp
from iwcodec.models.runtime import MAX_ACTIVE, OnnxRuntime, read_info
from iwcodec.models.runtime_torch import TorchRuntime


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(6)
    network = ImplicitWarp(replace(TINY, top_k=6)).eval()
    torch.nn.init.normal_(network.decoder.out.weight, std=0.3)
    torch.nn.init.normal_(network.decoder.nudge.weight, std=0.3)
    folder = tmp_path_factory.mktemp("weights")
    differences = export(network, "tiny-64", folder)
    assert max(differences.values()) <= TOLERANCE
    return folder


def pictures(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [
        np.kron(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8)) for _ in range(count)
    ]


@pytest.mark.parametrize("count", range(1, MAX_ACTIVE + 1))
def test_one_graph_serves_any_number_of_sources(folder: Path, count: int):
    runtimes = (TorchRuntime("tiny-64", "cpu", folder), OnnxRuntime("tiny-64", 1, folder))
    rebuilt = []
    for runtime in runtimes:
        sources = [runtime.prepare(p) for p in pictures(count)]
        rebuilt.append(runtime.reconstruct(runtime.detect(pictures(count)[-1]), sources).astype(int))
    assert np.abs(rebuilt[0] - rebuilt[1]).mean() < 0.1


def test_info_identifies_the_weights(folder: Path):
    info = read_info("tiny-64", folder)
    assert (info.keypoints, info.size, len(info.digest)) == (20, 64, 8)
    with pytest.raises(FileNotFoundError, match="tiny-64"):
        read_info("lite-9000", folder)


def test_too_many_sources_are_refused(folder: Path):
    runtime = OnnxRuntime("tiny-64", 1, folder)
    source = runtime.prepare(pictures(1)[0])
    with pytest.raises(ValueError, match="sources"):
        runtime.reconstruct(source.keypoints, [source] * (MAX_ACTIVE + 1))


def test_a_checkpoint_exports_its_averaged_weights(tmp_path: Path):
    network, average = ImplicitWarp(TINY), ImplicitWarp(TINY)
    torch.save(
        {"model": TINY.to_dict(), "network": network.state_dict(), "average": average.state_dict()},
        tmp_path / "c.pt",
    )
    loaded = load_checkpoint(tmp_path / "c.pt", size=128)
    assert loaded.config.size == 128
    torch.testing.assert_close(loaded.extra_keys, average.extra_keys)
