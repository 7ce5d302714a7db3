"""face-vid2vid: "One-Shot Free-View Neural Talking-Head Synthesis", Wang, Mallya, Liu, CVPR 2021, arXiv 2011.15126.

Canonical 3-D keypoints from the source, head pose and expression deltas from any picture (section 3.1); 3-D flows from
keypoint pairs, mixed by a 3-D U-Net; a feature volume of the source is warped and decoded in 2-D (section 3.2). The
published head pose network is first trained on labels, which do not exist here: pose is learned from pictures alone.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iwcodec.models.baselines.common import GAUSSIAN_VARIANCE, FlowBaseline, map_points, select
from iwcodec.models.network.config import ModelConfig
from iwcodec.models.network.geometry import cell_centres
from iwcodec.models.network.layers import ConvBlock, UNet, resize

DEPTH = 8
"""Layers of the volumes; 16 in the paper."""
CHANNELS = 16
"""Channels of the appearance volume; 32 in the paper."""
SEEN = 4
"""Channels to which the volume is compressed where candidates are compared (as published)."""
BINS = 66
"""Classes of 3 degrees into which each angle of the head pose is sorted (section 3.1)."""
POSE_WIDTHS = (64, 96, 128, 192)
"""Channels of the network for head pose and expression; a ResNet-50 in the paper."""
MOTION_WIDTHS = (24, 48, 64)
"""Channels of the 3-D U-Net."""
SPREAD, CENTRE_DEPTH = 0.1, 0.33
"""Keypoint prior (section 3.3): squared distance that keypoints keep, and their mean depth."""


class HeadPose(NamedTuple):
    """What the networks see in a picture."""

    canonical: Tensor  # (B, K, 3): keypoints of a frontal, neutral head
    rotation: Tensor  # (B, 3, 3)
    shift: Tensor  # (B, 3)
    deltas: Tensor  # (B, K, 3): expression


class Block3d(nn.Sequential):
    """3x3x3 convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        convolution = nn.Conv3d(inputs, outputs, 3, (1, stride, stride), 1, bias=False)
        super().__init__(convolution, nn.BatchNorm3d(outputs, momentum=0.05), nn.ReLU())


class MotionField(nn.Module):
    """Candidate flows -> flow of the volume and occlusion of the picture: M of section 3.2."""

    def __init__(self, keypoints: int) -> None:
        super().__init__()
        a, b, c = MOTION_WIDTHS
        self.compress = nn.Conv3d(CHANNELS, SEEN, 1)
        self.stem = Block3d((SEEN + 1) * (keypoints + 1), a)
        self.down = nn.ModuleList([Block3d(a, b, 2), Block3d(b, c, 2)])
        self.up = nn.ModuleList([Block3d(b + a, a), Block3d(c + b, b)])
        self.masks = nn.Conv3d(a, keypoints + 1, 3, 1, 1)
        self.occlusion = nn.Conv2d(a * DEPTH, 1, 3, 1, 1)

    def forward(self, volume: Tensor, places: Tensor, heat: Tensor) -> tuple[Tensor, Tensor]:
        """Volumes (B, C, d, g, g), candidates (B, K + 1, d, g, g, 3) and gained Gaussians (B, K, d, g, g) -> places
        (B, d, g, g, 3) and occlusion (B, 1, g, g)."""
        batch, count = places.shape[:2]
        seen = self.compress(volume)[:, None].expand(-1, count, -1, -1, -1, -1).flatten(0, 1)
        warped = F.grid_sample(seen, places.flatten(0, 1), padding_mode="border", align_corners=False)
        heat = F.pad(heat, (0, 0, 0, 0, 0, 0, 1, 0))
        x = self.stem(torch.cat([warped.unflatten(0, (batch, count)).flatten(1, 2), heat], dim=1))
        y = self.down[0](x)
        z = F.interpolate(self.down[1](y), scale_factor=(1.0, 2.0, 2.0))
        z = F.interpolate(self.up[1](torch.cat([z, y], dim=1)), scale_factor=(1.0, 2.0, 2.0))
        features = self.up[0](torch.cat([z, x], dim=1))
        masks = self.masks(features).softmax(1)
        return (masks[..., None] * places).sum(1), self.occlusion(features.flatten(1, 2)).sigmoid()


class FaceVid2vid(FlowBaseline):
    """Head pose, expression and 3-D keypoints of pictures -> pictures."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.to_volume = nn.Conv2d(config.trunk, CHANNELS * DEPTH, 1)
        self.refine_volume = nn.Sequential(Block3d(CHANNELS, CHANNELS), nn.Conv3d(CHANNELS, CHANNELS, 3, 1, 1))
        self.from_volume = nn.Conv2d(CHANNELS * DEPTH, config.trunk, 1)
        stem, widths = config.detector_stem, config.detector_widths
        self.hourglass = UNet(3 * stem**2, widths)
        self.heatmaps = nn.Conv2d(widths[0], config.keypoints * DEPTH, 3, 1, 1)
        steps = zip((3 * stem**2, *POSE_WIDTHS), POSE_WIDTHS, strict=False)
        self.pose = nn.Sequential(*(ConvBlock(a, b, 2) for a, b in steps), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.angles = nn.Linear(POSE_WIDTHS[-1], 3 * BINS)
        self.shift = nn.Linear(POSE_WIDTHS[-1], 3)
        self.deltas = nn.Linear(POSE_WIDTHS[-1], 3 * config.keypoints)
        for head in (self.angles, self.shift, self.deltas):
            nn.init.normal_(head.weight, std=1e-3)
            nn.init.zeros_(head.bias)
        self.motion = MotionField(config.keypoints)

    def detect(self, pictures: Tensor) -> HeadPose:
        """Canonical keypoints (L), head pose (H) and deltas (Delta) of section 3.1."""
        folded = F.pixel_unshuffle(resize(pictures, self.config.detector_size), self.config.detector_stem) - 0.5
        heat = self.heatmaps(self.hourglass(folded)).unflatten(1, (-1, DEPTH)) / 0.1
        shape = heat.shape[2:]
        canonical = heat.flatten(2).softmax(-1) @ volume_places(shape[-1], heat).flatten(0, 2)
        features = self.pose(folded)
        degrees = 3 * (torch.arange(BINS, device=folded.device) - (BINS - 1) / 2)
        angles = self.angles(features).unflatten(1, (3, BINS)).softmax(-1) @ degrees
        deltas = self.deltas(features).unflatten(1, (-1, 3))
        return HeadPose(canonical, rotations(angles * (math.pi / 180)), self.shift(features), deltas)

    def forward(self, driving: Tensor, sources: Tensor) -> Tensor:
        count = sources.shape[1]
        flat = sources.flatten(0, 1)
        source, target = self.detect(flat), select(self.detect(driving), count)
        features = self.to_volume(self.encoder(flat)).unflatten(1, (CHANNELS, DEPTH))
        volume = features + self.refine_volume(features)
        side = volume.shape[-1]
        own, moved = posed(source.canonical, source), posed(source.canonical, target)
        heat = gaussians_3d(moved, side) - gaussians_3d(own, side)
        places, occlusion = self.motion(volume, candidates(source, target, own, moved, side), heat)
        warped = F.grid_sample(volume, places, padding_mode="border", align_corners=False)
        flattened = self.from_volume(warped.flatten(1, 2)) * occlusion
        return self.decoder(flattened.unflatten(0, (-1, count)).mean(1))

    def equivariance(self, pose: HeadPose, transformed: HeadPose, affine: Tensor) -> Tensor:
        """Equivariance of the keypoints in the picture, keypoint prior and deformation prior (section 3.3)."""
        own, mapped = posed(pose.canonical, pose), posed(transformed.canonical, transformed)
        gap = (map_points(mapped[..., :2], affine) - own[..., :2]).abs().mean()
        distances = torch.cdist(own, own).square() + 10 * torch.eye(own.shape[1], device=own.device)
        crowded = F.relu(SPREAD - distances).sum((1, 2)).mean() / own.shape[1]
        return gap + crowded + (own[..., 2].mean(1) - CENTRE_DEPTH).abs().mean() + pose.deltas.abs().mean()


def posed(canonical: Tensor, pose: HeadPose) -> Tensor:
    """Equation 1: keypoints R x_c + t + delta of a canonical head (B, K, 3) in a pose."""
    return canonical @ pose.rotation.transpose(1, 2) + pose.shift[:, None] + pose.deltas


def candidates(source: HeadPose, target: HeadPose, own: Tensor, moved: Tensor, side: int) -> Tensor:
    """First-order flows R_s R_d^-1 (p - x_d) + x_s of the volume by each keypoint, after the background's identity: (B,
    K + 1, d, side, side, 3)."""
    places = volume_places(side, own)
    turn = (source.rotation @ target.rotation.transpose(1, 2))[:, None, None, None, None]
    offset = places - moved[:, :, None, None, None]
    flows = (turn @ offset[..., None])[..., 0] + own[:, :, None, None, None]
    return torch.cat([places.expand(len(flows), 1, -1, -1, -1, -1), flows], dim=1)


def gaussians_3d(points: Tensor, side: int) -> Tensor:
    """Points (B, K, 3) -> a Gaussian around each (B, K, DEPTH, side, side)."""
    distance = (volume_places(side, points) - points[:, :, None, None, None]).square().sum(-1)
    return (-distance / (2 * GAUSSIAN_VARIANCE)).exp()


def volume_places(side: int, like: Tensor) -> Tensor:
    """Places x, y, z of the cells of a volume: (DEPTH, side, side, 3)."""
    plane = cell_centres(side, like).unflatten(0, (side, side)).expand(DEPTH, -1, -1, -1)
    depth = (torch.arange(DEPTH, device=like.device, dtype=like.dtype) + 0.5) * (2 / DEPTH) - 1
    return torch.cat([plane, depth[:, None, None, None].expand(-1, side, side, 1)], dim=-1)


def rotations(angles: Tensor) -> Tensor:
    """Yaw, pitch and roll (B, 3) in radians -> rotation matrices (B, 3, 3)."""
    (cy, cx, cz), (sy, sx, sz) = (f.unbind(-1) for f in (angles.cos(), angles.sin()))
    one, zero = torch.ones_like(cx), torch.zeros_like(cx)
    yaw = torch.stack([cy, zero, sy, zero, one, zero, -sy, zero, cy], -1).unflatten(-1, (3, 3))
    pitch = torch.stack([one, zero, zero, zero, cx, -sx, zero, sx, cx], -1).unflatten(-1, (3, 3))
    roll = torch.stack([cz, -sz, zero, sz, cz, zero, zero, zero, one], -1).unflatten(-1, (3, 3))
    return pitch @ yaw @ roll
