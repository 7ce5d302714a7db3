"""Patch discriminator of face-vid2vid (arXiv 2011.15126; originally pix2pixHD) with hinge and feature-matching losses.

The paper trains with the same adversarial losses.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class PatchDiscriminator(nn.Module):
    """Pictures (B, 3, H, W) -> patch scores (B, 1, h, w) and the features of every layer."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3, 32, 64, 128, 256]
        self.layers = nn.ModuleList(spectral_norm(nn.Conv2d(a, b, 4, 2, 1)) for a, b in itertools.pairwise(widths))
        self.score = spectral_norm(nn.Conv2d(widths[-1], 1, 3, 1, 1))

    def forward(self, picture: Tensor) -> tuple[Tensor, list[Tensor]]:
        x, features = picture * 2 - 1, []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            features.append(x)
        return self.score(x), features


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss on the patch scores of real and generated pictures."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def feature_matching_loss(real: list[Tensor], fake: list[Tensor]) -> Tensor:
    """Mean L1 distance between the features of real and generated pictures over all layers."""
    distances = [(r.detach() - f).abs().mean() for r, f in zip(real, fake, strict=True)]
    return torch.stack(distances).mean()
