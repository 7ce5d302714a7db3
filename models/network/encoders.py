"""Queries from driving keypoints, keys from source pictures and their keypoints (paper, section 3.1)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iwcodec.models.network.config import ModelConfig
from iwcodec.models.network.geometry import gaussian_maps
from iwcodec.models.network.layers import UNet, to_cells, zero_init

POSITIONS = 16
"""Cells per side of the learned position embeddings, which are interpolated to the attention grid."""


class QueryNet(nn.Module):
    """Keypoint maps of the driving frame -> unit queries. Runs at half the grid's resolution; the last layer unfolds to
    the full grid."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.unet = UNet(config.keypoints, config.query_widths)
        self.head = nn.Conv2d(config.query_widths[0], 4 * config.dim, 1)
        self.position = nn.Parameter(torch.randn(1, config.dim, POSITIONS, POSITIONS) * 0.1)

    def forward(self, keypoints: Tensor, side: int) -> Tensor:
        """Keypoints (B, K, 3) -> queries (B, side * side, d) of length 1."""
        features = self.unet(gaussian_maps(keypoints, side // 2))
        return unit_vectors(F.pixel_shuffle(self.head(features), 2), self.position)


class KeyNet(nn.Module):
    """Source picture and its keypoint maps -> unit keys, and the keypoint to which each cell belongs."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.cell = config.cell
        self.unet = UNet(3 * config.cell**2 + config.keypoints, config.key_widths)
        self.keys = nn.Conv2d(config.key_widths[0], config.dim, 1)
        self.parts = zero_init(nn.Conv2d(config.key_widths[0], config.keypoints + 1, 1))
        self.position = nn.Parameter(torch.randn(1, config.dim, POSITIONS, POSITIONS) * 0.1)

    def forward(self, picture: Tensor, keypoints: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures (B, 3, h, w) and keypoints (B, K, 3) -> keys (B, M, d), membership logits (B, K + 1, M)."""
        folded = F.pixel_unshuffle(picture, self.cell) - 0.5
        features = self.unet(torch.cat([folded, gaussian_maps(keypoints, folded.shape[-1])], dim=1))
        return unit_vectors(self.keys(features), self.position), self.parts(features).flatten(2)


def unit_vectors(features: Tensor, position: Tensor) -> Tensor:
    """Add the position embedding and normalise to length 1: (B, d, g, g) -> (B, M, d)."""
    position = F.interpolate(position, size=features.shape[-2:], mode="bilinear", align_corners=False)
    vectors = to_cells(features + position)
    return vectors / vectors.norm(dim=-1, keepdim=True).clamp_min(1e-12)  # F.normalize copies the lengths when exported
