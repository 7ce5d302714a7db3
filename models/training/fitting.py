"""Fitting keypoints to known motion: what the sender does (codec/refinement.py), batched and differentiable.

Where a source cell goes is linear in the driving keypoints (geometry.moved), so the keypoints that carry the sources'
cells along the flow are those of a robust least squares problem, held to what the detector found. Training solves it
in the loop: the motion basis learns to leave little over, and everything after it sees keypoints as they are sent.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from iwcodec.models.fit_settings import DOUBT, HOLD_PLACE, HOLD_STRENGTH, SOFTNESS
from iwcodec.models.flow import UNSURE
from iwcodec.models.network.geometry import cell_centres, later

ROUNDS = 2
SECOND = 0.15
"""Weight of sources other than the first, which attention prefers."""
CHOICE_SOFTNESS = 3.0
"""Grey levels by which a source may be worse than another and still count."""


class Equations(NamedTuple):
    """For each cell of a flow and each source: the row of the basis there, and how far that cell went."""

    rows: Tensor  # (B, S, N, 2, 3 K): displacement in x and y by change of (x..., y..., strength...)
    moves: Tensor  # (B, S, N, 2), [-1, 1] units
    weights: Tensor  # (B, S, N): 0 where the flow is not to be trusted, or another source shows the cell better
    trusted: Tensor  # (B, S, N): how far the flow is to be trusted, whichever source is better


def equations(basis: Tensor, shift: Tensor, error: Tensor) -> Equations:
    """Basis (B, S, M, 3 K); flow shifts (B, S, G, G, 2), errors (B, S, G, G) of the driving frame's cells. The first
    source counts most."""
    batch, sources, count, width = basis.shape
    side, grid = round(count**0.5), shift.shape[2]
    maps = basis.transpose(2, 3).reshape(batch * sources, width, side, side)
    there = cell_centres(grid, shift).unflatten(0, (grid, grid)) + shift
    found = F.grid_sample(maps, there.flatten(0, 1), padding_mode="border", align_corners=False)
    along, right, down = found.flatten(2).transpose(1, 2).unflatten(0, (batch, sources)).chunk(3, dim=-1)
    nothing = torch.zeros_like(along)
    rows = torch.stack([torch.cat([along, nothing, right], -1), torch.cat([nothing, along, down], -1)], dim=-2)
    known = error < UNSURE
    share = (-error / CHOICE_SOFTNESS).masked_fill(~known, -1e4).softmax(1) * sources
    rank = 1 - (1 - SECOND) * later(error[..., 0, 0])
    trusted = known / (1 + error / DOUBT)
    weights = trusted * share * rank[..., None, None]
    return Equations(rows, -shift.flatten(2, 3), weights.flatten(2), trusted.flatten(2))


def missed(equations: Equations, driving: Tensor, sources: Tensor) -> Tensor:
    """How far keypoints (B, K, 3) carry the cells of sources (B, S, K, 3) past where they went: (B, S, N, 2)."""
    change = (driving[:, None] - sources).transpose(2, 3).flatten(2)  # (B, S, 3 K)
    return torch.einsum("bsnck,bsk->bsnc", equations.rows, change) - equations.moves


def fit_keypoints(equations: Equations, detected: Tensor, sources: Tensor) -> Tensor:
    """Detected driving keypoints (B, K, 3), keypoints of the sources (B, S, K, 3) -> fitted keypoints (B, K, 3)."""
    keypoints, count = detected.shape[1], sources.shape[1]
    hold = torch.full((3 * keypoints,), HOLD_PLACE, device=detected.device)
    hold[2 * keypoints :] = HOLD_STRENGTH
    start = detected.transpose(1, 2).flatten(1)
    of_sources = sources.transpose(2, 3).flatten(2)
    target = equations.moves + torch.einsum("bsnck,bsk->bsnc", equations.rows, of_sources)
    rows = equations.rows.flatten(1, 3)  # (B, S * N * 2, 3 K)
    fitted = detected
    for _ in range(ROUNDS):
        with torch.no_grad():
            distance = missed(equations, fitted, sources).square().sum(-1)
            weights = equations.weights / (1 + distance / SOFTNESS**2) / count
            weights = weights[..., None].expand(-1, -1, -1, 2).flatten(1)
        weighted = (rows * weights[..., None]).transpose(1, 2)
        gram = weighted @ rows + hold.diag()
        right = (weighted @ target.flatten(1)[..., None])[..., 0] + hold * start
        solved = torch.linalg.solve(gram, right)
        fitted = solved.unflatten(1, (3, keypoints)).transpose(1, 2)
    low = torch.tensor([-1.0, -1.0, 0.0], device=detected.device)
    return fitted.maximum(low).minimum(torch.ones_like(low))
