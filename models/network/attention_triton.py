"""Exact top-k attention on CUDA as one Triton kernel, equivalent to attention.topk_attention. See ATTENTION.md.

A program takes a block of queries of one caller and streams over the keys of that caller's sources. The scores of a
tile and a running list of the k best (score, place) per query stay in registers; no score matrix is written to memory.
Then follow one softmax over the list and the extras, and one gather of the k rows.

Vectors have two parts. The *content* (unit queries and keys) is fp16, bf16 or fp32. The *geometry*, the PRIOR_DIMS
dimensions of the prior, is always fp32: its products are in the thousands and cancel to a few units, so fp16 would be
wrong by whole logits. With half-precision content, each geometry number is split into two fp16 halves, and all four
products of the halves are summed in fp32: 4 x 4 = 16 dimensions, exactly one tensor-core step.

Sources are *pages* of a resident pool, and a table assigns pages to callers. So callers with different numbers of
sources share one launch, and nothing is copied when the active sources change.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from iwcodec.models.network.attention import Extras
from iwcodec.models.network.geometry import PRIOR_DIMS

MAX_K = 32
"""Largest k whose running list fits in registers."""
BLOCK_N, BLOCK_M, BLOCK_R = 64, 64, 32
"""Queries per program, keys per tile, and row columns gathered at a time."""
WARPS = 4
"""Warps per program: one per 16 queries, so that no maximum is taken across warps."""


class Pages(NamedTuple):
    """Resident sources, one per page."""

    keys: Tensor  # (L, M, D): content, in the type from which scores are computed
    rows: Tensor  # (L, M, R)


@triton.jit
def halves(x, high):  # type: ignore[no-untyped-def]
    """Split fp32 numbers into two fp16 halves (22 bits together): the first where `high` is set, else the second."""
    x = tl.minimum(tl.maximum(x, -65000.0), 65000.0)  # masks may exceed the range of fp16
    first = x.to(tl.float16)
    return tl.where(high, first, (x - first.to(tl.float32)).to(tl.float16))


@triton.jit
def extra_logits(  # type: ignore[no-untyped-def]
    q,
    qg,
    extra_keys,
    extra_geometry,
    e0,
    E,
    D: tl.constexpr,
    DIM: tl.constexpr,
    HALVES: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """Logits of extras e0 to e0 + 15: (BLOCK_N, 16)."""
    e = e0 + tl.arange(0, 16)
    d = tl.arange(0, DIM)
    g = tl.arange(0, 16)
    in_extra = (e < E)[None, :]
    et = tl.load(extra_keys + e[None, :] * D + d[:, None], mask=in_extra & (d < D)[:, None], other=0.0)
    eg = tl.load(extra_geometry + e[None, :] * 4 + (g % 4)[:, None], mask=in_extra, other=0.0)
    if HALVES:
        eg = halves(eg, (g // 4 % 2 == 0)[:, None])
    if WIDEN:
        et = et.to(tl.float32)
    logits = tl.dot(q, et, tl.dot(qg, eg, input_precision="ieee"), input_precision="ieee")
    return tl.where(in_extra, logits, float("-inf"))


@triton.jit
def topk_kernel(  # type: ignore[no-untyped-def]
    queries,  # (B, N, D)
    query_geometry,  # (B, N, 4) fp32
    keys,  # (L, M, D)
    key_geometry,  # (B, S, M, 4) fp32
    rows,  # (L, M, R)
    extra_keys,  # (E, D)
    extra_geometry,  # (E, 4) fp32
    extra_rows,  # (E, R) fp32
    table,  # (B, S) int32: page numbers of each caller
    counts,  # (B,) int32: number of them in use
    out,  # (B, N, R + 3 PLACES) fp32
    N,
    M,
    R,
    E,
    S,
    K: tl.constexpr,
    KEPT: tl.constexpr,  # K rounded up to a power of two
    D: tl.constexpr,
    DIM: tl.constexpr,  # D rounded up to what tl.dot takes
    PLACES: tl.constexpr,  # S to append place columns, else 0
    SIDE: tl.constexpr,  # cells per side, for the place columns
    RAGGED: tl.constexpr,  # the last tile is not full
    HALVES: tl.constexpr,  # geometry as two fp16 halves, else as fp32
    WIDEN: tl.constexpr,  # for Triton's interpreter, which cannot multiply bf16
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_R: tl.constexpr,
) -> None:
    caller = tl.program_id(1)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    d = tl.arange(0, DIM)
    column = tl.arange(0, BLOCK_M)
    slot = tl.arange(0, KEPT)
    # Sixteen geometry dimensions: the 4 numbers of a query as (high, high, low, low), those of a key as (high, low,
    # high, low). Their dot product is (high + low) . (high + low). In fp32: the 4 numbers and 12 zeros.
    g = tl.arange(0, 16)

    in_query = (n < N)[:, None]
    q = tl.load(queries + (caller * N + n)[:, None] * D + d[None, :], mask=in_query & (d < D)[None, :], other=0.0)
    qg = tl.load(query_geometry + (caller * N + n)[:, None] * 4 + (g % 4)[None, :], mask=in_query, other=0.0)
    qg = halves(qg, (g < 8)[None, :]) if HALVES else tl.where((g < 4)[None, :], qg, 0.0)
    if WIDEN:
        q = q.to(tl.float32)

    # Slots beyond K hold +inf, so that no key replaces them; they are cleared before the softmax.
    scores = tl.zeros([BLOCK_N, KEPT], tl.float32) + tl.where(slot < K, float("-inf"), float("inf"))[None, :]
    places = tl.zeros([BLOCK_N, KEPT], tl.int32)
    least = tl.min(scores, 1)

    tiles = tl.cdiv(M, BLOCK_M)
    # Start at the tile of the queries' own cells. The matching source cells are nearby, so the list is good early and
    # later tiles insert little.
    first = tl.program_id(0) * tiles // tl.num_programs(0)
    for step in range(tl.load(counts + caller) * tiles):
        active = step // tiles
        start = ((first + step) % tiles) * BLOCK_M
        cell = start + column
        page = tl.load(table + caller * S + active).to(tl.int64)
        in_key = (cell < M)[None, :]
        kt = tl.load(keys + (page * M + cell)[None, :] * D + d[:, None], mask=in_key & (d < D)[:, None], other=0.0)
        kg = tl.load(
            key_geometry + ((caller * S + active) * M + cell)[None, :] * 4 + (g % 4)[:, None], mask=in_key, other=0.0
        )
        if HALVES:
            kg = halves(kg, (g // 4 % 2 == 0)[:, None])
        if WIDEN:
            kt = kt.to(tl.float32)
        tile = tl.dot(qg, kg, input_precision="ieee")
        tile = tl.dot(q, kt, tile, input_precision="ieee")
        if RAGGED:
            tile = tl.where(in_key, tile, float("-inf"))
        # Most tiles end here, because no key beats any query's list. Otherwise each iteration replaces, for every
        # query, the worst entry of its list by the best remaining key of the tile.
        best = tl.max(tile, 1)
        while tl.max((best > least).to(tl.int32), 0) > 0:
            best, at = tl.max(tile, 1, return_indices=True)  # three times the instructions of the maximum alone
            worst = tl.argmin(scores, 1)
            hit = (slot[None, :] == worst[:, None]) & (best > least)[:, None]
            scores = tl.where(hit, best[:, None], scores)
            places = tl.where(hit, (active * M + start + at)[:, None], places)
            tile = tl.where(column[None, :] == at[:, None], float("-inf"), tile)
            least = tl.min(scores, 1)
            best = tl.max(tile, 1)

    scores = tl.where((slot < K)[None, :], scores, float("-inf"))
    # Extras are scored 16 at a time, twice: here for the sum of the softmax, below for their rows. Keeping their
    # weights would cost more registers than the second scoring costs time.
    top = tl.max(scores, 1)
    more = tl.zeros([BLOCK_N], tl.float32)
    for e0 in range(0, E, 16):
        logits = extra_logits(q, qg, extra_keys, extra_geometry, e0, E, D, DIM, HALVES, WIDEN)
        higher = tl.maximum(top, tl.max(logits, 1))
        more = more * tl.exp(top - higher) + tl.sum(tl.exp(logits - higher[:, None]), 1)
        top = higher
    weights = tl.exp(scores - top[:, None])
    total = tl.sum(weights, 1) + more
    weights = weights / total[:, None]

    owner = places // M
    row = tl.load(table + caller * S + owner) * M + places % M
    pitch = R + 3 * PLACES
    target = out + (caller * N + n).to(tl.int64)[:, None] * pitch
    for r0 in range(0, R, BLOCK_R):
        r = r0 + tl.arange(0, BLOCK_R)
        in_row = (r < R)[None, :]
        sums = tl.zeros([BLOCK_N, BLOCK_R], tl.float32)
        for e0 in range(0, E, 16):
            logits = extra_logits(q, qg, extra_keys, extra_geometry, e0, E, D, DIM, HALVES, WIDEN)
            share = tl.exp(logits - top[:, None]) / total[:, None]
            e = e0 + tl.arange(0, 16)
            of_extras = tl.load(extra_rows + e[:, None] * R + r[None, :], mask=(e < E)[:, None] & in_row, other=0.0)
            sums = tl.dot(share, of_extras, sums, input_precision="tf32x3")
        for j in range(K):
            chosen = slot[None, :] == j
            picked = tl.sum(tl.where(chosen, row, 0), 1)
            weight = tl.sum(tl.where(chosen, weights, 0.0), 1)
            data = tl.load(rows + picked.to(tl.int64)[:, None] * R + r[None, :], mask=in_row, other=0.0)
            sums += weight[:, None] * data.to(tl.float32)
        tl.store(target + r[None, :], sums, mask=in_query & in_row)
    if PLACES > 0:
        cell_of = places % M
        x = (cell_of % SIDE).to(tl.float32) + (0.5 - SIDE / 2)
        y = (cell_of // SIDE).to(tl.float32) + (0.5 - SIDE / 2)
        for s in range(PLACES):
            share = tl.where(owner == s, weights, 0.0)
            mass, on_x, on_y = tl.sum(share, 1), tl.sum(share * x, 1), tl.sum(share * y, 1)
            base = out + (caller * N + n).to(tl.int64) * pitch + R + 3 * s
            tl.store(base, mass, mask=n < N)
            tl.store(base + 1, on_x, mask=n < N)
            tl.store(base + 2, on_y, mask=n < N)


def topk_attention(
    queries: Tensor, keys: Tensor, rows: Tensor, extras: Extras, k: int, dtype: torch.dtype | None = None
) -> Tensor:
    """attention.topk_attention on CUDA: queries (B, N, D), keys (B, M, D), rows (B, M, R) -> (B, N, R).

    `dtype` selects half precision (fp16 or bf16) for the content; the last PRIOR_DIMS dimensions keep fp32 accuracy. By
    default everything is computed in the queries' type. Raises ValueError on a k outside 1..MAX_K.
    """
    batch, width = keys.shape[0], keys.shape[2]
    split = dtype is not None
    exact = PRIOR_DIMS if split else 0
    kind = dtype or queries.dtype

    def content(x: Tensor) -> Tensor:
        return x[..., : width - exact].to(kind).contiguous()

    def geometry(x: Tensor) -> Tensor:
        if split:
            return x[..., width - exact :].float().contiguous()
        return x.new_zeros((*x.shape[:-1], PRIOR_DIMS), dtype=torch.float32)

    return paged_topk_attention(
        content(queries),
        geometry(queries),
        Pages(content(keys), rows.to(kind).contiguous()),
        geometry(keys)[:, None],
        Extras(content(extras.keys), extras.rows),
        geometry(extras.keys),
        torch.arange(batch, device=keys.device, dtype=torch.int32)[:, None],
        torch.ones(batch, device=keys.device, dtype=torch.int32),
        k,
    )


def paged_topk_attention(
    queries: Tensor,
    query_geometry: Tensor,
    pages: Pages,
    key_geometry: Tensor,
    extras: Extras,
    extra_geometry: Tensor,
    table: Tensor,
    counts: Tensor,
    k: int,
    side: int | None = None,
) -> Tensor:
    """Attend for B callers in one launch, each over its own pages of one pool.

    `queries` (B, N, D) and `extras.keys` (E, D) have the pages' type. Geometry is fp32: `query_geometry` (B, N, 4),
    `key_geometry` (B, S, M, 4), `extra_geometry` (E, 4). Caller b reads pages table[b, : counts[b]] of `table` (B, S),
    int32; every entry must be a valid page. Returns (B, N, R), or with `side`, the cells per side of a page (side *
    side = M), (B, N, R + 3 S) with the columns of warp.place_columns appended. Raises ValueError on a k outside
    1..MAX_K.
    """
    if not 1 <= k <= MAX_K:
        raise ValueError(f"k from 1 to {MAX_K}, not {k}")
    batch, count, dim = queries.shape
    width, active = pages.rows.shape[-1], table.shape[1]
    out = torch.empty(batch, count, width + (3 * active if side else 0), device=queries.device)
    topk_kernel[(triton.cdiv(count, BLOCK_N), batch)](
        queries.contiguous(),
        query_geometry.contiguous(),
        pages.keys,
        key_geometry.contiguous(),
        pages.rows,
        extras.keys.to(queries.dtype).contiguous(),
        extra_geometry.contiguous(),
        extras.rows.float().contiguous(),
        table,
        counts,
        out,
        count,
        pages.keys.shape[1],
        width,
        extras.keys.shape[0],
        active,
        **constants(queries.dtype, dim, k, pages.keys.shape[1], active if side else 0, side or 1),
        num_warps=WARPS,
    )
    return out


def constants(dtype: torch.dtype, dim: int, k: int, cells: int, places: int, side: int) -> dict[str, Any]:
    """Compile-time constants of the kernel."""
    half = dtype in (torch.float16, torch.bfloat16)
    return {
        "K": k,
        "KEPT": triton.next_power_of_2(k),
        "D": dim,
        "DIM": max(16, triton.next_power_of_2(dim)),
        "PLACES": places,
        "SIDE": side,
        "RAGGED": cells % BLOCK_M != 0,
        "HALVES": half,
        "WIDEN": dtype == torch.bfloat16 and triton.knobs.runtime.interpret,
        "BLOCK_N": BLOCK_N,
        "BLOCK_M": BLOCK_M,
        "BLOCK_R": BLOCK_R,
    }
