"""Keypoints and grids: Gaussian maps, displacements, and the geometric prior of the attention.

Positions are in [-1, 1] from edge to edge of the picture (x right, y down); cells are in raster order.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iwcodec.models.fit_settings import STRENGTH_WEIGHT
from iwcodec.models.network.config import ModelConfig

GAUSSIAN_VARIANCE = 0.01
"""Variance of the Gaussians of the keypoint maps, in squared [-1, 1] units (paper, section 3.1)."""


def cell_centres(side: int, like: Tensor) -> Tensor:
    """Positions of the cell centres (side * side, 2), on the device and in the type of `like`."""
    axis = (torch.arange(side, device=like.device, dtype=like.dtype) + 0.5) * (2.0 / side) - 1.0
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=-1)


def squared_distances(centres: Tensor, keypoints: Tensor) -> Tensor:
    """Squared distances of points (N, 2) to keypoints (B, K, >= 2): (B, K, N)."""
    return (keypoints[..., None, 0] - centres[:, 0]) ** 2 + (keypoints[..., None, 1] - centres[:, 1]) ** 2


def gaussian_maps(keypoints: Tensor, side: int) -> Tensor:
    """Keypoints (B, K, 3) -> maps (B, K, side, side): one Gaussian per keypoint, scaled by its strength."""
    distances = squared_distances(cell_centres(side, keypoints), keypoints)
    maps = keypoints[..., 2:3] * torch.exp(-distances / (2 * GAUSSIAN_VARIANCE))
    return maps.unflatten(-1, (side, side))


def displacements(basis: Tensor, change: Tensor) -> Tensor:
    """Displacements of cells when keypoints change: basis (..., M, 3 K) and changes (..., K, 3) -> (..., M, 2).

    The first K columns of the basis are the share of a keypoint's displacement that the cell follows. The next K
    columns are its displacement to the right per unit of strength, the last K its displacement downwards.
    """
    place, strength = change[..., :2], change[..., 2:]
    zero = torch.zeros_like(strength)
    right, down = torch.cat([strength, zero], dim=-1), torch.cat([zero, strength], dim=-1)
    return basis @ torch.cat([place, right, down], dim=-2)  # a single product reads the large basis once


def upsample_cells(cells: Tensor, side: int) -> Tensor:
    """Upsample cell values from a coarse square grid (..., b, n) to side * side cells (..., M, n), bilinearly."""
    coarse, count = round(int(cells.shape[-2]) ** 0.5), cells.shape[-1]  # plain numbers even while tracing
    if coarse == side:
        return cells
    maps = cells.transpose(-1, -2).reshape(-1, count, coarse, coarse)
    maps = F.interpolate(maps, size=(side, side), mode="bilinear", align_corners=False)
    return maps.flatten(2).transpose(1, 2).reshape(*cells.shape[:-2], side * side, count)


def pose_distance(change: Tensor) -> Tensor:
    """Distance between two poses, given the change of their keypoints (..., K, 3): (...), in squared [-1, 1] units."""
    return (change[..., :2].square().sum(-1) + STRENGTH_WEIGHT * change[..., 2].square()).mean(-1)


def not_first(x: Tensor) -> Tensor:
    """Return 0 for the first source and 1 for the others, in the shape of `x` (..., S)."""
    return (torch.ones_like(x).cumsum(-1) > 1).to(x.dtype)  # the number of sources stays symbolic on export


PRIOR_DIMS = 4
"""Dimensions that the geometric prior adds to queries and keys."""


class PriorTerms(NamedTuple):
    """Prediction of the prior for each key cell, in cell units of the attention grid."""

    place: Tensor  # (..., M, 2): predicted position of the cell in the driving frame
    cost: Tensor  # (..., M): >= 0, grows with the distance of this part of the source from the driving pose


class GeometricPrior(nn.Module):
    """Predicts the displacement of each source cell from the keypoints and biases the attention logits towards it.

    Each source cell p' belongs softly to nearby keypoints and to a static background, with weights w_k (membership). It
    moves with the keypoints and their strengths to

        u(p') = p' + sum_k (w_k + r_k)(p') (kp_k^driving - kp_k^source)
                   + sum_k v_k(p') (strength_k^driving - strength_k^source)

    The motion basis (w + r, v), of either sign, is predicted from the source picture on a coarser grid; it is smooth,
    and trained so that the best keypoints carry the cells as close as possible to where they go.

    The logit of query cell p and key cell p' gets -a |p - u(p')|^2 - sum_k w_k(p') b_k log(1 + d_k / e), where d_k is
    the squared distance, in place and strength, of keypoint k between source and driving frame. The logarithm makes the
    choice among sources scale-free: halving the distance is worth the same factor for a static speaker and for a moving
    one. Sources other than the first pay an additional cost: senders fit the keypoints to the first source, usually the
    nearest in pose, and blending two slightly misaligned pictures of a mouth blurs it.

    The whole term is a dot product of PRIOR_DIMS additional query and key dimensions, so every attention implementation
    supports it unchanged. Memberships and basis depend on the source alone and are computed once.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.log_spread = nn.Parameter(
            torch.full((config.keypoints, 1), -2.3)
        )  # log of 2 * variance of a keypoint's reach
        self.background = nn.Parameter(torch.tensor(-4.0))
        self.log_sharpness = nn.Parameter(torch.tensor(-0.5))  # a, per squared cell
        self.log_cost = nn.Parameter(torch.zeros(config.keypoints + 1))  # b; last: background
        self.log_strength = nn.Parameter(torch.full((config.keypoints,), -4.0))  # weight of squared strength
        self.log_second = nn.Parameter(torch.tensor(0.4))  # additional cost of sources after the first
        self.log_still = nn.Parameter(torch.tensor(-9.5))  # e: about one pixel of 256, squared

    def membership(self, keypoints: Tensor, side: int, parts: Tensor | None = None) -> Tensor:
        """Source keypoints (B, K, 3) and learned logits (B, K + 1, M) -> memberships (B, M, K + 1), background last."""
        distances = squared_distances(cell_centres(side, keypoints), keypoints)
        near = -distances / self.log_spread.exp() + (keypoints[..., 2:3] + 1e-4).log()
        rest = self.background.expand(near.shape[0], 1, near.shape[-1])
        logits = torch.cat([near, rest], dim=1)
        return (logits if parts is None else logits + parts).softmax(dim=1).transpose(1, 2)

    def terms(self, membership: Tensor, basis: Tensor, source: Tensor, driving: Tensor, side: int) -> PriorTerms:
        """Predict positions and costs of the M cells from membership (..., M, K + 1), basis (..., b, 3 K) and keypoints
        of source and driving frame (..., K, 3)."""
        change = driving - source
        distance = change[..., :2].square().sum(-1) + self.log_strength.exp() * change[..., 2].square()
        # The background pays for the mean distance: shadows and hair also match better in a source of similar pose.
        distance = torch.cat([distance, distance.mean(-1, keepdim=True)], dim=-1)
        cost = self.log_cost.exp() * torch.log1p(distance / self.log_still.exp())
        place = cell_centres(side, driving) + upsample_cells(displacements(basis, change), side)
        cost = (membership @ cost[..., None])[..., 0] + self.log_second.exp() * not_first(change[..., 0, 0])[..., None]
        return PriorTerms(place * (side / 2), cost)

    def query_dims(self, side: int, like: Tensor) -> Tensor:
        """Return the dimensions added to the queries: (side * side, PRIOR_DIMS)."""
        places = cell_centres(side, like) * (side / 2)
        square = places.square().sum(-1, keepdim=True)
        return torch.cat([places, square, torch.ones_like(square)], dim=-1)

    def key_dims(self, terms: PriorTerms) -> Tensor:
        """Return the dimensions added to the keys: (..., M, PRIOR_DIMS)."""
        sharpness = self.log_sharpness.exp()
        square = terms.place.square().sum(-1, keepdim=True)
        bias = -sharpness * square - terms.cost[..., None]
        return torch.cat([2 * sharpness * terms.place, -sharpness.expand_as(square), bias], dim=-1)
