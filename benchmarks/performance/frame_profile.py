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
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Profile:
    """Profile of n frames; each array holds n values in seconds."""

    stages: dict[str, Seconds]
    """By name of PROFILED_STAGES."""
    frames: Seconds
    """From keypoints to picture, while profiling."""

    def rest(self) -> Seconds:
        """Time outside all stages: choosing sources, calling the graphs, waking threads."""
        return self.frames - np.sum(list(self.stages.values()), axis=0)


def profile_frames(runtime: Runtime, threads: int, prepare: Prepare, keypoints: Sequence[Keypoints]) -> Profile | None:
    """Profile these frames without the first WARM; None for a runtime that cannot be profiled."""
    if isinstance(runtime, OnnxRuntime):
        return _profile_onnx(runtime.info.model_id, threads, prepare, keypoints)
    if type(runtime).__name__ == "TorchRuntime":
        return _profile_torch(runtime, prepare, keypoints)
    return None


def _profile_onnx(model: str, threads: int, prepare: Prepare, keypoints: Sequence[Keypoints]) -> Profile:
    spent: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        with profiled(Path(folder)):
            runtime = OnnxRuntime(model, threads)
        for name in ("_sample", "_fold", "_unfold"):
            _clock(runtime, name, spent, lambda: None)
        frames = _reconstruction_times(prepare(runtime), keypoints)
        logs = {
            part: json.loads(Path(session.end_profiling()).read_text()) for part, session in runtime.sessions.items()
        }
    attend, refine = (runs(part, logs[part]) for part in ("attend", "refine"))
    clock = {name: np.array(seconds) for name, seconds in spent.items()}
    return _profile(
        {
            "query net": _column(attend, "query net"),
            "attention": _column(attend, "attention"),
            "decoder": _column(attend, "decoder") + _column(refine, "decoder"),
            "sampling": clock["_sample"] - clock["_fold"],
            "colour conversion": clock["_fold"] + clock["_unfold"],
        },
        frames,
    )


def _profile_torch(runtime: Any, prepare: Prepare, keypoints: Sequence[Keypoints]) -> Profile:
    from iwcodec.models.runtime import torch as runtime_torch

    spent: dict[str, list[float]] = defaultdict(list)
    network, plain = runtime.network, runtime_torch.to_uint8
    wait = runtime_torch.torch.cuda.synchronize if runtime.device == "cuda" else lambda: None
    patched = [(network, "queries"), (network, "attend"), (network, "decode")]
    patched += [(network.decoder, "features"), (network.decoder, "correct"), (runtime_torch, "to_uint8")]
    for owner, name in patched:
        _clock(owner, name, spent, wait)
    try:
        frames = _reconstruction_times(prepare(runtime), keypoints)
    finally:
        runtime_torch.to_uint8 = plain
        for owner, name in patched[:-1]:
            delattr(owner, name)  # the class still has the original
    clock = {name: np.array(seconds) for name, seconds in spent.items()}
    decoder = clock["features"] + clock["correct"]
    return _profile(
        {
            "query net": clock["queries"],
            "attention": clock["attend"] - clock["queries"],
            "decoder": decoder,
            "sampling": clock["decode"] - decoder,
            "colour conversion": clock["to_uint8"],
        },
        frames,
    )


def _profile(stages: Mapping[str, Seconds], frames: Seconds) -> Profile:
    return Profile({name: stages[name][WARM:] for name in PROFILED_STAGES}, frames[WARM:])


def _reconstruction_times(rebuild: Callable[[Keypoints], object], keypoints: Sequence[Keypoints]) -> Seconds:
    seconds = []
    for row in keypoints:
        started = time.perf_counter()
        rebuild(row)
        seconds.append(time.perf_counter() - started)
    return np.array(seconds)


def _clock(owner: Any, name: str, spent: dict[str, list[float]], wait: Callable[[], object]) -> None:
    """Replace a method by one that appends the time of each call to `spent`; `wait` synchronises the device."""
    plain = getattr(owner, name)

    def call(*arguments: Any) -> Any:
        wait()
        started = time.perf_counter()
        result = plain(*arguments)
        wait()
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
