"""FOMM: "First Order Motion Model for Image Animation", Siarohin et al., NeurIPS 2019, arXiv 2003.00196.

Keypoints with Jacobians describe the motion near each keypoint to first order (section 3.1); a dense motion network
mixes these local motions and predicts what is occluded (section 3.2); the generator warps and inpaints (section 3.3).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from iwcodec.models.baselines.common import (
    DenseMotion,
    FlowBaseline,
    HeatmapDetector,
    gaussians,
    grid,
    map_points,
    moments,
)
from iwcodec.models.network.config import ModelConfig
from iwcodec.models.network.layers import resize

SMALLEST = 1e-2
"""Least magnitude of a determinant that is divided by; the published code inverts without a bound."""


class KeypointPose(NamedTuple):
    """Local affine frames of a picture."""

    places: Tensor  # (B, K, 2)
    jacobians: Tensor  # (B, K, 2, 2): of the map from the abstract reference frame to the picture, at the keypoint


class Fomm(FlowBaseline):
    """First-order motion: driving pose and sources -> pictures."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.detector = HeatmapDetector(config, maps=4 * config.keypoints)
        maps = self.detector.maps
        assert maps is not None
        nn.init.zeros_(maps.weight)  # Jacobians start as identities, as published
        with torch.no_grad():
            maps.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 1.0]).repeat(config.keypoints))  # type: ignore[union-attr]
        self.motion = DenseMotion(config.keypoints)

    def detect(self, pictures: Tensor) -> KeypointPose:
        """Means of the heatmaps' places and of the Jacobian maps, both weighted by the heatmaps (section 3.1)."""
        heat, maps = self.detector(pictures)
        assert maps is not None
        jacobians = (maps.unflatten(1, (-1, 4)) * heat[:, :, None]).sum(-1)
        return KeypointPose(moments(heat), jacobians.unflatten(-1, (2, 2)))

    def flow(
        self, sources: Tensor, source: KeypointPose, driving: Tensor, target: KeypointPose
    ) -> tuple[Tensor, Tensor]:
        side = sources.shape[-1] // self.config.cell
        places = first_order(source, target, side)
        heat = gaussians(target.places, side) - gaussians(source.places, side)
        return self.motion(resize(sources, side), places, heat)

    def equivariance(self, pose: KeypointPose, transformed: KeypointPose, affine: Tensor) -> Tensor:
        """Equations 9 and 11: keypoints, and Jacobians relative to the identity."""
        gap = (map_points(transformed.places, affine) - pose.places).abs().mean()
        mapped = affine[:, None, :, :2] @ transformed.jacobians
        product = inverse(pose.jacobians) @ mapped
        return gap + (product - torch.eye(2, device=product.device)).abs().mean()


def first_order(source: KeypointPose, target: KeypointPose, side: int) -> Tensor:
    """Equation 4: each cell z of the driving picture comes from p_S + J_S J_D^-1 (z - p_D). The first candidate is the
    background, which stays: (B, K + 1, side, side, 2)."""
    own = grid(side, source.places)
    motion = source.jacobians @ inverse(target.jacobians)
    offset = own - target.places[:, :, None, None]
    moved = (motion[:, :, None, None] @ offset[..., None])[..., 0] + source.places[:, :, None, None]
    return torch.cat([own.expand(len(moved), 1, -1, -1, -1), moved], dim=1)


def inverse(matrices: Tensor) -> Tensor:
    """Inverses of 2 x 2 matrices (..., 2, 2), bounded where they are nearly singular."""
    a, b, c, d = matrices.flatten(-2).unbind(-1)
    determinant = a * d - b * c
    sign = torch.where(determinant < 0, -1.0, 1.0)
    adjugate = torch.stack([d, -b, -c, a], dim=-1).unflatten(-1, (2, 2))
    return adjugate / (sign * determinant.abs().clamp(min=SMALLEST))[..., None, None]
