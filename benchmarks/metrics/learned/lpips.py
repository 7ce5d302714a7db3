"""LPIPS: R. Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018.

Version 0.1 on AlexNet, with the published weights (see `availability`). PyTorch is imported only when it is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from iwcodec.benchmarks.metrics.learned.availability import ALEXNET, LPIPS, load_weights
from iwcodec.codec.media.types import Picture

if TYPE_CHECKING:
    from torch import Tensor

_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Input normalisation of each RGB channel, as published with the weights."""
_LAYERS = ((0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1))
"""AlexNet's convolutions: index in torchvision's `features`, stride, padding."""


class Lpips:
    """Perceptual distance of two pictures, 0 if equal. Raises MetricUnavailableError without the weights."""

    def __init__(self, folder: Path | None = None) -> None:
        self._alexnet = load_weights(ALEXNET, folder)
        self._heads = [load_weights(LPIPS, folder)[f"lin{i}.model.1.weight"] for i in range(len(_LAYERS))]

    def __call__(self, original: Picture, decoded: Picture) -> float:
        import torch

        with torch.inference_mode():
            pairs = zip(self._features(original), self._features(decoded), self._heads, strict=True)
            return sum(float(torch.nn.functional.conv2d((a - b) ** 2, head).mean()) for a, b, head in pairs)

    def _features(self, picture: Picture) -> Iterator[Tensor]:
        """Activations after each of the five ReLUs, normalised to unit length over channels."""
        import torch
        from torch.nn import functional

        shift, scale = (torch.tensor(values).view(1, 3, 1, 1) for values in (_SHIFT, _SCALE))
        x = (to_tensor(picture) - shift) / scale
        for number, stride, padding in _LAYERS:
            if number in (3, 6):
                x = functional.max_pool2d(x, 3, 2)
            weight, bias = self._alexnet[f"features.{number}.weight"], self._alexnet[f"features.{number}.bias"]
            x = functional.relu(functional.conv2d(x, weight, bias, stride, padding))
            yield x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)


def to_tensor(picture: Picture) -> Tensor:
    """uint8 (H, W, 3) -> float (1, 3, H, W) in -1..1."""
    import torch

    return torch.from_numpy(np.array(picture))[None].permute(0, 3, 1, 2).float() / 127.5 - 1
