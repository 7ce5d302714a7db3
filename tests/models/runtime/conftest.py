"""Fixtures for the tests of the CUDA runtime."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from iwcodec.models.runtime.cuda import CudaRuntime


@pytest.fixture(scope="session")
def untrained_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with an untrained network whose attention and decoder have an effect: `tiny`, and `tiny-128` with an up
    block."""
    torch = pytest.importorskip("torch")
    from iwcodec.models.export.export import save_weights
    from iwcodec.models.network.config import TINY
    from iwcodec.models.network.network import ImplicitWarp
    from support.models.tiny_networks import randomise, with_up_block

    torch.manual_seed(4)
    network = ImplicitWarp(TINY)
    randomise(network, 0.2, "key_net.parts", "decoder.nudge", "decoder.out")
    larger = with_up_block(network)
    randomise(larger, 0.1, "decoder.up.0.out")
    target = tmp_path_factory.mktemp("weights")
    save_weights(network, target / "tiny.safetensors")
    save_weights(larger, target / "tiny-128.safetensors", "tiny")
    return target


@pytest.fixture
def runtime(untrained_models: Path) -> "CudaRuntime":
    """The CUDA runtime's code on the CPU."""
    from iwcodec.models.runtime.cuda import CudaRuntime

    return CudaRuntime("tiny", "cpu", untrained_models)
