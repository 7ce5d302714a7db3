"""DISTS: K. Ding et al., "Image Quality Assessment: Unifying Structure and Texture Similarity", IEEE TPAMI 2022.

Compares means (texture) and covariances (structure) of the picture's channels and of VGG-16's features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from iwcodec.benchmarks.metrics.learned.backbones import Backbone, to_tensor
from iwcodec.benchmarks.weights import DISTS, weight_file
from iwcodec.codec.media.types import Picture

if TYPE_CHECKING:
    from torch import Tensor

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Normalisation of RGB values in 0..1 that VGG-16 was trained with."""
STABILITY = 1e-6
"""The paper's c1 and c2, which keep quotients of small numbers steady."""


class Dists:
    """Perceptual distance of two pictures, 0 if equal, about 1 at most.

    Pictures are compared at their own size. Raises MetricUnavailableError without PyTorch or the weights.
    """

    def __init__(self) -> None:
        self._backbone = Backbone("vgg")
        import torch

        weights = torch.load(weight_file(DISTS), map_location="cpu", weights_only=True)
        channels = [3, *(head.shape[1] for head in self._backbone.heads)]
        total = weights["alpha"].sum() + weights["beta"].sum()
        self._texture, self._structure = (
            [part.view(-1, 1, 1) for part in (weights[name].flatten() / total).split(channels)]
            for name in ("alpha", "beta")
        )

    def features(self, picture: Picture) -> list[Tensor]:
        """The picture's channels and VGG-16's features, (C, H, W) each, of uint8 RGB (H, W, 3)."""
        import torch

        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
        with torch.inference_mode():
            x = to_tensor(picture)
            return [x[0], *(stage[0] for stage in self._backbone.features((x - mean) / std, l2_pool))]

    def distance(self, a: list[Tensor], b: list[Tensor]) -> float:
        """Distance of two pictures of the same size, given their features."""
        import torch

        total = 0.0
        with torch.inference_mode():
            for x, y, texture, structure in zip(a, b, self._texture, self._structure, strict=True):
                x_mean, y_mean = _mean(x), _mean(y)
                x_rest, y_rest = x - x_mean, y - y_mean
                means = x_mean.square() + y_mean.square()
                variances = _mean(x_rest.square()) + _mean(y_rest.square())
                same_texture = (2 * x_mean * y_mean + STABILITY) / (means + STABILITY)
                same_structure = (2 * _mean(x_rest * y_rest) + STABILITY) / (variances + STABILITY)
                total += float((texture * (1 - same_texture) + structure * (1 - same_structure)).sum())
        return total


def l2_pool(x: Tensor) -> Tensor:
    """Halve the size: root of the squares' mean, weighted by a Hann window of 3x3."""
    import torch
    from torch.nn import functional

    row = torch.tensor([0.25, 0.5, 0.25])
    window = (row[:, None] * row).expand(x.shape[1], 1, 3, 3)
    return functional.conv2d(x.square(), window, stride=2, padding=1, groups=x.shape[1]).add(1e-12).sqrt()


def _mean(x: Tensor) -> Tensor:
    return x.mean((1, 2), keepdim=True)
