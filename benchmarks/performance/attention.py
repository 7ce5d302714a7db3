"""`iwcodec bench attention`: every attention that runs on this machine, checked, timed, and judged in dB.

Quality is of the network alone: uncompressed sources, unquantised keypoints, the bundled clip. Times are of the
attention alone, from queries and keys to attended rows. Nothing is said of a device that is not here; what the
published peaks of some would allow is arithmetic, and marked so.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from rich.table import Table

from iwcodec.benchmarks import experiment
from iwcodec.codec.cli import console, progress_bar
from iwcodec.codec.extras import install
from iwcodec.codec.media.quality import psnr
from iwcodec.codec.media.types import Picture
from iwcodec.codec.media.video import read_video, sample_clip
from iwcodec.models.runtime.weights import DEFAULT_MODEL, read_info

RESULT = Path(__file__).parents[1] / "results" / "attention.json"
KEPT = (1, 2, 4, 8, 16, 32)
"""Keys kept by the exact top-k."""
BLOCKS = (1, 2, 4, 8, 16)
"""2x2 blocks kept by the hierarchical top-k: four times as many keys."""
SOURCES = 3
TOLERANCE = 1e-3
CHECKED = 64
"""Queries for which the kernel is checked in the interpreter, which takes a second for them."""
TILE = 64
"""Queries and keys of the kernel's tile, for counting its turns."""


def command(
    out: Annotated[Path, typer.Option(help="JSON with all results.")] = RESULT,
    model: Annotated[str, typer.Option(help="Weights to measure with.")] = DEFAULT_MODEL,
    frames: Annotated[int, typer.Option(help="Driving frames.", min=1, max=100)] = 6,
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1, max=64)] = 2,
) -> None:
    """Check and time dense, top-k and hierarchical attention, and what each costs in dB."""
    if find_spec("torch") is None:
        from iwcodec.codec.errors import CodecError

        raise CodecError(f"`iwcodec bench attention` needs PyTorch: {install('train')}.")
    with progress_bar(False) as tell:
        result = run(model, frames, threads, tell)
    experiment.save(result, out)
    show(result)
    console.print(f"Everything: {out}")


def run(model: str, frames: int, threads: int, tell: Callable[[str, float], None]) -> dict[str, Any]:
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("TRITON_INTERPRET", "1")  # before Triton is first imported
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    from iwcodec.models.runtime.torch import load_network

    network = load_network(model).to(device).requires_grad_(False)
    pictures = clip_pictures(network.config.size, frames)
    with torch.inference_mode():
        ways = implementations(network, threads)
        return {
            **machine(device, threads),
            "what": "attention",
            "model": {"id": model, "digest": read_info(model).digest.hex()},
            "grid": network.config.side,
            "quality": quality(network, pictures, ways, tell),
            "times_ms": times(network, pictures, ways, tell),
            "precision": precision(network, pictures, tell),
            "kernel": kernel(network, pictures, tell),
            "receiver": receiver(model, pictures),
            "roofline": {name: roofline(peaks) for name, peaks in PEAKS.items()},
        }


def machine(device: str, threads: int) -> dict[str, Any]:
    """As of every result, and what the times depend on besides: threads, others' load before this run, device."""
    import torch

    found = experiment.surroundings()
    own = {
        "threads": threads,
        "others_load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "device": device,
        **({"gpu": torch.cuda.get_device_name()} if device == "cuda" else {}),
    }
    return {**found, "machine": {**found["machine"], **own}}


def clip_pictures(size: int, frames: int) -> list[Picture]:
    """SOURCES source pictures evenly spaced over the bundled clip, then `frames` driving ones between them."""
    seen = [cv2.resize(f.picture, (size, size), interpolation=cv2.INTER_AREA) for f in read_video(sample_clip())]
    sources = np.linspace(0, len(seen) - 1, SOURCES).round().astype(int)
    driving = (np.arange(frames) + 0.37) * len(seen) / frames
    return [np.asarray(seen[i], np.uint8) for i in [*sources, *driving.astype(int)]]


# The cases: what attention is given for one frame.


@dataclass(frozen=True)
class Case:
    queries: Any  # (1, N, d + 4)
    unit: Any  # (1, N, d)
    keys: Any  # (1, S * M, d + 4)
    rows: Any  # (1, S * M, R + 3 S)
    extras: Any
    sources: Any  # (1, S, 3, H, W)
    side: int

    def finish(self, network: Any, attended: Any) -> Picture:
        """Attended rows -> picture."""
        from iwcodec.models.runtime.torch import to_uint8

        picture = network.decode(attended.float(), self.unit, self.sources)[0][0]
        return to_uint8(picture.permute(1, 2, 0)).cpu().numpy()


def make_case(network: Any, sources: Sequence[Picture], driving: Picture) -> Case:
    import torch

    from iwcodec.models.network.network import place_columns

    device = network.log_focus.device
    seen = torch.from_numpy(np.stack([*sources, driving])).to(device).permute(0, 3, 1, 2).float() / 255
    keypoints = network.detect(torch.nn.functional.interpolate(seen, (network.config.detector_size,) * 2, mode="area"))
    encoded = network.encode_sources(seen[None, :-1], keypoints[None, :-1])
    side = network.side(seen)
    queries, unit = network.queries(keypoints[-1:], side)
    rows = place_columns(encoded.rows, side)
    extras = network.extras(rows.shape[-1])
    return Case(queries, unit, network.keys(keypoints[-1:], encoded, side), rows, extras, seen[None, :-1], side)


# The implementations: name -> attend(case, k).

Attend = Callable[[Case, int], Any]


def implementations(network: Any, threads: int) -> dict[str, tuple[Attend, tuple[int, ...]]]:
    """Everything that runs on this machine, and the k it is run with. `hierarchical` counts blocks of four keys."""
    import torch

    from iwcodec.models.network import attention

    def dense(case: Case, k: int) -> Any:
        return attention.dense_attention(case.queries, case.keys, case.rows, case.extras)

    def fused(case: Case, k: int) -> Any:
        keys = torch.cat([case.keys, case.extras.keys[None]], 1)
        rows = torch.cat([case.rows, case.extras.rows[None]], 1)
        return torch.nn.functional.scaled_dot_product_attention(case.queries, keys, rows, scale=1.0)

    def topk(case: Case, k: int) -> Any:
        return attention.topk_attention(case.queries, case.keys, case.rows, case.extras, k)

    def hierarchical(case: Case, k: int) -> Any:
        return attention.hierarchical_attention(case.queries, case.keys, case.rows, case.extras, case.side, k)

    ways: dict[str, tuple[Attend, tuple[int, ...]]] = {
        "dense": (dense, (0,)),
        "dense, fused (PyTorch SDPA)": (fused, (0,)),
        "top-k": (topk, KEPT),
        "hierarchical": (hierarchical, BLOCKS),
    }
    if network.log_focus.device.type == "cuda":
        from iwcodec.models.network import attention_triton

        for name, dtype in {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}.items():

            def kernel(case: Case, k: int, dtype: Any = dtype) -> Any:
                return attention_triton.topk_attention(case.queries, case.keys, case.rows, case.extras, k, dtype)

            ways[f"top-k, Triton {name}"] = (kernel, KEPT)
    elif find_spec("onnx") is not None:
        attend, kept = onnx_attention(network, threads)
        ways["hierarchical, ONNX Runtime"] = (attend, (kept,))
    return ways


def onnx_attention(network: Any, threads: int, dense: bool = False) -> tuple[Attend, int]:
    """The graph of hierarchical or dense attention alone on ONNX Runtime's CPU provider, and the one k it is for, 0
    where it is dense."""
    import onnxruntime
    import torch

    from iwcodec.models.network.attention import Extras, dense_attention, hierarchical_attention
    from iwcodec.models.training.export import OPSET

    side = network.config.side
    kept = 0 if dense else network.config.top_k or 8

    class Graph(torch.nn.Module):
        def forward(self, queries: Any, keys: Any, rows: Any, extra_keys: Any, extra_rows: Any) -> Any:
            extras = Extras(extra_keys, extra_rows)
            if dense:
                return dense_attention(queries, keys, rows, extras)
            return hierarchical_attention(queries, keys, rows, extras, side, kept)

    def arrays(case: Case) -> tuple[Any, ...]:
        return case.queries, case.keys, case.rows, *case.extras

    names = ["queries", "keys", "rows", "extra_keys", "extra_rows"]
    blank = np.zeros((network.config.size, network.config.size, 3), np.uint8)
    free = {"keys": {1: "cells"}, "rows": {1: "cells", 2: "columns"}, "extra_rows": {1: "columns"}}
    example = arrays(make_case(network, [blank] * 2, blank))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is constant in the graph, and is meant to be
        file = Path(folder) / "attention.onnx"
        torch.onnx.export(
            Graph(), example, str(file), input_names=names, dynamic_axes=free, opset_version=OPSET, dynamo=False
        )
        graph = file.read_bytes()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def attend(case: Case, k: int) -> Any:
        if k != kept:
            raise ValueError(f"the graph keeps {kept or 'all'} blocks, not {k}")
        feed = {name: array.contiguous().numpy() for name, array in zip(names, arrays(case), strict=True)}
        return torch.from_numpy(session.run(None, feed)[0])

    return attend, kept


# What is measured.


def quality(network: Any, pictures: list[Picture], ways: dict[str, Any], tell: Any) -> list[dict[str, Any]]:
    """PSNR against the original, and against the picture that dense attention gives, mean over the driving frames."""
    sources, driving = pictures[:SOURCES], pictures[SOURCES:]
    found: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
    for n, original in enumerate(driving):
        tell("quality", n / len(driving))
        case = make_case(network, sources, original)
        reference = ways["dense"][0](case, 0)
        picture = case.finish(network, reference)
        for name, (attend, kept) in ways.items():
            for k in kept:
                attended = reference if name == "dense" else attend(case, k)
                other = picture if name == "dense" else case.finish(network, attended)
                gap = difference(attended, reference)
                found.setdefault((name, k), []).append((psnr(other, original), psnr(other, picture), gap))
    dense_db = float(np.mean([score[0] for score in found["dense", 0]]))
    return [
        {
            "implementation": name,
            "k": k,
            "psnr_db": round(float(np.mean([s[0] for s in scores])), 3),
            "against_dense_db": round(float(np.mean([s[0] for s in scores])) - dense_db, 3),
            "psnr_to_dense_picture_db": round(float(np.mean([s[1] for s in scores])), 2),
            "rows_from_dense": round(max(s[2] for s in scores), 6),
        }
        for (name, k), scores in found.items()
    ]


def difference(found: Any, expected: Any) -> float:
    """Root mean square of the difference over that of the rows."""
    return float((found - expected).square().mean().sqrt() / expected.square().mean().sqrt())


def times(network: Any, pictures: list[Picture], ways: dict[str, Any], tell: Any) -> list[dict[str, Any]]:
    """Median, least and most of the repeats after one warm-up, for 1, 3 and 8 sources."""
    results = []
    for n, count in enumerate((1, 3, 8)):
        sources = [pictures[i % len(pictures)] for i in range(count)]
        case = make_case(network, sources, pictures[-1])
        for m, (name, (attend, kept)) in enumerate(ways.items()):
            tell("times", (n + m / len(ways)) / 3)
            for k in kept:
                spent = timed(lambda attend=attend, case=case, k=k: attend(case, k))  # type: ignore[misc]
                ms = {"p50": np.median(spent), "min": min(spent), "max": max(spent)}
                ms = {key: round(float(value), 3) for key, value in ms.items()}
                results.append({"implementation": name, "k": k, "sources": count, "repeats": len(spent), **ms})
    return results


def timed(attend: Callable[[], Any], seconds: float = 1.0, most: int = 50) -> list[float]:
    """Milliseconds of at least 3 calls, more while they fit in `seconds`."""
    import torch

    def once() -> float:
        start = time.perf_counter()
        attend()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return (time.perf_counter() - start) * 1e3

    once()
    spent: list[float] = []
    while len(spent) < 3 or (sum(spent) < seconds * 1e3 and len(spent) < most):
        spent.append(once())
    return spent


def precision(network: Any, pictures: list[Picture], tell: Any) -> list[dict[str, Any]]:
    """What rounding does to the logits and the picture: exact top-k on rounded vectors, summed in fp32.

    "halves" is what the kernel does: content in the type, each geometry number as two fp16 halves.
    """
    import torch

    from iwcodec.models.network.attention import Extras, topk_attention
    from iwcodec.models.network.geometry import PRIOR_DIMS

    def everything(x: Any, dtype: Any) -> Any:
        return x.to(dtype).float()

    def content(x: Any, dtype: Any) -> Any:
        geometry = x[..., -PRIOR_DIMS:]
        high = geometry.half().float()
        return torch.cat([everything(x[..., :-PRIOR_DIMS], dtype), high + (geometry - high).half().float()], -1)

    case = make_case(network, pictures[:SOURCES], pictures[-1])
    kept = 4 * (network.config.top_k or 8)
    exact = topk_attention(case.queries, case.keys, case.rows, case.extras, kept)
    original, picture = pictures[-1], case.finish(network, exact)
    near = (case.queries @ case.keys.transpose(1, 2)).topk(kept, -1).indices  # the logits that matter
    results: list[dict[str, Any]] = []
    for dtype in (torch.float16, torch.bfloat16):
        for name, rounded in (("everything", everything), ("content, geometry as halves", content)):
            tell("precision", len(results) / 4)
            queries, keys = rounded(case.queries, dtype), rounded(case.keys, dtype)
            extras = Extras(rounded(case.extras.keys, dtype), case.extras.rows)
            attended = topk_attention(queries, keys, case.rows, extras, kept)
            gap = (queries.double() @ keys.double().transpose(1, 2)).gather(-1, near)
            gap = gap - (case.queries.double() @ case.keys.double().transpose(1, 2)).gather(-1, near)
            other = case.finish(network, attended)
            results.append(
                {
                    "rounded": name,
                    "dtype": str(dtype).removeprefix("torch."),
                    "largest_logit_error": round(float(gap.abs().max()), 5),
                    "mean_logit_error": round(float(gap.abs().mean()), 6),
                    "psnr_db": round(psnr(other, original) - psnr(picture, original), 3),
                    "psnr_to_exact_picture_db": round(psnr(other, picture), 2),
                }
            )
    return results


def kernel(network: Any, pictures: list[Picture], tell: Any) -> dict[str, Any]:
    """The Triton kernel: checked on real queries, its turns of selection counted, its compiled form."""
    if find_spec("triton") is None:
        return {"missing": f"Triton is not installed: {install('cuda')} (Linux)"}
    import torch

    from iwcodec.models.network import attention_triton
    from iwcodec.models.network.attention import topk_attention

    tell("kernel", 0.0)
    case = make_case(network, pictures[:SOURCES], pictures[-1])
    some = case.queries[:, :: case.queries.shape[1] // CHECKED].contiguous()
    checks = {}
    for name, dtype in {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}.items():
        expected = topk_attention(some, case.keys, case.rows, case.extras, 32)
        found = attention_triton.topk_attention(some, case.keys, case.rows, case.extras, 32, dtype)
        checks[name] = round(difference(found, expected), 7)
    tell("kernel", 0.3)
    turns = {str(k): selection_turns(case.queries[0], case.keys[0], k) for k in (8, 16, 32)}
    tell("kernel", 0.6)
    built = compiled()
    return {
        "checked_on": "CUDA" if case.queries.is_cuda else "CPU, Triton's interpreter",
        "queries": some.shape[1],
        "difference_from_definition": checks,
        "agrees": checks["fp32"] <= TOLERANCE,
        "selection": turns,
        "compiled": built,
        "issue_floors": issue_floors(turns, built) if isinstance(built, list) else built,
    }


def selection_turns(queries: Any, keys: Any, k: int) -> dict[str, float]:
    """How often the kernel goes through its selection loop on real scores: counted, not timed.

    A block of TILE queries turns once more for every key that any one of its queries still has to take from a tile.
    """
    import torch

    blocks, tiles = len(queries) // TILE, len(keys) // TILE
    q, k_tiles = queries.reshape(blocks, TILE, -1), keys.reshape(tiles, TILE, -1)
    page = len(queries) // TILE  # tiles of a source, as many cells as queries
    own = torch.arange(blocks, device=queries.device) * page // blocks
    best = torch.full((blocks, TILE, k), -torch.inf, device=queries.device)
    turns, skipped = 0, 0
    for step in range(tiles):
        source, place = divmod(step, page)
        tile = q @ k_tiles[source * page + (own + place) % page].transpose(1, 2)
        merged = torch.cat([best, tile], -1).topk(k, -1)
        taken = (merged.indices >= k).sum(-1).amax(-1)  # by the query of the block that takes most
        turns += int(taken.sum())
        skipped += int((taken == 0).sum())
        best = merged.values
    return {"turns_per_tile": round(turns / (blocks * tiles), 3), "tiles_skipped": round(skipped / (blocks * tiles), 4)}


def compiled() -> list[dict[str, Any]] | str:
    """Registers, spills and shared memory for sm_80 and sm_90; in a process of its own, without the interpreter."""
    code = (
        "import json; from dataclasses import asdict; from iwcodec.models.network.attention_triton import resources; "
        "print(json.dumps([asdict(resources(c, k)) for c in (80, 90) for k in (8, 16, 32)]))"
    )
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=env, capture_output=True, text=True)
    if done.returncode:
        return f"did not compile: {done.stderr.strip().splitlines()[-1]}"
    compiled: list[dict[str, Any]] = json.loads(done.stdout)
    return compiled


def receiver(model: str, pictures: list[Picture]) -> list[dict[str, Any]] | str:
    """Frames a second of the whole receiver on CUDA, 1 to 8 callers in a launch, pictures back in host memory."""
    import torch

    if not torch.cuda.is_available():
        return "no CUDA device: not measured"
    from iwcodec.models.runtime.cuda import CudaRuntime, Job

    runtime = CudaRuntime(model)
    keypoints = [runtime.detect(picture) for picture in pictures]
    results = []
    for callers in (1, 2, 4, 8):
        jobs = [Job(keypoints[-1 - c], [runtime.prepare(p) for p in pictures[:SOURCES]]) for c in range(callers)]
        for _ in range(20):
            runtime.submit(jobs).pictures()
        alone = timed(lambda jobs=jobs: runtime.submit(jobs).pictures())  # type: ignore[misc]
        start, count = time.perf_counter(), 200
        before = runtime.submit(jobs)
        for _ in range(count):
            after = runtime.submit(jobs)
            before.pictures()
            before = after
        before.pictures()
        rate = callers * count / (time.perf_counter() - start)
        results.append(
            {"callers": callers, "latency_ms_p50": round(float(np.median(alone)), 3), "frames_per_s": round(rate, 1)}
        )
    return results


# The roofline: arithmetic, from published peaks.


@dataclass(frozen=True)
class Peaks:
    """Published, never measured here: dense fp16 tensor-core rate with fp32 sums, fp32 rate, memory bandwidth."""

    tensor_tflops: float
    fp32_tflops: float
    memory_gbs: float
    processors: int
    boost_ghz: float
    capability: int
    """Whose machine code is counted for it; Ada's is taken to be Ampere's."""


PEAKS = {
    "A100 SXM 80 GB": Peaks(312, 19.5, 2039, 108, 1.41, 80),
    "H100 SXM": Peaks(989.4, 66.9, 3350, 132, 1.98, 90),
    "RTX 4090": Peaks(165.2, 82.6, 1008, 128, 2.52, 80),
}
SCHEDULERS = 4
"""Of a multiprocessor; each starts at most one instruction of one warp a cycle."""
CELLS, CONTENT, GEOMETRY, ROW, EXTRAS = 4096, 32, 16, 83, 48
"""The lite network at 256x256: cells of a source, dimensions, geometry's as halves, columns without places."""
FP16 = 2


@dataclass(frozen=True)
class Work:
    """Of one frame."""

    tensor_flop: float
    scores: float
    """Scores that a CUDA core must look at once at least: one instruction each."""
    bytes: float
    """Through memory, everything read or written once."""
    cache_bytes: float = 0
    """Through the second-level cache: every block of MANY queries reads all keys."""


def work(implementation: str, sources: int, kept: int = 32) -> Work:
    """Least work of one frame of the lite network in half precision; `kept` keys a query where it is sparse."""
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
    """Floors in microseconds: the largest of tensor cores, one instruction a score, and memory."""
    results = []
    for sources in (1, 3, 8):
        for name in ("dense", "top-k", "hierarchical"):
            todo = work(name, sources)
            limits = {
                "tensor cores": todo.tensor_flop / peaks.tensor_tflops / 1e6,
                # A multiply-add counts as two in the published rate and is one instruction.
                "instructions": todo.scores / (peaks.fp32_tflops / 2) / 1e6,
                "memory": todo.bytes / peaks.memory_gbs / 1e3,
            }
            bound = max(limits, key=lambda limit: limits[limit])
            results.append(
                {
                    "implementation": name,
                    "sources": sources,
                    "gflop": round(todo.tensor_flop / 1e9, 3),
                    "mbytes": round(todo.bytes / 1e6, 2),
                    "cache_mbytes": round(todo.cache_bytes / 1e6, 1),
                    "floor_us": round(limits[bound], 2),
                    "bound_by": bound,
                    **asdict(peaks),
                }
            )
    return results


def issue_floors(turns: dict[str, dict[str, float]], built: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The kernel as compiled, were every scheduler to start an instruction every cycle: microseconds a frame.

    `full`: a caller's share where programs fill the GPU. `alone`: one caller with fewer programs than processors,
    where the frame takes as long as one program.
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


def show(result: dict[str, Any]) -> None:
    spent = {(t["implementation"], t["k"]): t["p50"] for t in result["times_ms"] if t["sources"] == SOURCES}
    table = Table(title=f"Attention with {SOURCES} sources, {result['machine']['device']}", title_justify="left")
    for heading in ("", "k", "ms", "dB against dense"):
        table.add_column(heading, justify="left" if not heading else "right")
    for score in result["quality"]:
        key = score["implementation"], score["k"]
        table.add_row(key[0], str(key[1] or "all"), f"{spent[key]:.1f}", f"{score['against_dense_db']:+.3f}")
    console.print(table)
    checked = result["kernel"]
    if "agrees" in checked:
        verdict = "agrees" if checked["agrees"] else "DISAGREES"
        gaps = ", ".join(f"{name} {gap:.1e}" for name, gap in checked["difference_from_definition"].items())
        console.print(f"Triton kernel ({checked['checked_on']}) {verdict} with the definition: {gaps}")
