"""Inputs and implementations of attention for `bench attention` and gpu.py; a case is one frame of the bundled clip.

Nothing here needs PyAV: a borrowed GPU machine seldom has it.
"""

import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from iwcodec import codec
from iwcodec.codec.media.types import Picture

SAMPLE = Path(codec.__path__[0]) / "data" / "sample.mp4"
"""The bundled clip."""
KEPT = (1, 2, 4, 8, 16, 32)
"""k of the exact top-k: keys kept per query."""
BLOCKS = (1, 2, 4, 8, 16)
"""k of the hierarchical top-k: 2x2 blocks of keys kept per query, so four times as many keys."""
SOURCES = 3
"""Source pictures of a case."""


def clip_pictures(size: int, frames: int) -> list[Picture]:
    """SOURCES source pictures evenly spaced over the bundled clip, then `frames` driving frames between them."""
    clip = sample_frames(size)
    sources = np.linspace(0, len(clip) - 1, SOURCES).round().astype(int)
    driving = (np.arange(frames) + 0.37) * len(clip) / frames
    return [np.asarray(clip[i], np.uint8) for i in [*sources, *driving.astype(int)]]


def sample_frames(size: int) -> list[Picture]:
    """All frames of the bundled clip, scaled to `size`. Raises OSError if OpenCV cannot decode it."""
    video, frames = cv2.VideoCapture(str(SAMPLE)), []
    while (read := video.read())[0]:
        small = cv2.resize(read[1], (size, size), interpolation=cv2.INTER_AREA)
        frames.append(np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2RGB), np.uint8))
    if not frames:
        raise OSError(f"OpenCV cannot decode {SAMPLE.name}")
    return frames


@dataclass(frozen=True)
class Case:
    """Inputs of attention for one frame, as torch tensors."""

    queries: Any  # (1, N, d + 4)
    unit: Any  # (1, N, d)
    keys: Any  # (1, S * M, d + 4)
    rows: Any  # (1, S * M, R + 3 S)
    extras: Any
    sources: Any  # (1, S, 3, H, W)
    side: int

    def finish(self, network: Any, attended: Any) -> Picture:
        """Decode attended rows to a picture."""
        from iwcodec.models.runtime.torch import to_uint8

        picture = network.decode(attended.float(), self.unit, self.sources)[0][0]
        return to_uint8(picture.permute(1, 2, 0)).cpu().numpy()


def make_case(network: Any, sources: Sequence[Picture], driving: Picture) -> Case:
    """The inputs of attention that the network computes from these pictures."""
    import torch

    from iwcodec.models.network.warp import place_columns

    device = network.log_focus.device
    stacked = torch.from_numpy(np.stack([*sources, driving])).to(device).permute(0, 3, 1, 2).float() / 255
    keypoints = network.detect(
        torch.nn.functional.interpolate(stacked, (network.config.detector_size,) * 2, mode="area")
    )
    encoded = network.encode_sources(stacked[None, :-1], keypoints[None, :-1])
    side = network.side(stacked)
    queries, unit = network.queries(keypoints[-1:], side)
    rows = place_columns(encoded.rows, side)
    extras = network.extras(rows.shape[-1])
    return Case(queries, unit, network.keys(keypoints[-1:], encoded, side), rows, extras, stacked[None, :-1], side)


Attend = Callable[[Case, int], Any]
"""(case, k) -> attended rows."""


def implementations(network: Any, threads: int) -> dict[str, tuple[Attend, tuple[int, ...]]]:
    """Name -> (attend, the values of k to run it with), for everything that runs on this machine.

    k counts keys, or 2x2 blocks of keys for `hierarchical`; 0 stands for dense attention. `threads` are ONNX Runtime's;
    0 leaves it out.
    """
    import torch

    from iwcodec.models.network import attention

    def dense(case: Case, k: int) -> Any:
        return attention.dense_attention(case.queries, case.keys, case.rows, case.extras)

    def fused(case: Case, k: int) -> Any:
        keys = torch.cat([case.keys, case.extras.keys[None]], 1)
        rows = torch.cat([case.rows, case.extras.rows[None]], 1)
        return fused_attention(case.queries, keys, rows)

    def fused_half(case: Case, k: int) -> Any:
        keys = torch.cat([case.keys, case.extras.keys[None]], 1)
        rows = torch.cat([case.rows, case.extras.rows[None]], 1)
        return fused_attention(in_halves(case.queries, False), in_halves(keys, True), rows.half())

    def topk(case: Case, k: int) -> Any:
        return attention.topk_attention(case.queries, case.keys, case.rows, case.extras, k)

    def hierarchical(case: Case, k: int) -> Any:
        return attention.hierarchical_attention(case.queries, case.keys, case.rows, case.extras, case.side, k)

    attentions: dict[str, tuple[Attend, tuple[int, ...]]] = {
        "dense": (dense, (0,)),
        "dense, fused (PyTorch SDPA)": (fused, (0,)),
        "dense, fused fp16 (PyTorch SDPA)": (fused_half, (0,)),
        "top-k": (topk, KEPT),
        "hierarchical": (hierarchical, BLOCKS),
    }
    if network.log_focus.device.type == "cuda":
        from iwcodec.models.network import attention_triton

        for name, dtype in {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}.items():

            def kernel(case: Case, k: int, dtype: Any = dtype) -> Any:
                return attention_triton.topk_attention(case.queries, case.keys, case.rows, case.extras, k, dtype)

            attentions[f"top-k, Triton {name}"] = (kernel, KEPT)
    elif find_spec("onnx") is not None and threads:
        attend, kept = onnx_attention(network, threads)
        attentions["hierarchical, ONNX Runtime"] = (attend, (kept,))
    return attentions


def fused_attention(queries: Any, keys: Any, rows: Any) -> Any:
    """Dense attention by PyTorch's fused kernels, which want equal widths, in multiples of 8, of keys and rows."""
    import torch

    width = rows.shape[-1]
    padded = -(-max(width, keys.shape[-1]) // 8) * 8
    wide = [torch.nn.functional.pad(x, (0, padded - x.shape[-1]))[:, None] for x in (queries, keys, rows)]
    return torch.nn.functional.scaled_dot_product_attention(wide[0], wide[1], wide[2], scale=1.0)[:, 0, :, :width]


def in_halves(vectors: Any, keys: bool) -> Any:
    """Vectors in fp16, with each geometry value as a sum of two, as the Triton kernel has them (ATTENTION.md)."""
    import torch

    from iwcodec.models.network.geometry import PRIOR_DIMS

    content, geometry = vectors[..., :-PRIOR_DIMS], vectors[..., -PRIOR_DIMS:].clamp(-65000.0, 65000.0)
    high = geometry.half()
    low = (geometry - high.float()).half()
    order = (high, low, high, low) if keys else (high, high, low, low)
    return torch.cat([content.half(), *order], -1)


def onnx_attention(network: Any, threads: int, dense: bool = False) -> tuple[Attend, int]:
    """Hierarchical or dense attention alone as a graph on ONNX Runtime's CPU provider.

    Returns the function and the only k that it accepts (0 for dense).
    """
    import onnxruntime
    import torch

    from iwcodec.models.export.graphs import OPSET
    from iwcodec.models.network.attention import Extras, dense_attention, hierarchical_attention

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
        warnings.simplefilter("ignore")  # about values that become constants in the graph on purpose
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


def difference(actual: Any, expected: Any) -> float:
    """RMS of the difference relative to the RMS of `expected`."""
    return float((actual - expected).square().mean().sqrt() / expected.square().mean().sqrt())


def timed(attend: Callable[[], Any], seconds: float = 1.0, max_calls: int = 50) -> list[float]:
    """Milliseconds of each call on the CPU after a warm-up: at least 3, and up to `max_calls` as long as they fit in
    `seconds`."""

    def once() -> float:
        start = time.perf_counter()
        attend()
        return (time.perf_counter() - start) * 1e3

    once()
    spent: list[float] = []
    while len(spent) < 3 or (sum(spent) < seconds * 1e3 and len(spent) < max_calls):
        spent.append(once())
    return spent
