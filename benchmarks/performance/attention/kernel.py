"""The Triton top-k kernel in Triton's interpreter: correctness on real queries, selection loop, compiled form."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

from iwcodec.benchmarks.performance.attention.cases import SOURCES, difference, make_case
from iwcodec.benchmarks.performance.roofline import TILE, issue_floors
from iwcodec.codec.extras import install
from iwcodec.codec.media.types import Picture

TOLERANCE = 1e-3
"""Largest relative RMS difference from the definition at which the fp32 kernel counts as correct."""
CHECKED = 64
"""Queries on which the kernel is checked; Triton's interpreter takes a second for them."""


def kernel(network: Any, pictures: list[Picture], progress: Any) -> dict[str, Any]:
    """Check the Triton kernel on real queries, count its selection passes, and inspect its compiled form."""
    if find_spec("triton") is None:
        return {"missing": f"Triton is not installed: {install('cuda')} (Linux)"}
    import torch

    from iwcodec.models.network import attention_triton
    from iwcodec.models.network.attention import topk_attention

    progress("kernel", 0.0)
    case = make_case(network, pictures[:SOURCES], pictures[-1])
    some = case.queries[:, :: case.queries.shape[1] // CHECKED].contiguous()
    checks = {}
    for name, dtype in {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}.items():
        expected = topk_attention(some, case.keys, case.rows, case.extras, 32)
        actual = attention_triton.topk_attention(some, case.keys, case.rows, case.extras, 32, dtype)
        checks[name] = round(difference(actual, expected), 7)
    progress("kernel", 0.3)
    turns = {str(k): selection_turns(case.queries[0], case.keys[0], k) for k in (8, 16, 32)}
    progress("kernel", 0.6)
    built = compiled()
    return {
        "checked_on": "CPU, Triton's interpreter",
        "queries": some.shape[1],
        "difference_from_definition": checks,
        "agrees": checks["fp32"] <= TOLERANCE,
        "selection": turns,
        "compiled": built,
        "issue_floors": issue_floors(turns, built) if isinstance(built, list) else built,
    }


def selection_turns(queries: Any, keys: Any, k: int) -> dict[str, float]:
    """Passes of the kernel's selection loop on real scores: counted, not timed.

    For each tile of keys a block of TILE queries loops as often as the query with the most new top-k keys needs.
    """
    import torch

    blocks, tiles = len(queries) // TILE, len(keys) // TILE
    q, k_tiles = queries.reshape(blocks, TILE, -1), keys.reshape(tiles, TILE, -1)
    page = len(queries) // TILE  # tiles of a source, which has as many cells as there are queries
    own = torch.arange(blocks, device=queries.device) * page // blocks
    best = torch.full((blocks, TILE, k), -torch.inf, device=queries.device)
    turns, skipped = 0, 0
    for step in range(tiles):
        source, place = divmod(step, page)
        tile = q @ k_tiles[source * page + (own + place) % page].transpose(1, 2)
        merged = torch.cat([best, tile], -1).topk(k, -1)
        new_keys = (merged.indices >= k).sum(-1).amax(-1)  # of the query in the block with the most new keys
        turns += int(new_keys.sum())
        skipped += int((new_keys == 0).sum())
        best = merged.values
    return {"turns_per_tile": round(turns / (blocks * tiles), 3), "tiles_skipped": round(skipped / (blocks * tiles), 4)}


def compiled() -> list[dict[str, Any]] | str:
    """Registers, spills and shared memory for sm_80 and sm_90, compiled in a separate process."""
    code = (
        "import json; from dataclasses import asdict; from iwcodec.models.network.triton_resources import resources; "
        "print(json.dumps([asdict(resources(c, k)) for c in (80, 90) for k in (8, 16, 32)]))"
    )
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=env, capture_output=True, text=True)
    if done.returncode:
        return f"did not compile: {done.stderr.strip().splitlines()[-1]}"
    compiled: list[dict[str, Any]] = json.loads(done.stdout)
    return compiled
