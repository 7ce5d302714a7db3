"""Aligning a source, as the keypoints move it, with the driving frame: what senders do (codec/alignment.py), batched.

Gauss-Newton on the squared grey differences. The keypoints it finds leave least error, so that how the error changes
with the motion basis is known without a gradient through the search (the envelope theorem).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from iwcodec.models.fit_settings import BLURS, HOLD_PLACE, HOLD_STRENGTH, INVERSIONS, ODD, STILL
from iwcodec.models.flow import FLOW_SIZE, GRID
from iwcodec.models.network.detector import fit
from iwcodec.models.network.geometry import cell_centres, finer, moved


def grey(pictures: Tensor) -> Tensor:
    """(B, 3, H, W) in 0..1 -> grey levels (B, 1, FLOW_SIZE, FLOW_SIZE)."""
    small = fit(pictures, FLOW_SIZE) * 255
    return (small * small.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)


def blurred(planes: Tensor, sigma: float) -> Tensor:
    """(B, 1, H, W), by a Gaussian of so many pixels."""
    reach = int(3 * sigma + 1)
    taps = torch.arange(-reach, reach + 1, device=planes.device, dtype=planes.dtype)
    taps = (-(taps**2) / (2 * sigma**2)).exp()
    taps = taps / taps.sum()
    padded = F.pad(planes, (reach,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, taps.view(1, 1, 1, -1)), taps.view(1, 1, -1, 1))


def backward(basis: Tensor, change: Tensor) -> Tensor:
    """Motion basis (B, b, 3 K) and changes of the keypoints (B, K, 3) -> where each cell of the driving frame is in the
    source, less where it is itself: (B, 2, GRID, GRID). The gradient is that of the last of the fixed-point steps."""
    forward = as_maps(finer(moved(basis, change), GRID))
    with torch.no_grad():
        back = -forward
        for _ in range(INVERSIONS):
            back = -at(forward, back)
    return -at(forward, back)


def warp(planes: Tensor, back: Tensor) -> Tensor:
    """Source (B, n, H, W), sampled where a backward field leads to."""
    return at(planes, F.interpolate(back, size=planes.shape[-2:], mode="bilinear", align_corners=False))


def at(planes: Tensor, back: Tensor) -> Tensor:
    side = back.shape[-1]
    places = cell_centres(side, back).unflatten(0, (side, side)) + back.permute(0, 2, 3, 1)
    return F.grid_sample(planes, places, padding_mode="border", align_corners=False)


def as_maps(cells: Tensor) -> Tensor:
    """(B, side * side, n) -> (B, n, side, side)."""
    side = round(cells.shape[1] ** 0.5)
    return cells.transpose(1, 2).unflatten(2, (side, side))


@torch.no_grad()
def align(basis: Tensor, of_source: Tensor, source: Tensor, driving: Tensor, start: Tensor) -> Tensor:
    """Motion basis (B, b, 3 K), keypoints (B, K, 3) and grey levels of the sources, grey levels of the driving frames,
    keypoints to start from -> keypoints aligned (B, K, 3)."""
    keypoints = start
    fine = finer(basis, GRID)
    held = basis.new_full((basis.shape[-1],), HOLD_PLACE)
    held[2 * basis.shape[-1] // 3 :] = HOLD_STRENGTH
    for sigma in BLURS:
        seen, wanted = blurred(source, sigma), blurred(driving, sigma)
        back = backward(basis, keypoints - of_source)
        cells = structure(warp(seen, back), wanted)
        strayed = (keypoints - start).transpose(1, 2).flatten(1)
        rows = at(as_maps(fine), back).flatten(2).transpose(1, 2)
        gram, right = normal_equations(rows, cells, strayed)
        gram = gram + STILL * held.diag()
        right = right - STILL * held * strayed
        change = torch.linalg.solve(gram, right[..., None])[..., 0]
        keypoints = keypoints + change.unflatten(1, (3, -1)).transpose(1, 2)
        low = keypoints.new_tensor([-1.0, -1.0, 0.0])
        keypoints = keypoints.maximum(low).minimum(torch.ones_like(low))
    return keypoints


def structure(warped: Tensor, wanted: Tensor) -> Tensor:
    """(B, 1, H, W) each -> of each cell, how its squared error grows with its move (xx, xy, yy), and what it gains from
    one to the left and up (x, y): (B, M, 5)."""
    missing = wanted - warped
    odd = 1 / (1 + (missing / ODD).square())
    padded = F.pad(warped, (1, 1, 1, 1), mode="replicate")
    side = warped.shape[-1]
    right = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) * (side / 4)
    down = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) * (side / 4)
    planes = [right * right, right * down, down * down, missing * right, missing * down]
    fold = side // GRID
    cells = F.avg_pool2d(odd * torch.cat(planes, dim=1), fold) * fold**2
    return cells.flatten(2).transpose(1, 2)


def normal_equations(rows: Tensor, cells: Tensor, strayed: Tensor) -> tuple[Tensor, Tensor]:
    """Basis at the cells (B, M, 3 K), structure (B, M, 5), how far the unknowns are from where they started (B, 3 K) ->
    gram (B, 3 K, 3 K), right-hand side (B, 3 K); unknowns are all x, all y, all strengths."""
    along, right, down = rows.chunk(3, dim=-1)
    nothing = torch.zeros_like(along)
    x, y = torch.cat([along, nothing, right], dim=-1), torch.cat([nothing, along, down], dim=-1)
    xx, xy, yy, gain_x, gain_y = cells.unsqueeze(-2).unbind(-1)
    xx, yy = xx + STILL, yy + STILL
    gram = x.transpose(1, 2) @ (xx * x + xy * y) + y.transpose(1, 2) @ (xy * x + yy * y)
    moved_x, moved_y = x @ strayed[..., None], y @ strayed[..., None]
    gains = x.transpose(1, 2) @ (gain_x + STILL * moved_x) + y.transpose(1, 2) @ (gain_y + STILL * moved_y)
    return gram, -gains[..., 0]
