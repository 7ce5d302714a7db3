"""What the baselines share: appearance encoder, dense motion, decoder, and the interface that training and `bench
paper` use.

The networks differ in their motion alone. Widths and depths are those of `lite`, and the encoder starts at half the
resolution by folding pixels, as lite's does; the published networks have eight times as many channels. Positions are in
[-1, 1] (x right, y down), pictures in 0..1. B pictures, S sources of each, K keypoints; the grid of g x g cells has a
quarter of the pictures' resolution.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iwcodec.models.network.config import ModelConfig
from iwcodec.models.network.geometry import cell_centres
from iwcodec.models.network.layers import ConvBlock, UNet, resize

GAUSSIAN_VARIANCE = 0.01
"""Variance of the keypoints' Gaussians (FOMM's published value)."""
MOTION_WIDTHS = (64, 96, 128)
"""Channels of the dense motion's U-Net."""
BLOCKS = 4
"""Residual blocks of the decoder."""

Pose = Any
"""What a network detects in a picture: a tensor or a NamedTuple of tensors whose first dimension is B."""


class Residual(nn.Module):
    """Two 3x3 convolutions with batch norm before them, added to the input (FOMM, section 3.3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels, momentum=0.05) for _ in range(2))
        self.convolutions = nn.ModuleList(nn.Conv2d(channels, channels, 3, 1, 1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            y = convolution(F.relu(norm(y)))
        return x + y


class Encoder(nn.Sequential):
    """Pictures (B, 3, 4 g, 4 g) -> appearance features (B, channels, g, g)."""

    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.PixelUnshuffle(2), ConvBlock(12, channels // 2), ConvBlock(channels // 2, channels, stride=2)
        )


class Decoder(nn.Module):
    """Warped features (B, channels, g, g) -> pictures (B, 3, 4 g, 4 g)."""

    def __init__(self, channels: int, detail: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Residual(channels) for _ in range(BLOCKS)))
        self.up = ConvBlock(channels, detail)
        self.out = nn.Conv2d(detail, 12, 3, 1, 1)

    def forward(self, features: Tensor) -> Tensor:
        x = self.up(F.interpolate(self.blocks(features), scale_factor=2.0, mode="nearest"))
        return F.pixel_shuffle(self.out(x), 2).sigmoid()


class HeatmapDetector(nn.Module):
    """Pictures -> K heatmaps that sum to 1 and further maps at the same resolution (FOMM, section 3.1: a U-Net on the
    picture at a quarter of its resolution)."""

    def __init__(self, config: ModelConfig, maps: int = 0) -> None:
        super().__init__()
        self.stem, width = config.detector_stem, config.detector_widths[0]
        self.size = config.detector_size
        self.hourglass = UNet(3 * self.stem**2, config.detector_widths)
        self.heatmaps = nn.Conv2d(width, config.keypoints, 3, 1, 1)
        self.maps = nn.Conv2d(width, maps, 3, 1, 1) if maps else None

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, 3, H, W) -> heatmaps (B, K, cells) and maps (B, maps, cells)."""
        folded = F.pixel_unshuffle(resize(pictures, self.size), self.stem) - 0.5
        features = self.hourglass(folded)
        heat = (self.heatmaps(features) / 0.1).flatten(2).softmax(-1)  # FOMM's temperature
        return heat, None if self.maps is None else self.maps(features).flatten(2)


class DenseMotion(nn.Module):
    """Candidate motions -> backward flow and occlusion (FOMM, section 3.2; MRAA, section 3.4): each candidate warps the
    source; a U-Net sees the warped sources and where the keypoints went, and mixes the candidates."""

    def __init__(self, keypoints: int) -> None:
        super().__init__()
        self.unet = UNet(4 * (keypoints + 1), MOTION_WIDTHS)
        self.masks = nn.Conv2d(MOTION_WIDTHS[0], keypoints + 1, 3, 1, 1)
        self.occlusion = nn.Conv2d(MOTION_WIDTHS[0], 1, 3, 1, 1)

    def forward(self, small: Tensor, places: Tensor, heat: Tensor) -> tuple[Tensor, Tensor]:
        """Sources (B, 3, g, g), the candidates' places in them (B, K + 1, g, g, 2), and what the keypoints' Gaussians
        gained (B, K, g, g) -> places (B, g, g, 2), occlusion (B, 1, g, g)."""
        batch, count = places.shape[:2]
        repeated = small[:, None].expand(-1, count, -1, -1, -1).flatten(0, 1)
        warped = sample(repeated, places.flatten(0, 1)).unflatten(0, (batch, count)).flatten(1, 2)
        heat = F.pad(heat, (0, 0, 0, 0, 1, 0))  # the background has none
        features = self.unet(torch.cat([warped, heat], dim=1))
        masks = self.masks(features).softmax(1)
        return (masks[..., None] * places).sum(1), self.occlusion(features).sigmoid()


class FlowBaseline(nn.Module):
    """A network that warps the features of each source by a flow, and decodes their mean over the sources.

    The published networks have one source; the mean over several is how the paper (section 4.2) feeds them sets.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.trunk)
        self.decoder = Decoder(config.trunk, config.detail)

    def detect(self, pictures: Tensor) -> Pose:
        """What drives the motion, of pictures (B, 3, H, W)."""
        raise NotImplementedError

    def flow(self, sources: Tensor, source: Pose, driving: Tensor, target: Pose) -> tuple[Tensor, Tensor]:
        """Places in the sources (B, g, g, 2) of the driving pictures' cells, and occlusion (B, 1, g, g)."""
        raise NotImplementedError

    def equivariance(self, pose: Pose, transformed: Pose, affine: Tensor) -> Tensor:
        """Loss between the pose in pictures and that in transformed ones, which show at p what those show at
        `affine`(p)."""
        raise NotImplementedError

    def warp(self, features: Tensor, places: Tensor) -> Tensor:
        """Features (B, C, g, g) at places (B, g, g, 2)."""
        return sample(features, places)

    def forward(self, driving: Tensor, sources: Tensor) -> Tensor:
        """Driving pictures (B, 3, H, W), of which only the pose is used, and sources (B, S, 3, H, W) -> pictures."""
        count = sources.shape[1]
        flat, repeated = sources.flatten(0, 1), driving.repeat_interleave(count, 0)
        target = select(self.detect(driving), count)
        places, occlusion = self.flow(flat, self.detect(flat), repeated, target)
        warped = self.warp(self.encoder(flat), places) * occlusion
        return self.decoder(warped.unflatten(0, (-1, count)).mean(1))


def select(pose: Pose, count: int) -> Pose:
    """Repeat each picture's pose `count` times."""
    if isinstance(pose, Tensor):
        return pose.repeat_interleave(count, 0)
    return type(pose)(*(part.repeat_interleave(count, 0) for part in pose))


def sample(maps: Tensor, places: Tensor) -> Tensor:
    """Sample maps (B, C, h, w) at places (B, g, g, 2)."""
    return F.grid_sample(maps, places, padding_mode="border", align_corners=False)


def grid(side: int, like: Tensor) -> Tensor:
    """Places of the cells (side, side, 2)."""
    return cell_centres(side, like).unflatten(0, (side, side))


def gaussians(points: Tensor, side: int) -> Tensor:
    """Points (B, K, 2) -> a Gaussian around each (B, K, side, side)."""
    distance = (grid(side, points) - points[:, :, None, None]).square().sum(-1)
    return (-distance / (2 * GAUSSIAN_VARIANCE)).exp()


def map_points(points: Tensor, affine: Tensor) -> Tensor:
    """Apply affine transforms (B, 2, 3) to points (B, K, 2)."""
    return points @ affine[:, :, :2].transpose(1, 2) + affine[:, None, :, 2]


def moments(heat: Tensor) -> Tensor:
    """Heatmaps (B, K, cells) -> their means (B, K, 2)."""
    return heat @ cell_centres(round(heat.shape[-1] ** 0.5), heat)
