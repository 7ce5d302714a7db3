"""The computation of one frame on the device: everything that the CUDA graph captures."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from iwcodec.models.network.attention import Extras, topk_attention
from iwcodec.models.network.geometry import PRIOR_DIMS
from iwcodec.models.network.network import MASKED, ImplicitWarp
from iwcodec.models.network.warp import place_columns
from iwcodec.models.runtime.source_pool import SourcePool
from iwcodec.models.runtime.torch import to_uint8

MAX_KEPT = 32
"""Largest number of keys kept per query, a limit of the Triton kernel; used for dense models too."""


class Batch(NamedTuple):
    """The inputs that change from frame to frame, of B callers with up to S sources."""

    driving: Tensor  # (B, K, 3)
    table: Tensor  # (B, S) int32: page numbers
    counts: Tensor  # (B,) int32: number of valid pages at the start of each row
    suppressions: Tensor  # (B,): small-shift suppression, see warp.suppress_small_shifts


class AttentionInputs(NamedTuple):
    """Inputs of the attention for a batch: content in the pool's type, geometry in fp32 (see attention_triton.py)."""

    queries: Tensor  # (B, N, d)
    query_geometry: Tensor  # (B, N, 4)
    key_geometry: Tensor  # (B, S, M, 4)
    extras: Extras  # keys (E, d + 4)
    batch: Batch
    k: int
    side: int


AttentionFunction = Callable[[AttentionInputs, SourcePool], Tensor]
"""Computes attended rows with the place columns appended: (B, N, R + 3 S)."""


def attend_torch(inputs: AttentionInputs, pool: SourcePool) -> Tensor:
    """Attend in plain PyTorch: gather the pages and mask those that are not in use."""
    table, counts = inputs.batch.table.long(), inputs.batch.counts
    absent = torch.arange(table.shape[1], device=table.device) >= counts[:, None]
    bias = inputs.key_geometry[..., -1] + absent[..., None] * MASKED
    geometry = torch.cat([inputs.key_geometry[..., :-1], bias[..., None]], dim=-1)
    keys = torch.cat([pool.keys[table].float(), geometry], dim=-1).flatten(1, 2)
    rows = place_columns(pool.rows[table].float(), inputs.side)
    queries = torch.cat([inputs.queries.float(), inputs.query_geometry], dim=-1)
    extra_rows = torch.nn.functional.pad(inputs.extras.rows, (0, rows.shape[-1] - inputs.extras.rows.shape[-1]))
    return topk_attention(queries, keys, rows, Extras(inputs.extras.keys, extra_rows), inputs.k)


def attend_triton(inputs: AttentionInputs, pool: SourcePool) -> Tensor:
    """Attend with the Triton kernel, which reads the pages in place."""
    from iwcodec.models.network.attention_triton import Pages, paged_topk_attention

    content = inputs.extras.keys[:, :-PRIOR_DIMS].to(pool.keys.dtype)
    return paged_topk_attention(
        inputs.queries,
        inputs.query_geometry,
        Pages(pool.keys, pool.rows),
        inputs.key_geometry,
        Extras(content, inputs.extras.rows),
        inputs.extras.keys[:, -PRIOR_DIMS:],
        inputs.batch.table,
        inputs.batch.counts,
        inputs.k,
        inputs.side,
    )


class FramePath:
    """Computes pictures from a batch without synchronising with the host, so that a CUDA graph can capture it."""

    def __init__(self, network: ImplicitWarp, attend: AttentionFunction) -> None:
        self.network = network
        self.attend = attend
        config = network.config
        self.extras = network.extras(config.values + config.dim + 3)
        self.top_k = min(4 * config.top_k, MAX_KEPT) or MAX_KEPT

    def __call__(self, batch: Batch, pool: SourcePool) -> Tensor:
        """Compute the uint8 pictures (B, H, W, 3) of a batch."""
        network = self.network
        pictures = pool.pictures[batch.table.long()].float()
        side = network.side(pictures)
        with self._half(batch.driving):
            unit = network.query_net(batch.driving, side).float()
        attended = self.attend(self.attention_inputs(batch, pool, unit, side), pool)
        present = torch.arange(batch.table.shape[1], device=pictures.device) < batch.counts[:, None]
        with self._half(batch.driving):
            picture, _, _ = network.decode(attended, unit, pictures, present, batch.suppressions)
        return to_uint8(picture.permute(0, 2, 3, 1)).contiguous()

    def attention_inputs(self, batch: Batch, pool: SourcePool, unit: Tensor, side: int) -> AttentionInputs:
        """Compute the attention's inputs from unit queries (B, N, d)."""
        network, table = self.network, batch.table.long()
        # The terms of the prior are large and cancel, so they are never computed in half precision.
        if network.config.prior:
            membership, basis, keypoints = (part[table] for part in (pool.membership, pool.basis, pool.keypoints))
            terms = network.prior.terms(membership, basis, keypoints, batch.driving[:, None], side)
            key_geometry = network.prior.key_dims(terms)
        else:
            key_geometry = batch.driving.new_zeros(*table.shape, side * side, PRIOR_DIMS)
        content = (unit * network.log_temperature.exp()).to(pool.keys.dtype)
        places = network.prior.query_dims(side, batch.driving).expand(len(table), -1, -1)
        return AttentionInputs(content, places, key_geometry, self.extras, batch, self.top_k, side)

    @staticmethod
    def _half(like: Tensor) -> torch.autocast:
        """Run convolutions in fp16 on CUDA. The weight cache is off: a graph must not use tensors created outside
        it."""
        kind = like.device.type
        return torch.autocast(kind, torch.float16, enabled=kind == "cuda", cache_enabled=False)
