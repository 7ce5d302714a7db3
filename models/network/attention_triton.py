"""Top-k attention on CUDA: one Triton kernel, the definition of attention.topk_attention. See ATTENTION.md.

One program takes a block of queries of one caller and streams over the keys of that caller's sources. Scores of a tile
live in registers; a running list of the k best (score, place) per query does too; no score matrix is ever written.
Then one softmax over the list and the extras, and one gather of the k rows.

Vectors come in two parts. The *content* (unit queries and keys) is fp16, bf16 or fp32. The *geometry*, the prior's
PRIOR_DIMS dimensions, is always fp32: its products are thousands that cancel to a few units, which fp16 would get
wrong by whole logits. Next to half-precision content each geometry number is split into two fp16 halves and all four
products of the halves are summed in fp32: 4 x 4 = 16 dimensions, exactly one tensor-core step.

Sources are *pages* of a resident pool; a table says which pages are whose, so that callers with different numbers of
sources go in one launch and nothing is copied when the active sources change.
"""

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from iwcodec.models.network.attention import Extras
from iwcodec.models.network.geometry import PRIOR_DIMS

MAX_K = 32
"""The running list lives in registers; beyond this it would not."""
BLOCK_N, BLOCK_M, BLOCK_R = 64, 64, 32
"""Queries of a program, keys of a tile, columns of a row taken at a time."""
WARPS = 4
"""One for every 16 queries: no maximum is taken across warps."""


class Pages(NamedTuple):
    """Resident sources, one a page."""

    keys: Tensor  # (L, M, D): content, in the type the scores are computed from
    rows: Tensor  # (L, M, R)


@triton.jit
def halves(x, high):  # type: ignore[no-untyped-def]
    """fp32 -> the first fp16 half of each number where `high`, elsewhere the second: together 22 bits."""
    x = tl.minimum(tl.maximum(x, -65000.0), 65000.0)  # a mask may lie beyond fp16
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
    """Scores of the 16 extras from e0: (BLOCK_N, 16)."""
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
    table,  # (B, S) int32: pages of each caller
    counts,  # (B,) int32: how many of them are used
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
    PLACES: tl.constexpr,  # S where place columns are wanted, else 0
    SIDE: tl.constexpr,  # cells a side, for the place columns
    RAGGED: tl.constexpr,  # the last tile is not full
    HALVES: tl.constexpr,  # geometry as two fp16 halves; else as fp32
    WIDEN: tl.constexpr,  # the interpreter multiplies no bf16
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    caller = tl.program_id(1)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    d = tl.arange(0, DIM)
    column = tl.arange(0, BLOCK_M)
    slot = tl.arange(0, KEPT)
    # Sixteen geometry dimensions: the 4 numbers of a query as (high, high, low, low), of a key as (high, low, high,
    # low), so that their dot product is (high + low) . (high + low). Or, in fp32, the 4 numbers and 12 zeros.
    g = tl.arange(0, 16)

    in_query = (n < N)[:, None]
    q = tl.load(queries + (caller * N + n)[:, None] * D + d[None, :], mask=in_query & (d < D)[None, :], other=0.0)
    qg = tl.load(query_geometry + (caller * N + n)[:, None] * 4 + (g % 4)[None, :], mask=in_query, other=0.0)
    qg = halves(qg, (g < 8)[None, :]) if HALVES else tl.where((g < 4)[None, :], qg, 0.0)
    if WIDEN:
        q = q.to(tl.float32)

    # Slots beyond K hold +inf, so that no key ever takes their place; they are emptied before the softmax.
    scores = tl.zeros([BLOCK_N, KEPT], tl.float32) + tl.where(slot < K, float("-inf"), float("inf"))[None, :]
    places = tl.zeros([BLOCK_N, KEPT], tl.int32)
    least = tl.min(scores, 1)

    tiles = tl.cdiv(M, BLOCK_M)
    # Begin where the queries themselves are: a speaker's source cells are near there, so that the list is good early
    # and later tiles have little to insert.
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
        # Most tiles end here: nothing in them beats any query's list. Otherwise each turn inserts, for every query,
        # its best remaining key of the tile over its worst of the list.
        best = tl.max(tile, 1)
        while tl.max((best > least).to(tl.int32), 0) > 0:
            best, at = tl.max(tile, 1, return_indices=True)  # thrice the instructions of the maximum alone
            worst = tl.argmin(scores, 1)
            hit = (slot[None, :] == worst[:, None]) & (best > least)[:, None]
            scores = tl.where(hit, best[:, None], scores)
            places = tl.where(hit, (active * M + start + at)[:, None], places)
            tile = tl.where(column[None, :] == at[:, None], float("-inf"), tile)
            least = tl.min(scores, 1)
            best = tl.max(tile, 1)

    scores = tl.where((slot < K)[None, :], scores, float("-inf"))
    # The extras, 16 at a time and twice: for the softmax's sum here, for their rows below. Holding all their weights
    # meanwhile would cost more registers than scoring them again costs time.
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
    """attention.topk_attention on CUDA: (B, N, D), (B, M, D), (B, M, R) -> (B, N, R).

    `dtype`: fp16 or bf16 to compute in half precision; the last PRIOR_DIMS dimensions then stay as exact as fp32,
    whatever they hold. By default everything is computed in the queries' own type.
    Raises ValueError on a k outside 1..MAX_K.
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
    """Attention of B callers, each over its own pages of one pool, in one launch.

    queries (B, N, D) and extras.keys (E, D) in the pages' type; geometry fp32: of the queries (B, N, 4), of the keys
    (B, S, M, 4), of the extras (E, 4); table (B, S) int32: caller b sees pages table[b, : counts[b]], and every
    entry names a page. Returns (B, N, R), or with `side`, the cells a side of a page (side * side = M),
    (B, N, R + 3 S): the place columns of network.place_columns follow the rows.
    Raises ValueError on a k outside 1..MAX_K.
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
    """What the kernel is compiled for."""
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


@dataclass(frozen=True)
class Resources:
    """What ptxas says of the compiled kernel, for one thread (registers, spills) and one program (shared memory)."""

    capability: int
    dtype: str
    k: int
    registers: int
    spill_store_bytes: int
    spill_load_bytes: int
    shared_bytes: int
    threads: int
    tensor_core_instructions: int
    tile_instructions: int
    """Of a warp, for a tile that holds nothing for any list."""
    turn_instructions: int
    """Of a warp, for one turn of the selection."""


def resources(capability: int, k: int, dtype: str = "fp16", dim: int = 32, places: int = 4) -> Resources:
    """Compile for a GPU that need not be there, with the lite network's sizes.

    Not possible in a process that runs Triton's interpreter (TRITON_INTERPRET=1): raises RuntimeError there.
    """
    if triton.knobs.runtime.interpret:
        raise RuntimeError("TRITON_INTERPRET is set: nothing is compiled in this process")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kinds = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
    fixed = constants(kinds[dtype], dim, k, 4096, places, 64)
    pointers = dict.fromkeys(("queries", "keys", "rows", "extra_keys"), f"*{dtype}")
    pointers |= dict.fromkeys(("query_geometry", "key_geometry", "extra_geometry", "extra_rows", "out"), "*fp32")
    pointers |= dict.fromkeys(("table", "counts"), "*i32")
    types = {name: "constexpr" if name in fixed else pointers.get(name, "i32") for name in topk_kernel.arg_names}
    # What a launch finds by itself: pointers from the allocator are aligned to 16 bytes, N and M divide by 16.
    aligned = {
        (i,): [["tt.divisibility", 16]] for i, n in enumerate(topk_kernel.arg_names) if n in pointers or n in "NM"
    }
    built = triton.compile(
        ASTSource(topk_kernel, types, fixed, aligned),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": WARPS},
    )
    said = ptxas(built.asm["ptx"], capability)
    registers, stores, loads = (
        int(re.search(pattern, said)[1])  # type: ignore[index]
        for pattern in (r"Used (\d+) registers", r"(\d+) bytes spill stores", r"(\d+) bytes spill loads")
    )
    return Resources(
        capability,
        dtype,
        k,
        registers,
        stores,
        loads,
        built.metadata.shared,
        32 * built.metadata.num_warps,
        len(re.findall(r"^\s*(?:wgmma\.mma_async|mma)\.sync", built.asm["ptx"], re.M)),
        *loop_lengths(built.asm["cubin"]),
    )


def loop_lengths(cubin: bytes) -> tuple[int, int]:
    """Machine instructions of the loop over tiles without the selection inside it, and of the selection."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(cubin)
        command = [triton.knobs.nvidia.cuobjdump.path, "-sass", str(file)]
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    code = [(int(at, 16), text) for at, text in re.findall(r"/\*([0-9a-f]{4,})\*/\s+(.*?);", listing)]
    jumps = ((at, re.search(r"\bBRA\b.*?0x([0-9a-f]+)", text)) for at, text in code)
    loops = [(int(to[1], 16), at) for at, to in jumps if to is not None and int(to[1], 16) < at]
    # The first loop that has another inside it; both end in their jump back.
    (first, last), inner = next((a, b) for a in loops for b in loops if a[0] < b[0] and b[1] < a[1])
    size = code[1][0] - code[0][0]
    turn = (inner[1] - inner[0]) // size + 1
    return (last - first) // size + 1 - turn, turn


def ptxas(ptx: str, capability: int) -> str:
    """What the assembler reports with -v. Triton ships it."""
    from triton.backends.nvidia.compiler import get_ptxas

    arch = re.search(r"\.target (sm_\w+)", ptx)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.ptx"
        file.write_text(ptx)
        command = [get_ptxas(capability).path, "-v", f"-arch={arch[1] if arch else f'sm_{capability}'}"]
        done = subprocess.run(
            [*command, str(file), "-o", str(file) + ".cubin"], capture_output=True, text=True, check=True
        )
    return done.stdout + done.stderr
