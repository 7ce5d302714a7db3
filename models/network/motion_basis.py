"""Motion basis: how each cell of a source picture moves with the keypoints (not in the paper)."""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iwcodec.models.network.config import ModelConfig
from iwcodec.models.network.geometry import cell_centres, gaussian_maps
from iwcodec.models.network.layers import UNet, resize, to_cells, upsample

COMMON_SCALE = 0.1
"""Amplitude of the cosines that initialise the basis of the strengths. With it, one quantiser step of a strength moves
cells as far as one step of a place."""


class BasisNet(nn.Module):
    """Source picture and keypoints -> motion basis.

    Motion is smooth except at the edges of moving parts. The network predicts a few layers of smooth motion on a coarse
    grid, and composes them with masks on a grid twice as fine. Its prediction from the picture (at the detector's size)
    is added to a learned basis that is common to all speakers. The common basis starts as the lowest-frequency cosines
    for the strengths, which represent any smooth motion well.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.size = config.detector_size
        self.cell = 2 * config.cell
        self.side = config.basis_side // 2
        self.unet = UNet(3 * self.cell**2 + config.keypoints + 2, config.basis_widths)
        self.layers = config.basis_layers
        self.head = nn.Conv2d(config.basis_widths[0], self.layers * 3 * config.keypoints, 1)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]
        self.common = nn.Parameter(strength_cosines(config.keypoints, self.side).repeat(self.layers, 1, 1))
        self.masks = nn.Conv2d(config.basis_widths[0], 4 * self.layers, 3, 1, 1)

    def forward(self, picture: Tensor, keypoints: Tensor) -> Tensor:
        """Pictures (B, 3, h, w) and keypoints (B, K, 3) -> basis (B, M, 3 K), to which the caller adds the
        memberships."""
        folded = F.pixel_unshuffle(resize(picture, self.size), self.cell) - 0.5
        places = cell_centres(self.side, keypoints).T.unflatten(1, (self.side, self.side))
        places = places.expand(folded.shape[0], -1, -1, -1)
        inputs = torch.cat([folded, gaussian_maps(keypoints, self.side), places], dim=1)
        features = self.unet(inputs)
        fields = upsample(self.head(features) + self.common, 2).unflatten(1, (self.layers, -1))
        masks = F.pixel_shuffle(self.masks(features), 2).softmax(1)
        return to_cells((fields * masks[:, :, None]).sum(1))


def strength_cosines(keypoints: int, side: int) -> Tensor:
    """Initial common basis (3 K, side, side): zero for the places, and for the strengths the 2-D cosines of lowest
    frequency. Half of the strengths move cells to the right, the other half down."""
    axis = (torch.arange(side) + 0.5) * (math.pi / side)
    frequencies = sorted(itertools.product(range(side), repeat=2), key=lambda f: f[0] ** 2 + f[1] ** 2)
    half = keypoints // 2
    fields = torch.stack([(axis * y).cos()[:, None] * (axis * x).cos() for y, x in frequencies[: keypoints - half]])
    basis = torch.zeros(3, keypoints, side, side)
    basis[1, : keypoints - half], basis[2, keypoints - half :] = fields, fields[:half]
    return COMMON_SCALE * basis.flatten(0, 1)
