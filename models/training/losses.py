"""What the network is trained on. Each function returns a scalar; weights are in the stage's `LossWeights`."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from iwcodec.models.network.geometry import cell_centres
from iwcodec.models.network.network import Warp
from iwcodec.models.training.data import UNSURE
from iwcodec.models.training.fitting import CHOICE_SOFTNESS

MISS_CELLS = 32
"""Cells to a unit of [-1, 1] that misses are counted in."""
STILL = 0.03
"""Cells: errors below are as good as none."""

UNSEEN = (1.5 / 255) ** 2
"""Squared error that is as good as none."""

LANDMARK_SIDE = 32
LANDMARK_STRENGTH = 2.0
LANDMARK_HEAT = 0.3

MATCH_CAP = 10.0
"""Nats: cells the flow got wrong must not pull the whole prior towards them."""


@dataclass(frozen=True)
class LossWeights:
    """FOMM's published weights are 10 for perceptual, feature matching and equivariance, with VGG-19 features."""

    l1: float = 10.0
    base: float = 5.0
    decibels: float = 0.0
    """Mean over pictures of log10 of the squared error: a decibel counts alike for calm speakers and lively ones."""
    match: float = 0.3
    """Cross-entropy of the pooled attention against the flow (per cell, in nats)."""
    place: float = 0.5
    """Distance of the attended place from the flow's (in 1/32 of the picture)."""
    choice: float = 0.2
    """Cross-entropy of the share of each source against how well flow warps it."""
    prior: float = 0.0
    """Distance of the places that keypoints alone predict from the flow's (root of it, in attention cells)."""
    fit: float = 0.0
    """The same of the places that the best keypoints predict (fitting.py): teaches the motion basis."""
    aligned: float = 0.0
    """As `decibels`, of the first source as aligned keypoints warp it (alignment.py): no net is needed for that."""
    landmark: float = 0.0
    """Distance of the first keypoints from facial landmarks (in 1/32 of the picture)."""
    equivariance: float = 2.0
    perceptual: float = 0.0
    adversarial: float = 0.0
    feature_matching: float = 0.0


@dataclass(frozen=True)
class Teacher:
    """Correspondences of a batch, at the teaching grid's G * G cells."""

    shift: Tensor  # (B, S, G * G, 2), [-1, 1] units
    share: Tensor  # (B, S, G * G): how much of the cell each source should give; 0 where nothing is known


def decibel_loss(picture: Tensor, target: Tensor) -> Tensor:
    """Pictures (B, n, H, W) -> minus a tenth of their mean PSNR, flat where errors cannot be seen."""
    return ((picture - target).square().mean((1, 2, 3)) + UNSEEN).log10().mean()


def teach(shift: Tensor, error: Tensor, side: int) -> Teacher:
    """Flow shifts (B, S, G, G, 2) and errors (B, S, G, G) -> targets on a side x side grid, G a multiple of side."""
    sure = (error < UNSURE).to(shift.dtype)
    fold = shift.shape[2] // side

    def pool(x: Tensor) -> Tensor:  # (B, S, G, G) -> (B, S, side, side), mean over the sure cells
        return F.avg_pool2d(x * sure, fold) / F.avg_pool2d(sure, fold).clamp(min=1e-3)

    known = F.avg_pool2d(sure, fold) >= 0.5
    score = (-pool(error) / CHOICE_SOFTNESS).masked_fill(~known, -1e4)
    share = score.softmax(1) * known
    pooled = torch.stack([pool(shift[..., 0]), pool(shift[..., 1])], dim=-1)
    return Teacher(pooled.flatten(2, 3), share.flatten(2))


def match_loss(logits: Tensor, teacher: Teacher, side: int) -> Tensor:
    """Cross-entropy of coarse attention logits (B, N, S * N) against the flow, bilinear over four cells."""
    count, cells = teacher.shift.shape[1], side * side
    place = cell_centres(side, logits) + teacher.shift
    at = (place + 1) * (side / 2) - 0.5  # in cells, 0 is the first centre
    low = at.floor()
    part = at - low
    log_p = logits.log_softmax(-1)
    first = torch.arange(count, device=logits.device).view(1, count, 1) * cells
    cell_loss = logits.new_zeros(teacher.share.shape[0], cells)
    for dy in (0, 1):
        for dx in (0, 1):
            weight = (part[..., 0] if dx else 1 - part[..., 0]) * (part[..., 1] if dy else 1 - part[..., 1])
            x = (low[..., 0] + dx).clamp(0, side - 1).long()
            y = (low[..., 1] + dy).clamp(0, side - 1).long()
            index = (first + y * side + x).transpose(1, 2)  # (B, N, S)
            cell_loss = cell_loss - (log_p.gather(-1, index).transpose(1, 2) * weight * teacher.share).sum(1)
    capped = MATCH_CAP * (1 - (-cell_loss / MATCH_CAP).exp())
    return capped.sum() / teacher.share.sum().clamp(min=1)


def place_loss(warp: Warp, teacher: Teacher, side: int) -> Tensor:
    """Smooth distance of attended places from the flow's, in teaching cells, weighted by the share each should give."""
    places, mass = pool_warp(warp, side)
    own = cell_centres(side, places) * (side / 2)
    target = own + teacher.shift * (side / 2)
    distance = F.smooth_l1_loss(places, target, reduction="none", beta=0.5).sum(-1)
    weight = teacher.share * (mass.detach() > 0.02)
    return (distance * weight).sum() / weight.sum().clamp(min=1)


def miss_loss(missed: Tensor, weights: Tensor) -> Tensor:
    """Distances by which keypoints miss the flow (B, S, N, 2; fitting.missed), weights (B, S, N) -> mean root of the
    distance, in 1/64 of the picture. The root keeps small errors of calm speakers worth mending."""
    distance = ((missed * MISS_CELLS).square().sum(-1) + STILL**2).sqrt().sqrt()
    return (distance * weights).sum() / weights.sum().clamp(min=1)


def landmark_loss(keypoints: Tensor, heat: Tensor, landmarks: Tensor) -> Tensor:
    """Keypoints (B, K, 3) and their heatmaps (B, K, side * side) against landmarks (B, P, 3), P <= K, NaN: unknown.

    Places count in cells of LANDMARK_SIDE, a strength's full swing as LANDMARK_STRENGTH of them. The cross-entropy of
    the heatmaps against the four cells around the landmark teaches many times quicker than the places alone.
    """
    taught = landmarks.shape[1]
    known = landmarks.isfinite()
    truth = torch.where(known, landmarks, keypoints[:, :taught].detach())
    gap = keypoints[:, :taught] - truth
    places = (gap[..., :2].square().sum(-1) * (LANDMARK_SIDE / 2) ** 2 + STILL**2).sqrt()
    strengths = gap[..., 2].abs() * LANDMARK_STRENGTH
    surprise = -(bilinear(heat[:, :taught], truth[..., :2]) + 1e-6).log()
    total = (places + LANDMARK_HEAT * surprise + strengths) * known[..., 0]
    return total.sum() / known[..., 0].sum().clamp(min=1)


def bilinear(maps: Tensor, places: Tensor) -> Tensor:
    """Maps (B, P, side * side) at places (B, P, 2) in [-1, 1], linear between cells -> (B, P)."""
    side = int(maps.shape[-1] ** 0.5)
    flat = maps.flatten(0, 1).unflatten(1, (1, side, side))
    at = places.flatten(0, 1)[:, None, None]
    return F.grid_sample(flat, at, padding_mode="border", align_corners=False).view(maps.shape[:2])


def choice_loss(warp: Warp, teacher: Teacher, side: int) -> Tensor:
    """Cross-entropy of the attention's mass per source against the teacher's shares."""
    _, mass = pool_warp(warp, side)
    return -(teacher.share * (mass + 1e-4).log()).sum() / teacher.share.sum().clamp(min=1)


def pool_warp(warp: Warp, side: int) -> tuple[Tensor, Tensor]:
    """Warp of a finer grid -> places (B, S, side * side, 2), in cells of the coarser grid, and mass."""
    fine = int(warp.mass.shape[-1] ** 0.5)
    fold = fine // side
    mass = F.avg_pool2d(warp.mass.unflatten(-1, (fine, fine)), fold).flatten(2)
    planes = warp.places.unflatten(2, (fine, fine))
    places = torch.stack([F.avg_pool2d(planes[..., i], fold).flatten(2) for i in (0, 1)], dim=-1)
    return places / fold, mass


def random_affine(batch: int, like: Tensor) -> Tensor:
    """(B, 2, 3): rotation up to 20 degrees, scale 0.8..1.2, shift up to 0.2."""
    angle = (torch.rand(batch, device=like.device) * 2 - 1) * 0.35
    scale = 1 + (torch.rand(batch, device=like.device) * 2 - 1) * 0.2
    shift = (torch.rand(batch, 2, device=like.device) * 2 - 1) * 0.2
    cos, sin = angle.cos() * scale, angle.sin() * scale
    rows = torch.stack([cos, -sin, shift[:, 0], sin, cos, shift[:, 1]], dim=-1)
    return rows.view(batch, 2, 3).to(like.dtype)


def equivariance_loss(moved: Tensor, keypoints: Tensor, affine: Tensor) -> Tensor:
    """Keypoints of a moved picture, carried back, against those of the picture itself (FOMM, section 3.1).

    The moved picture shows at p what the picture shows at `affine`(p).
    """
    carried = moved[..., :2] @ affine[:, :, :2].transpose(1, 2) + affine[:, None, :, 2]
    return (carried - keypoints[..., :2]).abs().mean() + 0.2 * (moved[..., 2] - keypoints[..., 2]).abs().mean()
