"""Keypoints and grids: Gaussian maps, and the geometric prior of the attention.

Places are in [-1, 1] (x right, y down; the outer edges of the picture), cells in raster order.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iwcodec.models.fit_settings import STRENGTH_WEIGHT
from iwcodec.models.network.config import ModelConfig

GAUSSIAN_VARIANCE = 0.01
"""Of the spatial keypoint maps, in [-1, 1] units (paper, section 3.1)."""


def cell_centres(side: int, like: Tensor) -> Tensor:
    """(side * side, 2) places of the cells' centres, on the device and in the type of `like`."""
    axis = (torch.arange(side, device=like.device, dtype=like.dtype) + 0.5) * (2.0 / side) - 1.0
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=-1)


def squared_distances(centres: Tensor, keypoints: Tensor) -> Tensor:
    """(N, 2), (B, K, >=2) -> (B, K, N)."""
    return (keypoints[..., None, 0] - centres[:, 0]) ** 2 + (keypoints[..., None, 1] - centres[:, 1]) ** 2


def gaussian_maps(keypoints: Tensor, side: int) -> Tensor:
    """(B, K, 3) -> (B, K, side, side): one Gaussian per keypoint, scaled by its strength."""
    distances = squared_distances(cell_centres(side, keypoints), keypoints)
    maps = keypoints[..., 2:3] * torch.exp(-distances / (2 * GAUSSIAN_VARIANCE))
    return maps.unflatten(-1, (side, side))


def moved(basis: Tensor, change: Tensor) -> Tensor:
    """How far cells move when keypoints change: basis (..., M, 3 K) and changes (..., K, 3) -> (..., M, 2).

    The basis holds, for each keypoint, how far a cell goes along with its place, then how far right and how far down
    its strength pushes the cell.
    """
    place, strength = change[..., :2], change[..., 2:]
    nothing = torch.zeros_like(strength)
    right, down = torch.cat([strength, nothing], dim=-1), torch.cat([nothing, strength], dim=-1)
    return basis @ torch.cat([place, right, down], dim=-2)  # one product: the basis is large, and is read once


def finer(cells: Tensor, side: int) -> Tensor:
    """Values of the cells of a coarse square grid (..., b, n) -> of side * side cells (..., M, n), linear between."""
    coarse, count = round(int(cells.shape[-2]) ** 0.5), cells.shape[-1]  # plain numbers also while a graph is traced
    if coarse == side:
        return cells
    maps = cells.transpose(-1, -2).reshape(-1, count, coarse, coarse)
    maps = F.interpolate(maps, size=(side, side), mode="bilinear", align_corners=False)
    return maps.flatten(2).transpose(1, 2).reshape(*cells.shape[:-2], side * side, count)


def pose_distance(change: Tensor) -> Tensor:
    """Changes of keypoints (..., K, 3) -> mean squared distance (...), in squared [-1, 1] units."""
    return (change[..., :2].square().sum(-1) + STRENGTH_WEIGHT * change[..., 2].square()).mean(-1)


def later(x: Tensor) -> Tensor:
    """Something of S sources (..., S) -> 0 for the first of them, 1 for the others (..., S)."""
    return (torch.ones_like(x).cumsum(-1) > 1).to(x.dtype)  # the number of sources stays symbolic


PRIOR_DIMS = 4


class PriorTerms(NamedTuple):
    """What the prior knows of a key cell, in the cell units of the attention grid."""

    place: Tensor  # (..., M, 2): where the cell is predicted to be in the driving frame
    cost: Tensor  # (..., M): how far this part of the source is from the driving pose, >= 0


class GeometricPrior(nn.Module):
    """Predicts from keypoints alone where each source cell has gone, and adds it to the attention logits.

    Every source cell belongs softly to the keypoints near it (and to a resting background): weights w_k. It moves
    with them, and with their strengths: u(p') = p' + sum_k (w_k + r_k)(p') (kp_k^driving - kp_k^source)
    + sum_k v_k(p') (strength_k^driving - strength_k^source). The motion basis (w + r, v), of either sign, is learnt
    from the source picture so that the best keypoints carry its cells as near as can be to where they go; it is smooth,
    and lives on a coarser grid. The logit of
    query cell p and key cell p' gets -a |p - u(p')|^2 - sum_k w_k(p') b_k log(1 + d_k / e), where d_k is how far
    keypoint k is (in place and strength) from its driving self. The logarithm makes the choice among sources
    scale-free: half as far is always the same factor better, for a speaker who sits still and for one who walks.
    Sources other than the first pay a further cost: it is the first, as a rule the nearest in pose, that senders fit
    the keypoints to, and two pictures of a mouth that are not quite in the same place blend into none.

    All of it is a dot product of `PRIOR_DIMS` more query and key dimensions, so every attention kernel takes it
    unchanged. The weights depend on the source alone and are computed once.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.log_spread = nn.Parameter(torch.full((config.keypoints, 1), -2.3))  # 2 * variance of a keypoint's reach
        self.background = nn.Parameter(torch.tensor(-4.0))
        self.log_sharpness = nn.Parameter(torch.tensor(-0.5))  # a, per squared cell
        self.log_cost = nn.Parameter(torch.zeros(config.keypoints + 1))  # b; the last is the background's
        self.log_strength = nn.Parameter(torch.full((config.keypoints,), -4.0))  # a strength against a place
        self.log_second = nn.Parameter(torch.tensor(0.4))  # cost of the sources other than the first
        self.log_still = nn.Parameter(torch.tensor(-9.5))  # e: about a pixel of 256, squared

    def membership(self, keypoints: Tensor, side: int, parts: Tensor | None = None) -> Tensor:
        """Source keypoints (B, K, 3), learned part logits (B, K + 1, M) -> weights (B, M, K + 1), background last."""
        distances = squared_distances(cell_centres(side, keypoints), keypoints)
        near = -distances / self.log_spread.exp() + (keypoints[..., 2:3] + 1e-4).log()
        rest = self.background.expand(near.shape[0], 1, near.shape[-1])
        logits = torch.cat([near, rest], dim=1)
        return (logits if parts is None else logits + parts).softmax(dim=1).transpose(1, 2)

    def terms(self, membership: Tensor, basis: Tensor, source: Tensor, driving: Tensor, side: int) -> PriorTerms:
        """membership (..., M, K + 1), basis (..., b, 3 K), keypoints (..., K, 3) -> predicted places and costs of the M
        cells."""
        change = driving - source
        distance = change[..., :2].square().sum(-1) + self.log_strength.exp() * change[..., 2].square()
        # The background pays for the mean distance: a source near in pose also has its shadows and hair near.
        distance = torch.cat([distance, distance.mean(-1, keepdim=True)], dim=-1)
        cost = self.log_cost.exp() * torch.log1p(distance / self.log_still.exp())
        place = cell_centres(side, driving) + finer(moved(basis, change), side)
        cost = (membership @ cost[..., None])[..., 0] + self.log_second.exp() * later(change[..., 0, 0])[..., None]
        return PriorTerms(place * (side / 2), cost)

    def query_dims(self, side: int, like: Tensor) -> Tensor:
        """(side * side, 4): the dimensions added to the queries."""
        places = cell_centres(side, like) * (side / 2)
        square = places.square().sum(-1, keepdim=True)
        return torch.cat([places, square, torch.ones_like(square)], dim=-1)

    def key_dims(self, terms: PriorTerms) -> Tensor:
        """(..., M, 4): the dimensions added to the keys."""
        sharpness = self.log_sharpness.exp()
        square = terms.place.square().sum(-1, keepdim=True)
        bias = -sharpness * square - terms.cost[..., None]
        return torch.cat([2 * sharpness * terms.place, -sharpness.expand_as(square), bias], dim=-1)
