"""Roofline of attention: arithmetic floors from published peak rates of some GPUs; nothing here is measured."""

from dataclasses import asdict, dataclass
from typing import Any

from iwcodec.benchmarks.performance.attention.cases import SOURCES

TILE = 64
"""Queries, and keys, in a tile of the kernel."""


@dataclass(frozen=True)
class Peaks:
    """Published peaks of a GPU: dense fp16 tensor-core rate with fp32 accumulation, fp32 rate, memory bandwidth."""

    tensor_tflops: float
    fp32_tflops: float
    memory_gbs: float
    processors: int
    boost_ghz: float
    capability: int
    """Compute capability whose machine code is counted; for Ada that of Ampere."""


PEAKS = {
    "A100 SXM 80 GB": Peaks(312, 19.5, 2039, 108, 1.41, 80),
    "H100 SXM": Peaks(989.4, 66.9, 3350, 132, 1.98, 90),
    "RTX 4090": Peaks(165.2, 82.6, 1008, 128, 2.52, 80),
}
SCHEDULERS = 4
"""Warp schedulers of a multiprocessor; each issues at most one instruction per cycle."""
CELLS, CONTENT, GEOMETRY, ROW, EXTRAS = 4096, 32, 16, 83, 48
"""The lite network at 256x256: cells per source; dimensions of content and of geometry (two fp16 values each); columns
of a row without the source places; extra keys."""
FP16 = 2
"""Bytes of a half-precision number."""


@dataclass(frozen=True)
class Work:
    """Least work of one frame."""

    tensor_flop: float
    scores: float
    """Scores that CUDA cores must examine at least once: one instruction each."""
    bytes: float
    """Memory traffic, with everything read or written once."""
    cache_bytes: float = 0
    """L2 cache traffic: every block of TILE queries reads all keys."""


def work(implementation: str, sources: int, kept: int = 32) -> Work:
    """Least work of one frame of the lite network in half precision, with `kept` keys per query if sparse."""
    keys, row, dim = CELLS * sources, ROW + 3 * sources, CONTENT + GEOMETRY
    once = FP16 * (CELLS * dim + keys * dim + EXTRAS * (dim + row)) + 4 * CELLS * row
    if implementation == "dense":
        pairs = CELLS * (keys + EXTRAS)
        return Work(2 * pairs * (dim + row), pairs, once + FP16 * keys * ROW)
    if implementation == "top-k":
        pairs = CELLS * (keys + EXTRAS)
        gathered = min(CELLS * kept, keys) * ROW * FP16
        return Work(
            2 * pairs * dim + 2 * CELLS * (kept + EXTRAS) * row,
            CELLS * keys,
            once + gathered,
            keys * dim * FP16 * CELLS / TILE,
        )
    if implementation == "hierarchical":
        coarse = (CELLS // 4) * (keys // 4)
        fine = CELLS * (kept + EXTRAS)
        gathered = min(CELLS // 4 * kept, keys) * (dim + ROW) * FP16
        return Work(2 * coarse * dim + 2 * fine * (dim + row), coarse, once + gathered)
    raise ValueError(implementation)


def roofline(peaks: Peaks) -> list[dict[str, Any]]:
    """Lower bounds in microseconds: the largest of tensor-core, one-instruction-per-score and memory time."""
    results = []
    for sources in (1, 3, 8):
        for name in ("dense", "top-k", "hierarchical"):
            least = work(name, sources)
            limits = {
                "tensor cores": least.tensor_flop / peaks.tensor_tflops / 1e6,
                # A multiply-add counts as two in the published rate and is one instruction.
                "instructions": least.scores / (peaks.fp32_tflops / 2) / 1e6,
                "memory": least.bytes / peaks.memory_gbs / 1e3,
            }
            bound = max(limits, key=lambda limit: limits[limit])
            results.append(
                {
                    "implementation": name,
                    "sources": sources,
                    "gflop": round(least.tensor_flop / 1e9, 3),
                    "mbytes": round(least.bytes / 1e6, 2),
                    "cache_mbytes": round(least.cache_bytes / 1e6, 1),
                    "floor_us": round(limits[bound], 2),
                    "bound_by": bound,
                    **asdict(peaks),
                }
            )
    return results


def issue_floors(turns: dict[str, dict[str, float]], built: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Microseconds per frame of the compiled kernel if every scheduler issued an instruction every cycle.

    `full_us`: per caller, when programs fill the GPU. `alone_us`: a single caller with fewer programs than
    multiprocessors, where a frame takes as long as one program.
    """
    floors = []
    for name, peaks in PEAKS.items():
        for code in built:
            if code["capability"] != peaks.capability or str(code["k"]) not in turns:
                continue
            tiles = CELLS * SOURCES // TILE
            cycles = tiles * (
                code["tile_instructions"] + turns[str(code["k"])]["turns_per_tile"] * code["turn_instructions"]
            )
            cycles *= code["threads"] / 32 / SCHEDULERS
            alone = cycles / peaks.boost_ghz / 1e3
            full = alone * CELLS / TILE / peaks.processors
            floors.append({"gpu": name, "k": code["k"], "full_us": round(full, 1), "alone_us": round(alone, 1)})
    return floors
