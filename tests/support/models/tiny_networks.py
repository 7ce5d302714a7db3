"""Small networks for the tests of the network, the runtimes and the export; needs PyTorch."""

from dataclasses import replace

import numpy as np
import torch

from iwcodec.models.network.network import ImplicitWarp


def with_up_block(network: ImplicitWarp) -> ImplicitWarp:
    """The same network for pictures twice as large, with an untrained up block."""
    larger = ImplicitWarp(replace(network.config, name="larger", size=2 * network.config.size, up_blocks=1)).eval()
    result = larger.load_state_dict(network.state_dict(), strict=False)
    assert not result.unexpected_keys
    assert all(name.startswith("decoder.up.") for name in result.missing_keys)
    return larger


def randomise(network: ImplicitWarp, std: float, *layers: str) -> None:
    """Give layers that start at zero random weights, so that they have an effect."""
    for name in layers:
        torch.nn.init.normal_(network.get_parameter(f"{name}.weight"), std=std)


def block_pictures(count: int, size: int = 64) -> list[np.ndarray]:
    """Pictures (size, size, 3) of 8x8 random blocks."""
    rng = np.random.default_rng(1)
    block = np.ones((size // 8, size // 8, 1), np.uint8)
    return [np.kron(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8), block) for _ in range(count)]


def smooth_pictures(count: int, size: int = 64) -> torch.Tensor:
    """Pictures (count, 3, size, size) of smooth noise."""
    noise = torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(3))
    return torch.nn.functional.interpolate(noise, size=(size, size), mode="bicubic").clamp(0, 1)
