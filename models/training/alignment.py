"""Aligning a source, warped by the keypoints, with the driving frame: the batched twin of codec/fit/alignment.py.

Gauss-Newton on squared grey-level differences. The keypoints it returns minimise the error, so by the envelope theorem
the gradient of the error by the motion basis needs no gradient through the search.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from iwcodec.models.fit_settings import BLURS, INVERSION_STEPS, OUTLIER_GREY, PLACE_PRIOR, STIFFNESS, STRENGTH_PRIOR
from iwcodec.models.flow import FLOW_SIZE, GRID
from iwcodec.models.network.geometry import cell_centres, displacements, upsample_cells
from iwcodec.models.network.layers import resize, to_maps


def grey(pictures: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) in 0..1 -> grey levels in 0..255, (B, 1, FLOW_SIZE, FLOW_SIZE)."""
    small = resize(pictures, FLOW_SIZE) * 255
    return (small * small.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)


def blurred(planes: Tensor, sigma: float) -> Tensor:
    """Blur planes (B, 1, H, W) by a Gaussian with a standard deviation of `sigma` pixels."""
    reach = int(3 * sigma + 1)
    taps = torch.arange(-reach, reach + 1, device=planes.device, dtype=planes.dtype)
    taps = (-(taps**2) / (2 * sigma**2)).exp()
    taps = taps / taps.sum()
    padded = F.pad(planes, (reach,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, taps.view(1, 1, 1, -1)), taps.view(1, 1, -1, 1))


def backward(basis: Tensor, change: Tensor) -> Tensor:
    """Invert the forward motion: basis (B, b, 3 K) and changes of the keypoints (B, K, 3) -> backward field (B, 2,
    GRID, GRID), the position in the source of each cell of the driving frame minus its own. Only the last fixed-point
    step has a gradient."""
    forward = to_maps(upsample_cells(displacements(basis, change), GRID), GRID)
    with torch.no_grad():
        back = -forward
        for _ in range(INVERSION_STEPS):
            back = -sample_backward(forward, back)
    return -sample_backward(forward, back)


def warp(planes: Tensor, back: Tensor) -> Tensor:
    """Warp planes of a source (B, n, H, W) by a backward field (B, 2, GRID, GRID)."""
    return sample_backward(planes, F.interpolate(back, size=planes.shape[-2:], mode="bilinear", align_corners=False))


def sample_backward(planes: Tensor, back: Tensor) -> Tensor:
    """Sample planes (B, n, H, W) at the positions of a backward field (B, 2, side, side) -> (B, n, side, side)."""
    side = back.shape[-1]
    places = cell_centres(side, back).unflatten(0, (side, side)) + back.permute(0, 2, 3, 1)
    return F.grid_sample(planes, places, padding_mode="border", align_corners=False)


@torch.no_grad()
def align(basis: Tensor, source_keypoints: Tensor, source: Tensor, driving: Tensor, start: Tensor) -> Tensor:
    """Align keypoints by Gauss-Newton, coarse to fine.

    Motion basis (B, b, 3 K), keypoints (B, K, 3) and grey levels (B, 1, FLOW_SIZE, FLOW_SIZE) of the reference sources,
    grey levels of the driving frames, initial keypoints -> aligned keypoints (B, K, 3)."""
    keypoints = start
    fine = upsample_cells(basis, GRID)
    prior = basis.new_full((basis.shape[-1],), PLACE_PRIOR)
    prior[2 * basis.shape[-1] // 3 :] = STRENGTH_PRIOR
    for sigma in BLURS:
        blurred_source, target = blurred(source, sigma), blurred(driving, sigma)
        back = backward(basis, keypoints - source_keypoints)
        cells = structure_tensor(warp(blurred_source, back), target)
        offset = (keypoints - start).transpose(1, 2).flatten(1)
        rows = sample_backward(to_maps(fine, GRID), back).flatten(2).transpose(1, 2)
        gram, right = normal_equations(rows, cells, offset)
        gram = gram + STIFFNESS * prior.diag()
        right = right - STIFFNESS * prior * offset
        change = torch.linalg.solve(gram, right[..., None])[..., 0]
        keypoints = keypoints + change.unflatten(1, (3, -1)).transpose(1, 2)
        low = keypoints.new_tensor([-1.0, -1.0, 0.0])
        keypoints = keypoints.maximum(low).minimum(torch.ones_like(low))
    return keypoints


def structure_tensor(warped: Tensor, target: Tensor) -> Tensor:
    """Second derivatives of each cell's robust squared error by its displacement (xx, xy, yy), and the gain of a
    displacement to the left and up (x, y), from planes (B, 1, H, W): (B, M, 5)."""
    missing = target - warped
    weight = 1 / (1 + (missing / OUTLIER_GREY).square())
    padded = F.pad(warped, (1, 1, 1, 1), mode="replicate")
    side = warped.shape[-1]
    right = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) * (side / 4)
    down = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) * (side / 4)
    planes = [right * right, right * down, down * down, missing * right, missing * down]
    fold = side // GRID
    cells = F.avg_pool2d(weight * torch.cat(planes, dim=1), fold) * fold**2
    return cells.flatten(2).transpose(1, 2)


def normal_equations(rows: Tensor, cells: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """Normal equations of one Gauss-Newton step: basis at the cells (B, M, 3 K), structure tensors (B, M, 5), and
    offset of the unknowns from their start (B, 3 K) -> Gram matrix (B, 3 K, 3 K), right-hand side (B, 3 K). The
    unknowns are all x, all y, all strengths."""
    along, right, down = rows.chunk(3, dim=-1)
    zero = torch.zeros_like(along)
    x, y = torch.cat([along, zero, right], dim=-1), torch.cat([zero, along, down], dim=-1)
    xx, xy, yy, gain_x, gain_y = cells.unsqueeze(-2).unbind(-1)
    xx, yy = xx + STIFFNESS, yy + STIFFNESS
    gram = x.transpose(1, 2) @ (xx * x + xy * y) + y.transpose(1, 2) @ (xy * x + yy * y)
    moved_x, moved_y = x @ offset[..., None], y @ offset[..., None]
    gains = x.transpose(1, 2) @ (gain_x + STIFFNESS * moved_x) + y.transpose(1, 2) @ (gain_y + STIFFNESS * moved_y)
    return gram, -gains[..., 0]
