"""Implicit warping as published: "Implicit Warping for Animation with Image Sets", Mallya, Wang, Liu, NeurIPS 2022,
arXiv 2210.01794.

Queries from the driving keypoints, keys and values from the sources (section 3.1); one dense attention over all cells
of all sources and extra pairs, and a residual on what it returns (section 3.2). Without what this project adds: motion
basis, prior, base picture, top-k, fitted keypoints.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iwcodec.models.baselines.common import Decoder, Encoder, map_points
from iwcodec.models.network.attention import Extras, dense_attention
from iwcodec.models.network.config import ModelConfig
from iwcodec.models.network.detector import KeypointDetector
from iwcodec.models.network.geometry import gaussian_maps
from iwcodec.models.network.layers import UNet, to_cells, to_maps


class ImplicitWarping(nn.Module):
    """Driving keypoints and a set of sources -> pictures."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.detector = KeypointDetector(config)
        self.query_net = nn.Sequential(
            UNet(config.keypoints, config.query_widths), nn.Conv2d(config.query_widths[0], config.dim, 1)
        )
        folded = 3 * config.cell**2 + config.keypoints
        self.key_net = nn.Sequential(UNet(folded, config.key_widths), nn.Conv2d(config.key_widths[0], config.dim, 1))
        self.encoder = Encoder(config.trunk)
        self.extra_keys = nn.Parameter(torch.randn(config.extra_pairs, config.dim) * config.dim**-0.5)
        self.extra_values = nn.Parameter(torch.randn(config.extra_pairs, config.trunk + config.dim + 3) * 0.1)
        self.residual = nn.Sequential(
            nn.Conv2d(2 * config.dim + 3, config.trunk, 1), nn.ReLU(), nn.Conv2d(config.trunk, config.trunk, 1)
        )
        self.decoder = Decoder(config.trunk, config.detail)

    def detect(self, pictures: Tensor) -> Tensor:
        """Keypoints (B, K, 3): places and strengths (section 3.1)."""
        keypoints: Tensor = self.detector(pictures)
        return keypoints

    def forward(self, driving: Tensor, sources: Tensor) -> Tensor:
        """Driving pictures (B, 3, H, W), of which only keypoints are used, and sources (B, S, 3, H, W) -> pictures."""
        batch, count = sources.shape[:2]
        flat, side = sources.flatten(0, 1), driving.shape[-1] // self.config.cell
        pictures = torch.cat([driving, flat])
        maps = gaussian_maps(self.detect(pictures), side)
        target, own = maps[:batch], maps[batch:]
        queries = self.query_net(target)
        keys = self.key_net(torch.cat([F.pixel_unshuffle(flat, self.config.cell) - 0.5, own], dim=1))
        rows = torch.cat([self.encoder(flat), keys, F.avg_pool2d(flat, self.config.cell) - 0.5], dim=1)
        keys, rows = (to_cells(x).unflatten(0, (batch, count)).flatten(1, 2) for x in (keys, rows))
        scale = self.config.dim**-0.5  # equation 1
        attended = dense_attention(to_cells(queries) * scale, keys, rows, Extras(self.extra_keys, self.extra_values))
        values, context = to_maps(attended, side).split([self.config.trunk, self.config.dim + 3], dim=1)
        picture: Tensor = self.decoder(values + self.residual(torch.cat([context, queries], dim=1)))
        return picture

    def equivariance(self, pose: Tensor, transformed: Tensor, affine: Tensor) -> Tensor:
        """Equivariance of the keypoints, as FOMM's (the paper's section 3.3)."""
        return (map_points(transformed[..., :2], affine) - pose[..., :2]).abs().mean()
