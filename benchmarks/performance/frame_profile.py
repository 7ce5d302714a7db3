"""Time of each stage inside the reconstruction of one frame.

Measured in a separate pass, because profiling costs time: operators of the graphs by ONNX Runtime's profiler, the code
between them by the clock.
"""

import itertools
import json
import tempfile
import time
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from iwcodec.benchmarks.performance.stages import WARM, Seconds
from iwcodec.models.runtime.onnx import OnnxRuntime
from iwcodec.models.runtime.types import Keypoints, Runtime

PROFILED_STAGES = ("query net", "attention", "decoder", "sampling", "colour conversion")
"""Stages of the reconstruction of a frame. Attention includes the motion prior and the weighted sum of rows; sampling
includes blending the sources; colour conversion is between uint8 pictures and float planes, both ways."""
Prepare = Callable[[Runtime], Callable[[Keypoints], object]]
"""Prepares the sources with a runtime and returns the function that reconstructs a frame with it."""


def profile_frames(
    runtime: Runtime, threads: int, prepare: Prepare, keypoints: Sequence[Keypoints]
) -> dict[str, Seconds]:
    """Seconds of each of PROFILED_STAGES for these frames without the first WARM; empty for a runtime other than
    OnnxRuntime."""
    if not isinstance(runtime, OnnxRuntime):
        return {}
    clock: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        with profiled(Path(folder)):
            profiling = OnnxRuntime(runtime.info.model_id, threads)
        for name in ("_sample", "_fold", "_unfold"):
            _clock(profiling, name, clock)
        rebuild = prepare(profiling)
        for row in keypoints:
            rebuild(row)
        logs = {
            part: json.loads(Path(session.end_profiling()).read_text()) for part, session in profiling.sessions.items()
        }
    attend, refine = (runs(part, logs[part]) for part in ("attend", "refine"))
    sample, fold, unfold = (np.array(clock[name]) for name in ("_sample", "_fold", "_unfold"))
    seconds = (
        _column(attend, "query net"),
        _column(attend, "attention"),
        _column(attend, "decoder") + _column(refine, "decoder"),
        sample - fold,
        fold + unfold,
    )
    return {name: spent[WARM:] for name, spent in zip(PROFILED_STAGES, seconds, strict=True)}


def _clock(owner: Any, name: str, spent: dict[str, list[float]]) -> None:
    """Replace a method by one that appends the time of each call to `spent`."""
    plain = getattr(owner, name)

    def call(*arguments: Any) -> Any:
        started = time.perf_counter()
        result = plain(*arguments)
        spent[name].append(time.perf_counter() - started)
        return result

    setattr(owner, name, call)


@contextmanager
def profiled(folder: Path) -> Iterator[None]:
    """ONNX Runtime sessions created in this context write profiles into the folder."""
    import onnxruntime

    plain = onnxruntime.InferenceSession
    numbers = itertools.count()

    class Profiled(plain):  # type: ignore[misc, valid-type]
        def __init__(self, model: bytes, options: Any, **named: Any) -> None:
            options.enable_profiling = True
            options.profile_file_prefix = str(folder / f"graph-{next(numbers)}")
            super().__init__(model, options, **named)

    onnxruntime.InferenceSession = Profiled
    try:
        yield
    finally:
        onnxruntime.InferenceSession = plain


def runs(part: str, events: Sequence[Mapping[str, Any]]) -> list[Counter[str]]:
    """Seconds by stage of every run in a profile, in order: the sum over its operators."""
    starts = sorted(event["ts"] for event in events if event["name"] == "model_run")
    by_run: list[Counter[str]] = [Counter() for _ in starts]
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            stage = stage_of(part, event["name"], event["args"]["op_name"])
            by_run[bisect_right(starts, event["ts"]) - 1][stage] += event["dur"] / 1e6
    return by_run


def stage_of(part: str, name: str, operator: str) -> str:
    """The stage that a node of the graph `attend` or `refine` belongs to.

    The decoder starts inside `attend`: its nodes there are all convolutions outside the query net, and the layout
    conversions around them.
    """
    if part == "refine":
        return "decoder"
    if "query_net" in name:
        return "query net"
    is_decoder = operator in ("Conv", "ReorderInput", "ReorderOutput")
    is_decoder = is_decoder or any(word in name for word in ("/residual", "/entry", "/blocks"))
    return "decoder" if is_decoder else "attention"


def _column(by_run: Sequence[Mapping[str, float]], stage: str) -> Seconds:
    return np.array([run[stage] for run in by_run])
