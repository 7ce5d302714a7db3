"""Warping: from attended positions to sampling fields, and from sampled sources to the base picture (not in the paper).

Shapes are those of network.py: B samples, S sources, N = side * side query cells.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from iwcodec.models.network.geometry import cell_centres
from iwcodec.models.network.layers import to_maps, upsample


class Warp(NamedTuple):
    """Where each query attends in each source, in cell units of the g x g grid with the origin at its centre."""

    mass: Tensor  # (B, S, N): attention of each query on each source
    places: Tensor  # (B, S, N, 2): mean attended position in each source


def place_columns(rows: Tensor, side: int) -> Tensor:
    """Append place columns to rows: (B, S, M, R) -> (B, S * M, R + 3 S). Source s has (1, x, y) of its cells in columns
    R + 3 s to R + 3 s + 2 and zeros in the others.

    After attention, column R + 3 s is the mass on source s and the next two are its mean position times that mass. So
    every attention implementation yields the warp without special code.
    """
    places = cell_centres(side, rows) * (side / 2)
    place = torch.cat([torch.ones_like(places[:, :1]), places], dim=-1)  # (M, 3)
    # The number of sources stays symbolic, so that one exported graph serves any number.
    order = torch.ones_like(rows[..., 0][..., 0][0]).cumsum(0)  # indexing in this order copies little
    own = (order[:, None] == order).to(rows.dtype)
    columns = (own[:, None, :, None] * place[None, :, None, :]).flatten(2)  # (S, M, 3 S)
    return torch.cat([rows, columns.expand(rows.shape[0], -1, -1, -1)], dim=-1).flatten(1, 2)


def read_warp(columns: Tensor, side: int) -> Warp:
    """Attended place columns (B, N, 3 S) -> warp. A source without attention gets the query's own position."""
    # As planes, because arithmetic on interleaved pairs is ten times slower on a CPU.
    planes = columns.transpose(1, 2).unflatten(1, (-1, 3))
    mass, sums = planes.split([1, 2], dim=2)
    own = cell_centres(side, columns).T * (side / 2)
    small = 1e-3
    return Warp(mass[:, :, 0], ((sums + small * own) / (mass + small)).transpose(2, 3))


def sampling_fields(
    warp: Warp,
    side: int,
    size: int,
    focus: Tensor,
    present: Tensor | None = None,
    suppression: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Warp -> sampling position of every pixel in each source (B, S, size, size, 2) in [-1, 1] units, and blending
    weights (B, S, size, size), which sum to 1 over the sources.

    `focus` is the exponent applied to the attention mass. Above 1 it favours the dominant source: two slightly
    misaligned pictures of a mouth must not be blended. `present` (B, S), bool, masks unused sources; `suppression` (B,)
    is the small-shift suppression in pixels of `size`.
    """
    batch, count = warp.mass.shape[:2]
    coarse = coarse_fields(warp, side, focus)
    if suppression is not None:
        coarse = torch.cat([suppress_small_shifts(coarse[..., :2], suppression * (2 / size)), coarse[..., 2:]], dim=-1)
    fields = to_maps(coarse.flatten(0, 1), side)
    fields = F.interpolate(fields, size=(size, size), mode="bilinear", align_corners=False)
    fields = fields.unflatten(0, (batch, count))
    places = cell_centres(size, fields).unflatten(0, (size, size)) + fields[:, :, :2].permute(0, 1, 3, 4, 2)
    shares = fields[:, :, 2]
    if present is not None:
        shares = shares * present[:, :, None, None]
    return places, shares / shares.sum(1, keepdim=True)


def coarse_fields(warp: Warp, side: int, focus: Tensor) -> Tensor:
    """Warp -> fields (B, S, side * side, 3): shift of the sampling position from the cell's own position in [-1, 1]
    units, and the unnormalised weight of the source. Shifts are interpolated instead of positions to keep the borders
    straight.
    """
    own = cell_centres(side, warp.mass).T * (side / 2)
    shift = (warp.places.transpose(2, 3) - own) * (2.0 / side)
    return torch.cat([shift, (warp.mass[:, :, None] + 1e-3) ** focus], dim=2).transpose(2, 3)


def suppress_small_shifts(shift: Tensor, suppression: Tensor) -> Tensor:
    """Scale shifts (B, S, N, 2): 0 below half of `suppression` (B,), in the same units, rising linearly to their full
    length at `suppression`.

    In a nearly static picture small shifts follow noise in the motion, and sampling between pixels blurs.
    """
    length = shift.square().sum(-1, keepdim=True).sqrt()
    return shift * (2 * length / suppression[:, None, None, None].clamp_min(1e-9) - 1).clamp(0, 1)


def mean_shift(fields: Tensor) -> Tensor:
    """Fields (B, S, N, 3) of `coarse_fields` -> mean length of the shift over the sources, by their weight: (B, N,
    1)."""
    shift, weight = fields.transpose(2, 3).split([2, 1], dim=2)
    return ((shift.square().sum(2, keepdim=True).sqrt() * weight).sum(1) / weight.sum(1)).transpose(1, 2)


def upsample_places(places: Tensor, scale: int) -> Tensor:
    """Sampling positions (B, S, h, w, 2) -> positions for a picture `scale` times as large (B, S, scale h, scale w,
    2)."""
    if scale == 1:
        return places
    size = places.shape[-2]
    shift = places - cell_centres(size, places).unflatten(0, (size, size))
    shift = upsample(shift.flatten(0, 1).permute(0, 3, 1, 2), scale).permute(0, 2, 3, 1)
    own = cell_centres(size * scale, places).unflatten(0, (size * scale, size * scale))
    return own + shift.unflatten(0, places.shape[:2])


def sample_sources(pictures: Tensor, places: Tensor) -> Tensor:
    """Sample pictures (B, S, 3, H, W) at positions (B, S, H, W, 2) in [-1, 1] units -> (B, S, 3, H, W)."""
    sampled = F.grid_sample(
        pictures.flatten(0, 1), places.flatten(0, 1), mode="bilinear", padding_mode="border", align_corners=False
    )
    return sampled.unflatten(0, pictures.shape[:2])


def blend(sampled: Tensor, shares: Tensor) -> Tensor:
    """Sum sampled sources (B, S, 3, H, W), weighted by their shares (B, S, H, W) -> base picture (B, 3, H, W)."""
    return (sampled * shares[:, :, None]).sum(1)
