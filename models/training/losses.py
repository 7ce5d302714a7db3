"""Losses. Each function returns an unweighted scalar; the weights are in the stage's `LossWeights`.

The paper trains with L1, perceptual, adversarial, feature-matching and keypoint-equivariance losses; the losses on
flow, landmarks and decibels are additions.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from iwcodec.models.flow import UNSURE
from iwcodec.models.network.geometry import cell_centres
from iwcodec.models.network.warp import Warp
from iwcodec.models.training.fitting import SOURCE_ERROR_SCALE

MISS_CELLS = 32
"""Cells per [-1, 1] unit in which residuals are measured."""
NEGLIGIBLE_MISS = 0.03
"""Residual in cells below which the loss is flat."""

NEGLIGIBLE_ERROR = (1.5 / 255) ** 2
"""Mean squared error of a picture below which the decibel loss is flat."""

LANDMARK_SIDE = 32
"""Cells per picture side in which distances to landmarks are measured."""
LANDMARK_STRENGTH = 2.0
"""Cells that a full change of a strength counts as."""
LANDMARK_HEAT = 0.3
"""Weight of the heatmap cross-entropy in the landmark loss."""

MATCH_CAP = 10.0
"""Upper bound in nats on the match loss of a cell, so that cells with wrong flow do not dominate."""


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses; 0 switches one off.

    FOMM's published weights are 10 for perceptual, feature matching and equivariance, with VGG-19 features."""

    l1: float = 10.0
    base: float = 5.0
    decibels: float = 0.0
    """Mean over pictures of log10 of the squared error: one decibel counts the same for static and for moving
    speakers."""
    match: float = 0.3
    """Cross-entropy of the pooled attention with respect to the flow (nats per cell)."""
    place: float = 0.5
    """Distance of the attended position from that of the flow (in 1/32 of the picture)."""
    choice: float = 0.2
    """Cross-entropy of the share of each source with respect to how well the flow warps it."""
    prior: float = 0.0
    """Square root of the residual, in cells, of the displacements predicted from the detected keypoints."""
    fit: float = 0.0
    """As `prior`, with keypoints fitted to the flow (fitting.py) instead of detected ones; trains the motion basis."""
    aligned: float = 0.0
    """As `decibels`, for the first source warped by aligned keypoints (alignment.py), without the network."""
    landmark: float = 0.0
    """Distance of the first keypoints from the facial landmarks (in 1/32 of the picture)."""
    equivariance: float = 2.0
    perceptual: float = 0.0
    adversarial: float = 0.0
    feature_matching: float = 0.0


@dataclass(frozen=True)
class Teacher:
    """Target correspondences of a batch on a grid of G * G cells."""

    shift: Tensor  # (B, S, G * G, 2), [-1, 1] units
    share: Tensor  # (B, S, G * G): target share of each source; 0 where the flow is invalid


def decibel_loss(picture: Tensor, target: Tensor) -> Tensor:
    """Minus a tenth of the mean PSNR of pictures (B, n, H, W); flat where errors are invisible."""
    return ((picture - target).square().mean((1, 2, 3)) + NEGLIGIBLE_ERROR).log10().mean()


def teach(shift: Tensor, error: Tensor, side: int) -> Teacher:
    """Flow shifts (B, S, G, G, 2) and errors (B, S, G, G) -> targets on a side x side grid; G must be a multiple of
    side."""
    valid = (error < UNSURE).to(shift.dtype)
    fold = shift.shape[2] // side

    def pool(x: Tensor) -> Tensor:  # (B, S, G, G) -> (B, S, side, side), mean over valid cells
        return F.avg_pool2d(x * valid, fold) / F.avg_pool2d(valid, fold).clamp(min=1e-3)

    known = F.avg_pool2d(valid, fold) >= 0.5
    score = (-pool(error) / SOURCE_ERROR_SCALE).masked_fill(~known, -1e4)
    share = score.softmax(1) * known
    pooled = torch.stack([pool(shift[..., 0]), pool(shift[..., 1])], dim=-1)
    return Teacher(pooled.flatten(2, 3), share.flatten(2))


def match_loss(logits: Tensor, teacher: Teacher, side: int) -> Tensor:
    """Cross-entropy of coarse attention logits (B, N, S * N) with respect to the flow, distributed bilinearly over four
    cells."""
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
    """Smooth L1 distance, in cells, of attended positions from those of the flow, weighted by the target share."""
    places, mass = pool_warp(warp, side)
    own = cell_centres(side, places) * (side / 2)
    target = own + teacher.shift * (side / 2)
    distance = F.smooth_l1_loss(places, target, reduction="none", beta=0.5).sum(-1)
    weight = teacher.share * (mass.detach() > 0.02)
    return (distance * weight).sum() / weight.sum().clamp(min=1)


def miss_loss(residuals: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of the square root of residuals (B, S, N, 2; fitting.residuals) in 1/64 of the picture.

    The square root keeps a gradient for the small errors of static speakers."""
    distance = ((residuals * MISS_CELLS).square().sum(-1) + NEGLIGIBLE_MISS**2).sqrt().sqrt()
    return (distance * weights).sum() / weights.sum().clamp(min=1)


def landmark_loss(keypoints: Tensor, heat: Tensor, landmarks: Tensor) -> Tensor:
    """Distance of the first P keypoints (B, K, 3) from landmarks (B, P, 3), NaN where unknown.

    Adds the cross-entropy of the heatmaps (B, K, side * side) with respect to the four cells around the landmark, which
    trains many times faster than the distance alone.
    """
    count = landmarks.shape[1]
    known = landmarks.isfinite()
    truth = torch.where(known, landmarks, keypoints[:, :count].detach())
    gap = keypoints[:, :count] - truth
    places = (gap[..., :2].square().sum(-1) * (LANDMARK_SIDE / 2) ** 2 + NEGLIGIBLE_MISS**2).sqrt()
    strengths = gap[..., 2].abs() * LANDMARK_STRENGTH
    cross_entropy = -(bilinear(heat[:, :count], truth[..., :2]) + 1e-6).log()
    total = (places + LANDMARK_HEAT * cross_entropy + strengths) * known[..., 0]
    return total.sum() / known[..., 0].sum().clamp(min=1)


def bilinear(maps: Tensor, places: Tensor) -> Tensor:
    """Sample maps (B, P, side * side) bilinearly at positions (B, P, 2) in [-1, 1] -> (B, P)."""
    side = int(maps.shape[-1] ** 0.5)
    flat = maps.flatten(0, 1).unflatten(1, (1, side, side))
    at = places.flatten(0, 1)[:, None, None]
    return F.grid_sample(flat, at, padding_mode="border", align_corners=False).view(maps.shape[:2])


def choice_loss(warp: Warp, teacher: Teacher, side: int) -> Tensor:
    """Cross-entropy of the attention mass per source with respect to the target shares."""
    _, mass = pool_warp(warp, side)
    return -(teacher.share * (mass + 1e-4).log()).sum() / teacher.share.sum().clamp(min=1)


def pool_warp(warp: Warp, side: int) -> tuple[Tensor, Tensor]:
    """Pool a warp to a coarser grid: positions (B, S, side * side, 2) in cells of that grid, and mass."""
    fine = int(warp.mass.shape[-1] ** 0.5)
    fold = fine // side
    mass = F.avg_pool2d(warp.mass.unflatten(-1, (fine, fine)), fold).flatten(2)
    planes = warp.places.unflatten(2, (fine, fine))
    places = torch.stack([F.avg_pool2d(planes[..., i], fold).flatten(2) for i in (0, 1)], dim=-1)
    return places / fold, mass


def random_affine(batch: int, like: Tensor) -> Tensor:
    """Random affine transforms (B, 2, 3): rotation up to 20 degrees, scale 0.8 to 1.2, shift up to 0.2."""
    angle = (torch.rand(batch, device=like.device) * 2 - 1) * 0.35
    scale = 1 + (torch.rand(batch, device=like.device) * 2 - 1) * 0.2
    shift = (torch.rand(batch, 2, device=like.device) * 2 - 1) * 0.2
    cos, sin = angle.cos() * scale, angle.sin() * scale
    rows = torch.stack([cos, -sin, shift[:, 0], sin, cos, shift[:, 1]], dim=-1)
    return rows.view(batch, 2, 3).to(like.dtype)


def equivariance_loss(transformed: Tensor, keypoints: Tensor, affine: Tensor) -> Tensor:
    """Distance between keypoints detected in a transformed picture, mapped back, and those of the picture itself (FOMM,
    section 3.1; also a loss of the paper).

    The transformed picture shows at p what the picture shows at `affine`(p).
    """
    mapped = transformed[..., :2] @ affine[:, :, :2].transpose(1, 2) + affine[:, None, :, 2]
    return (mapped - keypoints[..., :2]).abs().mean() + 0.2 * (transformed[..., 2] - keypoints[..., 2]).abs().mean()
