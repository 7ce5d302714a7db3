"""LPIPS: R. Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018.

Version 0.1 with its linear heads, on AlexNet (which its authors recommend for comparing pictures) or VGG-16.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from iwcodec.benchmarks.metrics.learned.backbones import Backbone, to_tensor
from iwcodec.codec.media.types import Picture

if TYPE_CHECKING:
    from torch import Tensor

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Normalisation of RGB values in -1..1, as published with the heads."""


class Lpips:
    """Perceptual distance of two pictures, 0 if equal, about 1 at most. `network` is alex or vgg.

    Pictures are compared at their own size. Raises MetricUnavailableError without PyTorch or the weights.
    """

    def __init__(self, network: str) -> None:
        self._backbone = Backbone(network)

    def features(self, picture: Picture) -> list[Tensor]:
        """Features (C, H, W) of each stage, of unit length over channels, of uint8 RGB (H, W, 3)."""
        import torch

        shift, scale = (torch.tensor(values).view(1, 3, 1, 1) for values in (SHIFT, SCALE))
        with torch.inference_mode():
            stages = self._backbone.features((to_tensor(picture) * 2 - 1 - shift) / scale)
            return [stage[0] / (stage[0].square().sum(0).sqrt() + 1e-10) for stage in stages]

    def distance(self, a: list[Tensor], b: list[Tensor]) -> float:
        """Distance of two pictures of the same size, given their features."""
        import torch

        with torch.inference_mode():
            stages = zip(a, b, self._backbone.heads, strict=True)
            return sum(float(((x - y).square() * head[0]).sum(0).mean()) for x, y, head in stages)
