"""Cross-modal attention over a set of sources: one definition, dense and sparse.

All functions take queries (B, N, D), keys (B, M, D) and rows (B, M, R), where M counts the cells of all sources in
the set, plus `Extras`: image-independent pairs that take part in every softmax. They return the attended rows
(B, N, R). Logits are plain dot products: temperature and geometric prior are already in the vectors (see network.py).
"Implicit Warping for Animation with Image Sets", arXiv 2210.01794, equation 1.
"""

from typing import NamedTuple

import torch
from torch import Tensor

GROUP = 32
"""Scores of which first only the best is looked at."""


class Extras(NamedTuple):
    keys: Tensor  # (E, D)
    rows: Tensor  # (E, R)


class Blocks(NamedTuple):
    """Keys and rows of all sources in 2x2 blocks, n of them, as the hierarchical top-k takes them."""

    keys: Tensor  # (B, n, 4, D)
    pooled: Tensor  # (B, n, D): the means of the blocks
    rows: Tensor  # (B, n, 4 R)


def dense_attention(queries: Tensor, keys: Tensor, rows: Tensor, extras: Extras) -> Tensor:
    """Softmax over every key of every source: the definition the others are held to."""
    logits = torch.cat([queries @ keys.transpose(1, 2), queries @ extras.keys.T], dim=-1)
    weights = logits.softmax(-1)
    count = keys.shape[1]
    return weights[..., :count] @ rows + weights[..., count:] @ extras.rows


def topk_attention(queries: Tensor, keys: Tensor, rows: Tensor, extras: Extras, k: int) -> Tensor:
    """Softmax over the k best source keys of each query, and the extras."""
    best = (queries @ keys.transpose(1, 2)).topk(min(k, keys.shape[1]), dim=-1)
    picked = gather(rows, best.indices)  # (B, N, k, R)
    weights = torch.cat([best.values, queries @ extras.keys.T], dim=-1).softmax(-1)
    count = best.values.shape[-1]
    return (weights[..., None, :count] @ picked)[..., 0, :] + weights[..., count:] @ extras.rows


def gather(rows: Tensor, indices: Tensor) -> Tensor:
    """rows (B, M, R), indices (B, ...) in 0..M-1 -> (B, ..., R)."""
    batch, count, width = rows.shape
    if batch == 1:
        return rows.flatten(0, 1)[indices]
    offsets = torch.arange(batch, device=rows.device).view(batch, *[1] * (indices.dim() - 1)) * count
    return rows.reshape(batch * count, width)[indices + offsets]


def to_blocks(x: Tensor, side: int) -> Tensor:
    """Raster grids of side x side cells, (B, S * side * side, D) -> 2x2 blocks (B, S * (side / 2) ** 2, 4, D)."""
    batch, _, width = x.shape
    half = side // 2
    x = x.reshape(batch, -1, half, 2, half, 2, width)
    return x.permute(0, 1, 2, 4, 3, 5, 6).reshape(batch, -1, 4, width)


def from_blocks(x: Tensor, side: int) -> Tensor:
    """Inverse of `to_blocks`."""
    batch, _, _, width = x.shape
    half = side // 2
    x = x.reshape(batch, -1, half, half, 2, 2, width)
    return x.permute(0, 1, 2, 4, 3, 5, 6).reshape(batch, -1, width)


def coarse_logits(queries: Tensor, keys: Tensor, side: int) -> Tensor:
    """Scores of the 2x2-pooled queries against the 2x2-pooled keys: (B, N / 4, M / 4)."""
    return to_blocks(queries, side).mean(2) @ to_blocks(keys, side).mean(2).transpose(1, 2)


def best(scores: Tensor, k: int) -> Tensor:
    """Scores (B, N, M) -> numbers (B, N, k) of the k best of each row, in no order.

    The k best of all are among the k groups whose best are best: looking there first is as exact, and several times as
    quick on a CPU as choosing from thousands.
    """
    batch, rows, count = scores.shape
    if count % GROUP or count <= GROUP * k:
        return scores.topk(min(k, count), dim=-1, sorted=False).indices
    groups = scores.reshape(batch, rows, -1, GROUP)
    near = groups.amax(-1).topk(k, dim=-1, sorted=False).indices  # (B, N, k)
    first = torch.arange(batch * rows, device=scores.device).view(batch, rows, 1) * (count // GROUP)
    candidates = groups.flatten(0, 2)[first + near]  # (B, N, k, GROUP)
    found = candidates.flatten(-2).topk(k, dim=-1, sorted=False).indices
    return near.gather(-1, found // GROUP) * GROUP + found % GROUP


def hierarchical_attention(queries: Tensor, keys: Tensor, rows: Tensor, extras: Extras, side: int, k: int) -> Tensor:
    """Top-k in two steps: the k best 2x2 blocks of each 2x2 block of queries, then softmax over their 4k cells.

    `side` is the cells a side of the query grid and of every source's grid (even).
    """
    key_blocks = to_blocks(keys, side)
    known = Blocks(key_blocks, key_blocks.mean(2), to_blocks(rows, side).flatten(2))
    return block_attention(queries, known, extras, side, k)


def block_attention(queries: Tensor, known: Blocks, extras: Extras, side: int, k: int) -> Tensor:
    """`hierarchical_attention` where the sources are in blocks already."""
    query_blocks = to_blocks(queries, side)
    scores = query_blocks.mean(2) @ known.pooled.transpose(1, 2)
    picked = best(scores, k)  # (B, Nc, k)
    batch, coarse, kept = picked.shape
    near = gather(known.keys.flatten(2), picked).reshape(batch, coarse, 4 * kept, -1)
    logits = query_blocks @ near.transpose(2, 3)  # (B, Nc, 4, 4k)
    weights = torch.cat([logits, query_blocks @ extras.keys.T], dim=-1).softmax(-1)
    near_rows = gather(known.rows, picked).reshape(batch, coarse, 4 * kept, -1)
    out = weights[..., : 4 * kept] @ near_rows + weights[..., 4 * kept :] @ extras.rows
    return from_blocks(out, side)
