"""AA-PCA: "Motion Representations for Articulated Animation", Siarohin et al., CVPR 2021, arXiv 2104.11280 (also MRAA).

Heatmaps of regions, unsupervised; a region's affine frame is measured from its heatmap by PCA instead of predicted
(section 3.2); the background has an affine motion of its own (section 3.3); a flow predictor mixes the motions of
regions and background and predicts occlusion (section 3.4).
"""

import itertools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iwcodec.models.baselines.common import (
    DenseMotion,
    FlowBaseline,
    HeatmapDetector,
    grid,
    map_points,
    moments,
)
from iwcodec.models.network.config import ModelConfig
from iwcodec.models.network.geometry import cell_centres
from iwcodec.models.network.layers import ConvBlock, resize

BACKGROUND_WIDTHS = (32, 64, 96)
"""Channels of the background's encoder."""
FLOOR = 1e-4
"""Variance added to every region, so that one cell's region still has an extent."""


class RegionPose(NamedTuple):
    """Regions of a picture."""

    places: Tensor  # (B, K, 2): centres
    covariances: Tensor  # (B, K, 2, 2)
    frames: Tensor  # (B, K, 2, 2): principal axes, as long as the standard deviations along them


class Background(nn.Sequential):
    """Source and driving pictures -> affine motion of the background (B, 2, 3), which starts as none."""

    def __init__(self) -> None:
        widths = (6 * 16, *BACKGROUND_WIDTHS)
        super().__init__(
            *(ConvBlock(a, b, stride=2) for a, b in itertools.pairwise(widths)),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(widths[-1], 6),
        )
        last = self[-1]
        nn.init.zeros_(last.weight)  # type: ignore[arg-type]
        with torch.no_grad():
            last.bias.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0]))  # type: ignore[operator]

    def forward(self, pictures: Tensor) -> Tensor:
        return super().forward(F.pixel_unshuffle(pictures, 4) - 0.5).unflatten(1, (2, 3))


class AaPca(FlowBaseline):
    """Articulated animation: driving regions and sources -> pictures."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.detector = HeatmapDetector(config)
        self.background = Background()
        self.motion = DenseMotion(config.keypoints)

    def detect(self, pictures: Tensor) -> RegionPose:
        """Centres, covariances and principal axes of the regions' heatmaps (section 3.2, equations 5 to 7)."""
        heat, _ = self.detector(pictures)
        places = moments(heat)
        offset = cell_centres(round(heat.shape[-1] ** 0.5), heat) - places[:, :, None]  # (B, K, cells, 2)
        covariances = (heat[..., None] * offset).transpose(2, 3) @ offset
        covariances = covariances + FLOOR * torch.eye(2, device=heat.device)
        return RegionPose(places, covariances, principal_frames(covariances))

    def flow(self, sources: Tensor, source: RegionPose, driving: Tensor, target: RegionPose) -> tuple[Tensor, Tensor]:
        side = sources.shape[-1] // self.config.cell
        own = grid(side, sources)
        motion = source.frames @ inverse(target)
        motion = motion * motion[..., :1, :1].sign()  # an axis has no direction: take the smaller turn (as published)
        offset = own - target.places[:, :, None, None]
        moved = (motion[:, :, None, None] @ offset[..., None])[..., 0] + source.places[:, :, None, None]
        affine = self.background(torch.cat([resize(x, self.config.detector_size) for x in (sources, driving)], dim=1))
        still = map_points(own.flatten(0, 1).expand(len(affine), -1, -1), affine).unflatten(1, (side, side))
        places = torch.cat([still[:, None], moved], dim=1)
        return self.motion(resize(sources, side), places, region_maps(target, side) - region_maps(source, side))

    def equivariance(self, pose: RegionPose, transformed: RegionPose, affine: Tensor) -> Tensor:
        """Equivariance of centres and of frames, up to their sign (section 3.5)."""
        gap = (map_points(transformed.places, affine) - pose.places).abs().mean()
        product = inverse(pose) @ affine[:, None, :, :2] @ transformed.frames
        product = product * product[..., :1, :1].sign()
        return gap + (product - torch.eye(2, device=product.device)).abs().mean()


def principal_frames(covariances: Tensor) -> Tensor:
    """Covariances (..., 2, 2) -> U S^(1/2) of their singular value decomposition, longer axis first; in closed form,
    whose gradient is finite."""
    a, b, c = covariances[..., 0, 0], covariances[..., 0, 1], covariances[..., 1, 1]
    half, mean = (a - c) / 2, (a + c) / 2
    spread = (half.square() + b.square() + 1e-12).sqrt()
    angle = torch.atan2(b, half + 1e-6 * (half.abs() + b.abs() < 1e-6)) / 2
    long, short = (mean + spread).clamp(min=FLOOR).sqrt(), (mean - spread).clamp(min=FLOOR).sqrt()
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos * long, -sin * short, sin * long, cos * short], dim=-1).unflatten(-1, (2, 2))


def region_maps(pose: RegionPose, side: int) -> Tensor:
    """A Gaussian for each region, of its covariance: (B, K, side, side)."""
    offset = grid(side, pose.places) - pose.places[:, :, None, None]
    whitened = offset.flatten(2, 3) @ inverse(pose).transpose(-1, -2)
    return (-whitened.square().sum(-1) / 2).exp().unflatten(-1, (side, side))


def inverse(pose: RegionPose) -> Tensor:
    """Inverses of a pose's frames (B, K, 2, 2): their columns are orthogonal."""
    return (pose.frames / pose.frames.square().sum(-2, keepdim=True)).transpose(-1, -2)
