"""Cross-modal attention over a set of sources: the dense definition and sparse approximations.

It is equation 1 of "Implicit Warping for Animation with Image Sets" (arXiv 2210.01794, section 3.2). ATTENTION.md
compares the implementations.

All functions take queries (B, N, D), keys (B, M, D) and rows (B, M, R), where M counts the cells of all sources in the
set, and `Extras`: image-independent key-value pairs that take part in every softmax. They return the attended rows
(B, N, R). Logits are plain dot products: the vectors already include temperature and geometric prior (network.py).
"""

from typing import NamedTuple

import torch
from torch import Tensor

TOPK_GROUP = 32
"""Number of scores per group in `topk_indices`, which first compares the groups' maxima."""


class Extras(NamedTuple):
    """Extra keys and values (paper, section 3.2)."""

    keys: Tensor  # (E, D)
    rows: Tensor  # (E, R)


class Blocks(NamedTuple):
    """Keys and rows of all sources in n blocks of 2x2 cells, the input of the hierarchical top-k."""

    keys: Tensor  # (B, n, 4, D)
    pooled: Tensor  # (B, n, D): mean key of each block
    rows: Tensor  # (B, n, 4 R)


def dense_attention(queries: Tensor, keys: Tensor, rows: Tensor, extras: Extras) -> Tensor:
    """Softmax over every key of every source and the extras: the reference for the other implementations."""
    logits = torch.cat([queries @ keys.transpose(1, 2), queries @ extras.keys.T], dim=-1)
    weights = logits.softmax(-1)
    count = keys.shape[1]
    return weights[..., :count] @ rows + weights[..., count:] @ extras.rows


def topk_attention(queries: Tensor, keys: Tensor, rows: Tensor, extras: Extras, k: int) -> Tensor:
    """Softmax over the k best-scoring source keys of each query and the extras."""
    best = (queries @ keys.transpose(1, 2)).topk(min(k, keys.shape[1]), dim=-1)
    picked = gather(rows, best.indices)  # (B, N, k, R)
    weights = torch.cat([best.values, queries @ extras.keys.T], dim=-1).softmax(-1)
    count = best.values.shape[-1]
    return (weights[..., None, :count] @ picked)[..., 0, :] + weights[..., count:] @ extras.rows


def gather(rows: Tensor, indices: Tensor) -> Tensor:
    """Gather rows (B, M, R) by indices (B, ...) in 0..M-1 -> (B, ..., R)."""
    batch, count, width = rows.shape
    if batch == 1:
        return rows.flatten(0, 1)[indices]
    offsets = torch.arange(batch, device=rows.device).view(batch, *[1] * (indices.dim() - 1)) * count
    return rows.reshape(batch * count, width)[indices + offsets]


def to_blocks(x: Tensor, side: int) -> Tensor:
    """Regroup raster grids of side x side cells, (B, S * side * side, D), into 2x2 blocks (B, S * (side / 2) ** 2, 4,
    D)."""
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
    """Logits of the 2x2-pooled queries against the 2x2-pooled keys: (B, N / 4, M / 4)."""
    return to_blocks(queries, side).mean(2) @ to_blocks(keys, side).mean(2).transpose(1, 2)


def topk_indices(scores: Tensor, k: int) -> Tensor:
    """Scores (B, N, M) -> indices (B, N, k) of the k highest scores of each row, unordered.

    The k highest scores lie in the k groups with the highest maxima. Selecting those groups first is exact, and several
    times faster on a CPU than selecting from thousands of scores.
    """
    batch, rows, count = scores.shape
    if count % TOPK_GROUP or count <= TOPK_GROUP * k:
        return scores.topk(min(k, count), dim=-1, sorted=False).indices
    groups = scores.reshape(batch, rows, -1, TOPK_GROUP)
    near = groups.amax(-1).topk(k, dim=-1, sorted=False).indices  # (B, N, k)
    first = torch.arange(batch * rows, device=scores.device).view(batch, rows, 1) * (count // TOPK_GROUP)
    candidates = groups.flatten(0, 2)[first + near]  # (B, N, k, GROUP)
    picked = candidates.flatten(-2).topk(k, dim=-1, sorted=False).indices
    return near.gather(-1, picked // TOPK_GROUP) * TOPK_GROUP + picked % TOPK_GROUP


def hierarchical_attention(queries: Tensor, keys: Tensor, rows: Tensor, extras: Extras, side: int, k: int) -> Tensor:
    """Approximate top-k in two steps: select the k best 2x2 key blocks for each 2x2 query block by their pooled scores,
    then apply softmax over the 4k cells of those blocks and the extras.

    `side`, even, is the number of cells per side of the query grid and of every source's grid.
    """
    key_blocks = to_blocks(keys, side)
    blocks = Blocks(key_blocks, key_blocks.mean(2), to_blocks(rows, side).flatten(2))
    return block_attention(queries, blocks, extras, side, k)


def block_attention(queries: Tensor, blocks: Blocks, extras: Extras, side: int, k: int) -> Tensor:
    """`hierarchical_attention` for sources that are already arranged in blocks."""
    query_blocks = to_blocks(queries, side)
    scores = query_blocks.mean(2) @ blocks.pooled.transpose(1, 2)
    picked = topk_indices(scores, k)  # (B, Nc, k)
    batch, coarse, kept = picked.shape
    near = gather(blocks.keys.flatten(2), picked).reshape(batch, coarse, 4 * kept, -1)
    logits = query_blocks @ near.transpose(2, 3)  # (B, Nc, 4, 4k)
    weights = torch.cat([logits, query_blocks @ extras.keys.T], dim=-1).softmax(-1)
    near_rows = gather(blocks.rows, picked).reshape(batch, coarse, 4 * kept, -1)
    out = weights[..., : 4 * kept] @ near_rows + weights[..., 4 * kept :] @ extras.rows
    return from_blocks(out, side)
