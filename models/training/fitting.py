"""Fitting keypoints to optical flow: the batched, differentiable twin of codec/fit/flow_fit.py.

The displacement of source cells is linear in the driving keypoints (geometry.displacements). So the keypoints that
carry the cells along the flow solve a robust least-squares problem, regularised towards the detected keypoints.
Training solves it in the loop: the motion basis learns to leave small residuals, and later layers see keypoints as
senders transmit them.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from iwcodec.models.fit_settings import FLOW_ERROR_SCALE, OUTLIER_DISTANCE, PLACE_PRIOR, STRENGTH_PRIOR
from iwcodec.models.flow import UNSURE
from iwcodec.models.network.geometry import cell_centres, not_first

IRLS_ITERATIONS = 2
"""Iterations of iteratively reweighted least squares."""
OTHER_SOURCE_WEIGHT = 0.15
"""Weight of sources other than the first, which the attention prefers."""
SOURCE_ERROR_SCALE = 3.0
"""Difference in flow error, in grey levels, by which a worse source loses a factor of e in weight."""


class Equations(NamedTuple):
    """Linear equations of the fit: one per flow cell, source and axis."""

    rows: Tensor  # (B, S, N, 2, 3 K): coefficients of the changes (x..., y..., strength...)
    moves: Tensor  # (B, S, N, 2): displacement of the cell, [-1, 1] units
    weights: Tensor  # (B, S, N): 0 where the flow is invalid, small where another source matches better
    trusted: Tensor  # (B, S, N): confidence in the flow alone


def equations(basis: Tensor, shift: Tensor, error: Tensor) -> Equations:
    """Set up the equations from the motion basis (B, S, M, 3 K), and the flow shifts (B, S, G, G, 2) and errors (B, S,
    G, G) of the driving frame's cells. The first source has the largest weight."""
    batch, sources, count, width = basis.shape
    side, grid = round(count**0.5), shift.shape[2]
    maps = basis.transpose(2, 3).reshape(batch * sources, width, side, side)
    positions = cell_centres(grid, shift).unflatten(0, (grid, grid)) + shift
    sampled = F.grid_sample(maps, positions.flatten(0, 1), padding_mode="border", align_corners=False)
    along, right, down = sampled.flatten(2).transpose(1, 2).unflatten(0, (batch, sources)).chunk(3, dim=-1)
    zero = torch.zeros_like(along)
    rows = torch.stack([torch.cat([along, zero, right], -1), torch.cat([zero, along, down], -1)], dim=-2)
    valid = error < UNSURE
    share = (-error / SOURCE_ERROR_SCALE).masked_fill(~valid, -1e4).softmax(1) * sources
    rank = 1 - (1 - OTHER_SOURCE_WEIGHT) * not_first(error[..., 0, 0])
    trusted = valid / (1 + error / FLOW_ERROR_SCALE)
    weights = trusted * share * rank[..., None, None]
    return Equations(rows, -shift.flatten(2, 3), weights.flatten(2), trusted.flatten(2))


def residuals(equations: Equations, driving: Tensor, sources: Tensor) -> Tensor:
    """Displacement of the cells by driving keypoints (B, K, 3), with source keypoints (B, S, K, 3), minus their
    displacement in the flow: (B, S, N, 2)."""
    change = (driving[:, None] - sources).transpose(2, 3).flatten(2)  # (B, S, 3 K)
    return torch.einsum("bsnck,bsk->bsnc", equations.rows, change) - equations.moves


def fit_keypoints(equations: Equations, detected: Tensor, sources: Tensor) -> Tensor:
    """Fit driving keypoints (B, K, 3), given the detected ones (B, K, 3) and those of the sources (B, S, K, 3)."""
    keypoints, count = detected.shape[1], sources.shape[1]
    prior = torch.full((3 * keypoints,), PLACE_PRIOR, device=detected.device)
    prior[2 * keypoints :] = STRENGTH_PRIOR
    start = detected.transpose(1, 2).flatten(1)
    source_values = sources.transpose(2, 3).flatten(2)
    target = equations.moves + torch.einsum("bsnck,bsk->bsnc", equations.rows, source_values)
    rows = equations.rows.flatten(1, 3)  # (B, S * N * 2, 3 K)
    fitted = detected
    for _ in range(IRLS_ITERATIONS):
        with torch.no_grad():
            distance = residuals(equations, fitted, sources).square().sum(-1)
            weights = equations.weights / (1 + distance / OUTLIER_DISTANCE**2) / count
            weights = weights[..., None].expand(-1, -1, -1, 2).flatten(1)
        weighted = (rows * weights[..., None]).transpose(1, 2)
        gram = weighted @ rows + prior.diag()
        right = (weighted @ target.flatten(1)[..., None])[..., 0] + prior * start
        solved = torch.linalg.solve(gram, right)
        fitted = solved.unflatten(1, (3, keypoints)).transpose(1, 2)
    low = torch.tensor([-1.0, -1.0, 0.0], device=detected.device)
    return fitted.maximum(low).minimum(torch.ones_like(low))
