"""Measurements of gpu.py, one function for each section; gpu.py runs each in a process of its own.

A section yields cases: what is measured, and the function that measures it. `python -m
iwcodec.benchmarks.performance.gpu_sections NAME DEVICE` prints a JSON line for each case as soon as it is done, with an
error in place of the figures where the case failed. With the device `cpu` the sections are smaller; they show that the
measurements work, and Triton's kernel runs in its interpreter.
"""

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from iwcodec.benchmarks.performance.attention.cases import (
    SOURCES,
    Attend,
    Case,
    clip_pictures,
    difference,
    implementations,
    make_case,
)
from iwcodec.codec.media.quality import psnr
from iwcodec.codec.media.types import Picture
from iwcodec.models.runtime.types import MAX_ACTIVE, Source

Figures = dict[str, Any]
Cases = Iterator[tuple[Figures, Callable[[], Figures]]]
"""What is measured, and the measurement."""

MODELS = {256: "lite-256", 512: "lite-512"}
"""Shipped models by the side of their pictures."""
CALLERS = (1, 2, 4, 8, 16)
"""Callers in one batch."""
TOLERANCE = 2e-3
"""Largest relative RMS difference from the plain version, on equally rounded inputs, that counts as agreement."""
COMPILED = (8, 32)
"""k of the Triton kernel in types other than fp16: every k is compiled anew, which takes seconds."""


def machine(device: str) -> Cases:
    """The device, its driver, and the versions of what runs on it."""

    def describe() -> Figures:
        import cv2
        import onnxruntime
        import torch

        versions = {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda}
        versions |= {"onnxruntime": onnxruntime.__version__, "numpy": np.__version__, "opencv": cv2.__version__}
        try:
            import triton

            versions["triton"] = triton.__version__
        except ImportError:
            versions["triton"] = None
        if device == "cpu":
            return {"device": "cpu", "versions": versions}
        gpu = torch.cuda.get_device_properties(0)
        return {
            "device": gpu.name,
            "capability": 10 * gpu.major + gpu.minor,
            "processors": gpu.multi_processor_count,
            "memory_gib": round(gpu.total_memory / 2**30, 1),
            "l2_mb": round(getattr(gpu, "L2_cache_size", 0) / 1e6, 1),
            "versions": {**versions, "cudnn": torch.backends.cudnn.version()},
        }

    def load() -> Figures:
        from iwcodec.models.runtime.load import captured

        started = time.perf_counter()
        return {"runtime": type(captured(MODELS[256])).__name__, "s": round(time.perf_counter() - started, 1)}

    yield {}, describe
    if device != "cpu":
        yield {"what": "what load_runtime takes"}, load


def limits(device: str) -> Cases:
    """The machine's limits as measured: copies, products of matrices, and the start of a kernel."""
    import torch

    small = device == "cpu"

    def copy() -> Figures:
        source = torch.ones((16 if small else 2048) * 2**20, dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
        ms = device_ms(lambda: target.copy_(source), device)["p50"]
        return {"gbs": round(2 * source.numel() / ms / 1e6, 1)}

    def product(dtype: Any, tf32: bool) -> Figures:
        side = 512 if small else 8192
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        torch.backends.cuda.matmul.allow_tf32 = tf32
        ms = device_ms(lambda: a @ b, device)["p50"]
        torch.backends.cuda.matmul.allow_tf32 = False
        return {"tflops": round(2 * side**3 / ms / 1e9, 3)}

    def start() -> Figures:
        one = torch.zeros(1, device=device)
        return {"us": round(1e3 * device_ms(lambda: one.add_(1), device)["p50"], 2)}

    def picture() -> Figures:
        on_device = torch.zeros(512, 512, 3, dtype=torch.uint8, device=device)
        host = torch.empty(512, 512, 3, dtype=torch.uint8, pin_memory=not small)
        return {"us": round(1e3 * float(np.median(host_ms(lambda: host.copy_(on_device), device))), 1)}

    yield {"limit": "copy on the device, bytes read and written"}, copy
    yield {"limit": "product", "dtype": "fp32"}, partial(product, torch.float32, False)
    if not small:
        yield {"limit": "product", "dtype": "tf32"}, partial(product, torch.float32, True)
        yield {"limit": "product", "dtype": "fp16"}, partial(product, torch.float16, False)
    yield {"limit": "product", "dtype": "bf16"}, partial(product, torch.bfloat16, False)
    yield {"limit": "start of a kernel"}, start
    yield {"limit": "a picture of 512 to the host"}, picture


def kernels(device: str) -> Cases:
    """The Triton kernel against the plain version on random shapes, and several callers in one launch."""
    import torch

    from iwcodec.models.network import attention, attention_triton
    from iwcodec.models.network.attention import Extras
    from iwcodec.models.network.geometry import PRIOR_DIMS

    types = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}
    rng = np.random.default_rng(1)
    generator = torch.Generator().manual_seed(1)
    largest = (2, 65, 200) if device == "cpu" else (4, 5000, 20000)

    def random(*shape: int) -> Any:
        return torch.randn(*shape, generator=generator).to(device)

    def unit(*shape: int) -> Any:
        return 5 * torch.nn.functional.normalize(random(*shape), dim=-1)  # logits as large as the network's

    def compare(shape: tuple[int, ...], k: int, kind: str) -> Figures:
        batch, queries, keys, dim, width, count = shape
        inputs = unit(batch, queries, dim), unit(batch, keys, dim), random(batch, keys, width)
        extras = Extras(unit(count, dim), random(count, width))
        dtype = types[kind]
        actual = attention_triton.topk_attention(*inputs, extras, k, dtype)
        if dtype is not None:
            query, key = (rounded(x, dtype) for x in inputs[:2])
            inputs, extras = (query, key, inputs[2].to(dtype).float()), Extras(rounded(extras.keys, dtype), extras.rows)
        return gap(actual, attention.topk_attention(*inputs, extras, k))

    def rounded(vectors: Any, dtype: Any) -> Any:
        """Vectors as the kernel has them: content in the type, geometry exact."""
        return torch.cat([vectors[..., :-PRIOR_DIMS].to(dtype).float(), vectors[..., -PRIOR_DIMS:]], -1)

    def callers(kind: str) -> Figures:
        batch, cells, queries = (3, 70, 40) if device == "cpu" else (8, 4096, 4096)
        dtype = types[kind] or torch.float32
        pages = attention_triton.Pages(unit(5, cells, 32).to(dtype), random(5, cells, 83).to(dtype))
        geometry = random(batch, queries, 4), random(batch, MAX_ACTIVE, cells, 4), random(48, 4)
        content, extras = unit(batch, queries, 32).to(dtype), Extras(unit(48, 32).to(dtype), random(48, 83))
        table = torch.from_numpy(rng.integers(0, 5, (batch, MAX_ACTIVE)).astype(np.int32)).to(device)
        counts = torch.from_numpy((np.arange(batch) % MAX_ACTIVE + 1).astype(np.int32)).to(device)
        actual = attention_triton.paged_topk_attention(
            content, geometry[0], pages, geometry[1], extras, geometry[2], table, counts, 32
        )
        expected = []
        for n, count in enumerate(counts.tolist()):
            own = table[n, :count].long()
            keys = torch.cat([pages.keys[own].float(), geometry[1][n, :count]], -1).flatten(0, 1)[None]
            query = torch.cat([content[n].float(), geometry[0][n]], -1)[None]
            pairs = Extras(torch.cat([extras.keys.float(), geometry[2]], -1), extras.rows)
            rows = pages.rows[own].float().flatten(0, 1)[None]
            expected.append(attention.topk_attention(query, keys, rows, pairs, 32))
        return gap(actual, torch.cat(expected))

    def gap(actual: Any, expected: Any) -> Figures:
        far = difference(actual, expected)
        return {"difference": float(f"{far:.2e}"), "agrees": far <= TOLERANCE}

    low, high = (1, 1, 1, 5, 1, 1), (3, 70, 150, 36, 70, 40)  # of the four geometry dimensions and at least one other
    shapes = [(*(int(rng.integers(1, most + 1)) for most in largest), 36, 92, 48) for _ in range(2)]
    shapes += [tuple(int(n) for n in rng.integers(low, high)) for _ in range(2)]
    for shape, k in zip(shapes, (32, 8, int(rng.integers(1, 32)), 1), strict=True):
        for kind in types:
            label = {"shape": dict(zip(("callers", "queries", "keys", "dim", "row", "extras"), shape, strict=True))}
            yield {**label, "k": k, "dtype": kind}, partial(compare, shape, k, kind)
    for kind in types:
        yield {"what": "pages of several callers", "dtype": kind}, partial(callers, kind)


def runtimes(device: str) -> Cases:
    """Pictures of CudaRuntime against those of ONNX Runtime on the CPU, in dB, on the bundled clip."""
    from iwcodec.models.runtime.cuda import CudaRuntime
    from iwcodec.models.runtime.onnx import OnnxRuntime

    small = device == "cpu"
    for size, model in MODELS.items():
        pictures = clip_pictures(size, 2 if small else 12)
        pair: list[Any] = [CudaRuntime(model, device), OnnxRuntime(model)]
        sources = [[runtime.prepare(picture) for picture in pictures[:SOURCES]] for runtime in pair]
        driving = pictures[SOURCES:]
        yield {"size": size, "frames": len(driving)}, partial(keypoint_difference, pair, driving)
        for count in (1, SOURCES) if small else range(1, SOURCES + 1):
            for suppression in (0.0, 0.7):
                label = {"size": size, "sources": count, "suppression": suppression}
                yield label, partial(picture_difference, pair, [s[:count] for s in sources], driving, suppression)


def keypoint_difference(pair: Sequence[Any], driving: Sequence[Picture]) -> Figures:
    """Largest difference of a keypoint's place or strength between two runtimes."""
    gaps = [np.abs(pair[0].detect(picture) - pair[1].detect(picture)).max() for picture in driving]
    return {"largest_keypoint_difference": float(f"{max(gaps):.2e}")}


def picture_difference(
    pair: Sequence[Any], sources: Sequence[Sequence[Source]], driving: Sequence[Picture], suppression: float
) -> Figures:
    """PSNR of the first runtime's pictures against the second's, and of both against the originals."""
    scores = []
    for original in driving:
        keypoints = pair[1].detect(original)
        actual, expected = (r.reconstruct(keypoints, s, suppression) for r, s in zip(pair, sources, strict=True))
        scores.append((psnr(actual, expected), psnr(actual, original), psnr(expected, original)))
    to_onnx, own, onnx = (float(mean) for mean in np.mean(scores, 0))
    return {
        "psnr_to_onnx_db": round(to_onnx, 2),
        "worst_db": round(min(score[0] for score in scores), 2),
        "psnr_db": round(own, 3),
        "onnx_psnr_db": round(onnx, 3),
    }


def attention(device: str) -> Cases:
    """Every attention by k and number of sources: time alone, and the picture against that of dense attention."""
    from iwcodec.models.runtime.torch import load_network

    small = device == "cpu"
    network = load_network(MODELS[256]).to(device).requires_grad_(False)
    pictures = clip_pictures(64 if small else 256, 1)
    attentions = implementations(network, 0)
    for sources in (1, 3) if small else (1, 3, 8):
        case = make_case(network, [pictures[n % SOURCES] for n in range(sources)], pictures[-1])

        def measure(attend: Attend, k: int, case: Case = case) -> Figures:
            attended, dense = attend(case, k).float(), attentions["dense"][0](case, 0)
            picture, other = case.finish(network, dense), case.finish(network, attended)
            return {
                "ms": device_ms(lambda: attend(case, k), device),
                "rows_from_dense": float(f"{difference(attended, dense):.2e}"),
                "psnr_to_dense_picture_db": round(psnr(other, picture), 2),
                "against_dense_db": round(psnr(other, pictures[-1]) - psnr(picture, pictures[-1]), 3),
            }

        for name, (attend, kept) in attentions.items():
            some = kept[3:4] if small and len(kept) > 1 else kept
            for k in COMPILED if name in ("top-k, Triton fp32", "top-k, Triton bf16") else some:
                yield {"implementation": name, "k": k, "sources": sources}, partial(measure, attend, k)


def frames(device: str) -> Cases:
    """Time of a received frame in one captured CUDA graph, for one caller and for several in a batch."""
    from iwcodec.models.runtime.cuda import CudaRuntime

    small = device == "cpu"
    for size, model in list(MODELS.items())[: 1 if small else None]:
        pictures = clip_pictures(size, 2)
        yield (
            {"size": size, "callers": 1, "sources": SOURCES, "runtime": "OnnxRuntime"},
            partial(alone, model, pictures),
        )
        runtime = CudaRuntime(model, device)
        yield {"size": size, "what": "arithmetic outside attention"}, partial(arithmetic, runtime)
        batches = CALLERS[:1] if small else CALLERS
        for callers, sources in [(1, 1), *((callers, SOURCES) for callers in batches)]:
            label = {"size": size, "callers": callers, "sources": sources, "runtime": "CudaRuntime"}
            yield label, partial(batch, runtime, pictures, callers, sources)


def alone(model: str, pictures: Sequence[Picture]) -> Figures:
    """Time of a frame on ONNX Runtime, on the CPU of the same machine."""
    from iwcodec.models.runtime.onnx import OnnxRuntime

    runtime = OnnxRuntime(model)
    sources, keypoints = [runtime.prepare(p) for p in pictures[:SOURCES]], runtime.detect(pictures[-1])
    return {"latency_ms": quantiles(host_ms(lambda: runtime.reconstruct(keypoints, sources), "cpu"))}


def batch(runtime: Any, pictures: Sequence[Picture], callers: int, sources: int) -> Figures:
    """Latency from keypoints to pictures on the host; frames per second with two batches in flight; the graph alone.

    Every caller has source pages of its own, as in a call."""
    import torch

    from iwcodec.models.runtime.cuda import Job

    driving = [runtime.detect(picture) for picture in pictures[SOURCES:]]
    owned = [[runtime.prepare(picture) for picture in pictures[:sources]] for _ in range(callers)]
    jobs = [Job(driving[n % len(driving)], own) for n, own in enumerate(owned)]
    first = host_ms(lambda: runtime.submit(jobs).pictures(), runtime.device, warm=0, most=1)
    figures = {"first_ms": round(first[0], 1)}  # with compilation and capture
    latency = quantiles(host_ms(lambda: runtime.submit(jobs).pictures(), runtime.device))
    if runtime.device == "cpu":
        return {**figures, "latency_ms": latency}
    started, count = time.perf_counter(), 1
    before = runtime.submit(jobs)
    while time.perf_counter() - started < 1.5:
        after = runtime.submit(jobs)
        before.pictures()
        before, count = after, count + 1
    before.pictures()
    return {
        **figures,
        "latency_ms": latency,
        "frames_per_s": round(callers * count / (time.perf_counter() - started), 1),
        "graph_ms": event_ms(runtime.graph(callers).replay, 1),
        "memory_mib": round(torch.cuda.max_memory_allocated() / 2**20),
    }


def arithmetic(runtime: Any) -> Figures:
    """Operations of one frame in the query network and the decoder; a multiply-add is two."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    network = runtime.network
    config, like = network.config, network.log_focus
    cells, width = config.side**2, config.values + config.dim + 3 + 3 * MAX_ACTIVE
    with FlopCounterMode(display=False) as counter:
        network.query_net(torch.zeros(1, config.keypoints, 3, device=like.device), config.side)
        network.decode(
            torch.zeros(1, cells, width, device=like.device),
            torch.zeros(1, cells, config.dim, device=like.device),
            torch.zeros(1, MAX_ACTIVE, 3, config.size, config.size, device=like.device),
        )
    return {"gflop": round(counter.get_total_flops() / 1e9, 3)}


def quantiles(ms: Sequence[float]) -> Figures:
    """Median, 95th percentile and least of the milliseconds."""
    p50, p95 = np.quantile(ms, [0.5, 0.95])
    return {"p50": round(float(p50), 4), "p95": round(float(p95), 4), "min": round(min(ms), 4), "repeats": len(ms)}


def host_ms(call: Callable[[], object], device: str, warm: int = 3, most: int = 200) -> list[float]:
    """Milliseconds of each call by the host's clock, up to `most` calls or about a second."""
    import torch

    def once() -> float:
        started = time.perf_counter()
        call()
        if device != "cpu":
            torch.cuda.synchronize()
        return (time.perf_counter() - started) * 1e3

    for _ in range(0 if device == "cpu" else warm):
        once()
    spent: list[float] = []
    while not spent or (len(spent) < most and sum(spent) < (100 if device == "cpu" else 1000)):
        spent.append(once())
    return spent


def device_ms(call: Callable[[], object], device: str) -> Figures:
    """Milliseconds of a call on the device alone: several calls in one CUDA graph, timed by events, so that the host's
    time to start them does not count. `captured` is false where the call cannot be captured; then it counts."""
    import torch

    if device == "cpu":
        return quantiles(host_ms(call, device))
    for _ in range(2):
        call()
    torch.cuda.synchronize()
    inner, captured = 10, True
    try:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(inner):
                call()
        work: Callable[[], object] = graph.replay
    except RuntimeError:
        captured = False

        def work() -> None:
            for _ in range(inner):
                call()

    return {**event_ms(work, inner), "captured": captured}


def event_ms(work: Callable[[], object], inner: int) -> Figures:
    """Milliseconds on the device of each of the `inner` calls that `work` makes."""
    import torch

    work()
    torch.cuda.synchronize()
    spent: list[float] = []
    while len(spent) < 5 or (len(spent) < 50 and sum(spent) * inner < 500):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        spent.append(start.elapsed_time(end) / inner)
    return quantiles(spent)


SECTIONS: dict[str, Callable[[str], Cases]] = {
    "machine": machine,
    "limits": limits,
    "kernels": kernels,
    "runtimes": runtimes,
    "attention": attention,
    "frames": frames,
}
"""Name -> section, in the order in which they run."""


def rows(cases: Cases) -> Iterator[Figures]:
    """Measure the cases; one that fails has an `error` in place of figures."""
    for label, measure in cases:
        try:
            figures = measure()
        except Exception as error:
            figures = {"error": describe(error)}
        yield {**label, **figures}


def describe(error: BaseException) -> str:
    """An error in one line."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}".rstrip(": ")


def main(name: str, device: str) -> None:
    """Print the rows of a section as JSON lines."""
    if device == "cpu":
        os.environ.setdefault("TRITON_INTERPRET", "1")  # before Triton is first imported
    import torch

    with torch.inference_mode():
        for row in rows(SECTIONS[name](device)):
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
