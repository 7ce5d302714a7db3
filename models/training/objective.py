"""The training objective: network and losses of one batch as a single module.

Batches (data/samples.py) hold G clips with D driving frames and S sources each; B = G * D driving frames.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iwcodec.models.flow import GRID
from iwcodec.models.network.geometry import cell_centres, squared_distances
from iwcodec.models.network.layers import resize
from iwcodec.models.network.network import ImplicitWarp, Sources
from iwcodec.models.training import alignment, fitting, losses
from iwcodec.models.training.config import Stage
from iwcodec.models.training.perceptual import PerceptualLoss

DROPOUT_RATE = 0.1
"""Semantic dropout: share of samples that lose the cells around one keypoint in every source."""
DROPOUT_RADIUS = 0.25
"""Semantic dropout: radius of the hidden region in [-1, 1] units."""
MAX_FLOW_ERROR = 40.0
"""Upper bound in grey levels on a cell's flow error when sources are ranked; cells without valid flow count as this."""
STRENGTH_NOISE = 4.0
"""Ratio of the quantisation noise of strengths to that of places: strengths are quantised this much more coarsely."""

Losses = dict[str, Tensor]
"""Unweighted losses by their name in LossWeights."""


class Objective(nn.Module):
    """Network and losses as one module, so that DistributedDataParallel sees a single forward pass."""

    def __init__(self, network: ImplicitWarp, perceptual: PerceptualLoss | None) -> None:
        super().__init__()
        self.network = network
        self.perceptual = perceptual

    def forward(self, batch: dict[str, Tensor], stage: Stage) -> tuple[Losses, Tensor, Tensor]:
        """Return the losses, the generated pictures and their targets, both (B, 3, H, W).

        Stages with `motion_only` generate no pictures and return the targets in their place."""
        if stage.motion_only:
            return self.motion_losses(batch, stage)
        if stage.only:
            return self.picture_losses(batch, stage)
        network = self.network
        driving, sources = batch["driving"], batch["sources"]
        count, target = driving.shape[1], driving.flatten(0, 1)
        keypoints, source_keypoints, result = self.detect_keypoints(batch, stage)
        if stage.shrink > 1:
            target = F.avg_pool2d(target, stage.shrink)
            sources = F.avg_pool2d(sources.flatten(0, 1), stage.shrink).unflatten(0, sources.shape[:2])
        encoded = network.encode_sources(sources, source_keypoints)
        order, shift, error = best_source_first(batch)
        repeated = Sources(*(reorder(part.repeat_interleave(count, 0), order) for part in encoded))
        side = network.side(target)
        fitted = keypoints
        if stage.wants_motion:
            motion = Motion(
                repeated.basis, repeated.keypoints, keypoints, shift, error, repeated.pictures[:, 0], target
            )
            fitted, motion_losses = self.fit_motion(motion, stage)
            result |= motion_losses
        out = network.generate(
            self.transmitted(keypoints, fitted, stage),
            repeated,
            dense=side <= 16,
            dropped=semantic_dropout(repeated.keypoints, side) if self.training else None,
            want_logits=bool(stage.weights.match),
        )
        fine = min(side, GRID)
        teacher = losses.teach(shift, error, fine)
        result |= {
            "l1": (out.picture - target).abs().mean(),
            "base": (out.base - target).abs().mean(),
            "decibels": losses.decibel_loss(out.picture, target),
            "place": losses.place_loss(out.warp, teacher, fine),
            "choice": losses.choice_loss(out.warp, teacher, fine),
        }
        if out.coarse_logits is not None:
            coarse_teacher = losses.teach(shift, error, side // 2)
            result["match"] = losses.match_loss(out.coarse_logits, coarse_teacher, side // 2)
        if self.perceptual is not None and stage.weights.perceptual:
            result["perceptual"] = self.perceptual(*random_crop(stage.perceptual_side, out.picture, target))
        return result, out.picture, target

    def motion_losses(self, batch: dict[str, Tensor], stage: Stage) -> tuple[Losses, Tensor, Tensor]:
        """`forward` for stages that train motion only."""
        network, sources = self.network, batch["sources"]
        target, count = batch["driving"].flatten(0, 1), batch["driving"].shape[1]
        keypoints, source_keypoints, result = self.detect_keypoints(batch, stage)
        basis = network.motion_basis(sources.flatten(0, 1), source_keypoints.flatten(0, 1))
        basis = basis.unflatten(0, sources.shape[:2])
        order, shift, error = best_source_first(batch)
        basis, source_keypoints = (
            reorder(part.repeat_interleave(count, 0), order) for part in (basis, source_keypoints)
        )
        reference = reorder(sources.repeat_interleave(count, 0), order)[:, 0]
        motion = Motion(basis, source_keypoints, keypoints, shift, error, reference, target)
        return result | self.fit_motion(motion, stage)[1], target, target

    def picture_losses(self, batch: dict[str, Tensor], stage: Stage) -> tuple[Losses, Tensor, Tensor]:
        """`forward` for stages that train only a part of the network, with the losses on the picture alone."""
        network, sources = self.network, batch["sources"]
        count, target = batch["driving"].shape[1], batch["driving"].flatten(0, 1)
        source_keypoints = network.detect(sources.flatten(0, 1)).unflatten(0, sources.shape[:2])
        encoded = network.encode_sources(sources, source_keypoints)
        detected = network.detect(target)
        order, shift, error = best_source_first(batch)
        repeated = Sources(*(reorder(part.repeat_interleave(count, 0), order) for part in encoded))
        motion = Motion(repeated.basis, repeated.keypoints, detected, shift, error, repeated.pictures[:, 0], target)
        fitted, _ = self.fit_motion(motion, stage)
        picture = network.generate(self.transmitted(detected, fitted, stage), repeated).picture
        result = {"l1": (picture - target).abs().mean()}
        if self.perceptual is not None and stage.weights.perceptual:
            result["perceptual"] = self.perceptual(*random_crop(stage.perceptual_side, picture, target))
        return result, picture, target

    def detect_keypoints(self, batch: dict[str, Tensor], stage: Stage) -> tuple[Tensor, Tensor, Losses]:
        """Return the keypoints of the driving frames (B, K, 3) and of the sources (G, S, K, 3), and their losses."""
        network, sources, weights = self.network, batch["sources"], stage.weights
        target, count, clips = batch["driving"].flatten(0, 1), batch["driving"].shape[1], len(sources)
        size = network.config.detector_size
        scaled = torch.cat([resize(target, size), resize(sources.flatten(0, 1), size)])
        keypoints, heat = network.detector.locate(scaled)
        driving_keypoints, source_keypoints = keypoints.split([clips * count, clips * sources.shape[1]])
        result = {}
        if weights.landmark:
            landmarks = [batch["driving_landmarks"].flatten(0, 1), batch["source_landmarks"].flatten(0, 1)]
            result["landmark"] = losses.landmark_loss(keypoints, heat, torch.cat(landmarks))
        if weights.equivariance:
            transformed, affine = random_transform(batch["driving"][:, 0], network.config.detector_size)
            detected = network.detect(transformed)
            result["equivariance"] = losses.equivariance_loss(detected, driving_keypoints[::count], affine)
        return driving_keypoints, source_keypoints.unflatten(0, sources.shape[:2]), result

    def fit_motion(self, motion: "Motion", stage: Stage) -> tuple[Tensor, Losses]:
        """Fit keypoints as a sender does: return fitted keypoints (B, K, 3), and the motion losses of the fitted and of
        the detected keypoints."""
        weights, noise = stage.weights, stage.noise if stage.motion_only else 0.0
        equations = fitting.equations(motion.basis, motion.shift, motion.error)
        fitted = fitting.fit_keypoints(equations, motion.detected, motion.source_keypoints)
        noisy = fitted + quantisation_noise(fitted, noise)
        residuals = fitting.residuals(equations, noisy, motion.source_keypoints)
        result = {"fit": losses.miss_loss(residuals, equations.weights)}
        if weights.prior:
            residuals = fitting.residuals(equations, motion.detected, motion.source_keypoints)
            result["prior"] = losses.miss_loss(residuals, equations.trusted)
        if stage.motion_only and not weights.aligned:
            return fitted, result
        basis, source_keypoints = motion.basis[:, 0], motion.source_keypoints[:, 0]
        source, driving = alignment.grey(motion.reference), alignment.grey(motion.driving)
        aligned = alignment.align(basis, source_keypoints, source, driving, fitted)
        noisy = aligned + quantisation_noise(aligned, noise)
        warped = alignment.warp(source, alignment.backward(basis, noisy - source_keypoints))
        result["aligned"] = losses.decibel_loss(warped / 255, driving / 255)
        return aligned, result

    def transmitted(self, detected: Tensor, fitted: Tensor, stage: Stage) -> Tensor:
        """Return the driving keypoints (B, K, 3) from which pictures are generated: a random mix of detected and fitted
        ones, with quantisation noise."""
        use_fitted = torch.rand(len(detected), 1, 1, device=detected.device) < stage.fitted
        keypoints = torch.where(use_fitted, fitted.detach(), detected)
        return keypoints + quantisation_noise(keypoints, stage.noise)


class Motion(NamedTuple):
    """Inputs of the keypoint fit for driving frames and their sources; the first source is the reference source."""

    basis: Tensor  # (B, S, b, 3 K)
    source_keypoints: Tensor  # (B, S, K, 3)
    detected: Tensor  # (B, K, 3)
    shift: Tensor  # (B, S, GRID, GRID, 2)
    error: Tensor  # (B, S, GRID, GRID)
    reference: Tensor  # (B, 3, H, W): pictures of the reference source
    driving: Tensor  # (B, 3, H, W)


def random_transform(pictures: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Apply random affine transforms, for the equivariance loss: return pictures (B, 3, size, size) and transforms."""
    affine = losses.random_affine(pictures.shape[0], pictures)
    field = F.affine_grid(affine, [pictures.shape[0], 3, size, size], align_corners=False)
    return F.grid_sample(pictures, field, padding_mode="reflection", align_corners=False), affine


def best_source_first(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Order the sources by mean flow error, so that the first one is the reference source that a sender would choose.

    Returns the order (B, S), and the batch's flow shifts and errors in that order."""
    shift, error = batch["shift"].flatten(0, 1), batch["error"].flatten(0, 1)
    order = error.clamp(max=MAX_FLOW_ERROR).mean((2, 3)).argsort(1)
    return order, reorder(shift, order), reorder(error, order)


def reorder(sources: Tensor, order: Tensor) -> Tensor:
    """Reorder the sources of a tensor (B, S, ...) by indices (B, S)."""
    return sources[torch.arange(len(order), device=order.device)[:, None], order]


def quantisation_noise(keypoints: Tensor, largest: float) -> Tensor:
    """Uniform noise for keypoints (B, K, 3): up to `largest` in [-1, 1] units for places, STRENGTH_NOISE times as much
    for strengths."""
    return (torch.rand_like(keypoints) * 2 - 1) * keypoints.new_tensor([1, 1, STRENGTH_NOISE]) * largest


def random_crop(side: int, *pictures: Tensor) -> list[Tensor]:
    """Crop all pictures (B, 3, H, W) to the same random square of `side` pixels; 0 returns them unchanged."""
    height, width = pictures[0].shape[-2:]
    if not side:
        return list(pictures)
    top, left = (int(torch.randint(extent - side + 1, ())) for extent in (height, width))
    return [picture[..., top : top + side, left : left + side] for picture in pictures]


def semantic_dropout(keypoints: Tensor, side: int) -> Tensor:
    """Choose cells to hide from the attention (paper, section 3.2): those around one keypoint, in every source of a few
    samples.

    Keypoints of the sources (B, S, K, 3) -> mask (B, S, side * side), bool."""
    batch, count, total, _ = keypoints.shape
    centre = torch.randint(total, (batch, 1, 1, 1), device=keypoints.device).expand(-1, count, 1, 3)
    place = keypoints.detach().gather(2, centre).flatten(0, 1)
    distance = squared_distances(cell_centres(side, keypoints), place)[:, 0].unflatten(0, (batch, count))
    chosen = torch.rand(batch, 1, 1, device=keypoints.device) < DROPOUT_RATE
    return (distance < DROPOUT_RADIUS**2) & chosen
