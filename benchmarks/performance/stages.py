"""Time by stage: repeats and what they come to, and what the rebuilding of one frame is made of.

The frame as a whole is timed as the codec runs it. What happens inside is measured in a pass of its own, because
looking costs time: the operators of the graphs by ONNX Runtime's profiler, what happens between them by the clock.
"""

import json
import sys
import tempfile
import time
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_info, threadpool_limits

from iwcodec.models.runtime.onnx import OnnxRuntime
from iwcodec.models.runtime.types import Keypoints, Runtime

WARM = 10
"""Calls that are not counted."""
INSIDE = ("query net", "attention", "decoder", "sampling", "colour conversion")
"""Stages of a rebuilt frame. Attention is with the prior, and what its weights are read for; sampling is of the
sources, and blending them; colour conversion is from bytes to planes of floats and back to a picture."""

Seconds = NDArray[np.float64]


@dataclass(frozen=True)
class Stage:
    stage: str
    sources: int | None
    """In the library; None where it makes no difference."""
    p50_ms: float
    p95_ms: float
    p99_ms: float
    per_s: float
    """By the mean."""
    repeats: int


def timed(
    name: str, work: Callable[[Any], object], inputs: Iterable[Any], sources: int | None = None, each: int = 1
) -> Stage:
    """The work on each input, which is for `each` frames; the first WARM are not counted."""
    seconds = []
    for given in inputs:
        started = time.perf_counter()
        work(given)
        seconds.append((time.perf_counter() - started) / each)
    return summarised(name, seconds[WARM:], sources)


def summarised(name: str, seconds: Sequence[float] | Seconds, sources: int | None = None) -> Stage:
    """ValueError without any."""
    if not len(seconds):
        raise ValueError(f"{name} was never measured")
    p50, p95, p99 = (round(float(q) * 1000, 3) for q in np.quantile(seconds, [0.5, 0.95, 0.99]))
    return Stage(name, sources, p50, p95, p99, round(1 / float(np.mean(seconds)), 2), len(seconds))


# Threads.


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Inside, the pools that ONNX Runtime's options do not reach have so many threads: OpenCV's, the linear algebra's,
    and PyTorch's where it has been imported."""
    torch, opencv = sys.modules.get("torch"), cv2.getNumThreads()
    of_torch = None if torch is None else torch.get_num_threads()
    cv2.setNumThreads(threads)
    if torch is not None:
        torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads):
            yield
    finally:
        cv2.setNumThreads(opencv)
        if torch is not None:
            torch.set_num_threads(of_torch)


def pools(runtime: Runtime, threads: int) -> dict[str, int]:
    """Threads of everything that computes here, as they are set now."""
    found = {"OpenCV": cv2.getNumThreads(), "face search": 1, "SVT-AV1": 1, "dav1d": 1}
    if isinstance(runtime, OnnxRuntime):
        found["ONNX Runtime"] = threads
    if "torch" in sys.modules:
        found["PyTorch"] = sys.modules["torch"].get_num_threads()
    return found | {pool["prefix"]: pool["num_threads"] for pool in threadpool_info()}


# Inside a frame.

Prepare = Callable[[Runtime], Callable[[Keypoints], object]]
"""Gives a runtime its sources; returns what rebuilds a frame with it."""


@dataclass(frozen=True)
class Split:
    """Seconds (n,) of n frames."""

    stages: dict[str, Seconds]
    """Of INSIDE."""
    frames: Seconds
    """From keypoints to picture, while all this was measured."""

    def rest(self) -> Seconds:
        """What is in no stage: choosing sources, calling the graphs, waiting for threads to begin."""
        return self.frames - np.sum(list(self.stages.values()), axis=0)


def split(runtime: Runtime, threads: int, prepare: Prepare, keypoints: Sequence[Keypoints]) -> Split | None:
    """What each of these frames is made of, but for the first WARM; None for a runtime that shows no stages."""
    if isinstance(runtime, OnnxRuntime):
        return _of_graphs(runtime.info.model_id, threads, prepare, keypoints)
    if type(runtime).__name__ == "TorchRuntime":
        return _of_torch(runtime, prepare, keypoints)
    return None


def _of_graphs(model: str, threads: int, prepare: Prepare, keypoints: Sequence[Keypoints]) -> Split:
    spent: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        with profiled(Path(folder)) as sessions:
            runtime = OnnxRuntime(model, threads)
        for name in ("_sample", "_fold", "_finished"):
            _clock(runtime, name, spent, lambda: None)
        frames = _rebuilt(prepare(runtime), keypoints)
        logs = {part: json.loads(Path(session.end_profiling()).read_text()) for part, session in sessions.items()}
    look, paint = (runs(part, logs[part]) for part in ("attend", "refine"))
    clock = {name: np.array(seconds) for name, seconds in spent.items()}
    return _split(
        {
            "query net": _column(look, "query net"),
            "attention": _column(look, "attention"),
            "decoder": _column(look, "decoder") + _column(paint, "decoder"),
            "sampling": clock["_sample"] - clock["_fold"],
            "colour conversion": clock["_fold"] + clock["_finished"],
        },
        frames,
    )


def _of_torch(runtime: Any, prepare: Prepare, keypoints: Sequence[Keypoints]) -> Split:
    from iwcodec.models.runtime import torch as runtime_torch

    spent: dict[str, list[float]] = defaultdict(list)
    network, plain = runtime._network, runtime_torch.to_uint8
    wait = runtime_torch.torch.cuda.synchronize if runtime.device == "cuda" else lambda: None
    watched = [(network, "queries"), (network, "attend"), (network, "decode")]
    watched += [(network.decoder, "features"), (network.decoder, "correct"), (runtime_torch, "to_uint8")]
    for owner, name in watched:
        _clock(owner, name, spent, wait)
    try:
        frames = _rebuilt(prepare(runtime), keypoints)
    finally:
        runtime_torch.to_uint8 = plain
        for owner, name in watched[:-1]:
            delattr(owner, name)  # the class has the plain one
    clock = {name: np.array(seconds) for name, seconds in spent.items()}
    decoder = clock["features"] + clock["correct"]
    return _split(
        {
            "query net": clock["queries"],
            "attention": clock["attend"] - clock["queries"],
            "decoder": decoder,
            "sampling": clock["decode"] - decoder,
            "colour conversion": clock["to_uint8"],
        },
        frames,
    )


def _split(stages: Mapping[str, Seconds], frames: Seconds) -> Split:
    return Split({name: stages[name][WARM:] for name in INSIDE}, frames[WARM:])


def _rebuilt(rebuild: Callable[[Keypoints], object], keypoints: Sequence[Keypoints]) -> Seconds:
    seconds = []
    for row in keypoints:
        started = time.perf_counter()
        rebuild(row)
        seconds.append(time.perf_counter() - started)
    return np.array(seconds)


def _clock(owner: Any, name: str, spent: dict[str, list[float]], wait: Callable[[], object]) -> None:
    """From now on every call of this method is timed, and what it set off is waited for."""
    plain = getattr(owner, name)

    def call(*given: Any) -> Any:
        wait()
        started = time.perf_counter()
        result = plain(*given)
        wait()
        spent[name].append(time.perf_counter() - started)
        return result

    setattr(owner, name, call)


@contextmanager
def profiled(folder: Path) -> Iterator[dict[str, Any]]:
    """Sessions of ONNX Runtime made inside write profiles into the folder; yields where they are put, by the part of
    the model in their graph's name."""
    import onnxruntime

    plain = onnxruntime.InferenceSession
    sessions: dict[str, Any] = {}

    class Profiled(plain):  # type: ignore[misc, valid-type]
        def __init__(self, model: str, options: Any, **named: Any) -> None:
            part = model.split(".")[-2]
            options.enable_profiling = True
            options.profile_file_prefix = str(folder / part)
            super().__init__(model, options, **named)
            sessions[part] = self

    onnxruntime.InferenceSession = Profiled
    try:
        yield sessions
    finally:
        onnxruntime.InferenceSession = plain


def runs(part: str, events: Sequence[Mapping[str, Any]]) -> list[Counter[str]]:
    """Seconds by stage of every run in a profile, in their order: the sum of its operators'."""
    starts = sorted(event["ts"] for event in events if event["name"] == "model_run")
    found: list[Counter[str]] = [Counter() for _ in starts]
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            stage = stage_of(part, event["name"], event["args"]["op_name"])
            found[bisect_right(starts, event["ts"]) - 1][stage] += event["dur"] / 1e6
    return found


def stage_of(part: str, name: str, operator: str) -> str:
    """The stage that a node of `attend` or `refine` belongs to. The decoder begins in `attend`, where it has all the
    convolutions that are not the query net's, and what turns their layout."""
    if part == "refine":
        return "decoder"
    if "query_net" in name:
        return "query net"
    of_decoder = operator in ("Conv", "ReorderInput", "ReorderOutput")
    of_decoder = of_decoder or any(word in name for word in ("/residual", "/entry", "/blocks"))
    return "decoder" if of_decoder else "attention"


def _column(found: Sequence[Mapping[str, float]], stage: str) -> Seconds:
    return np.array([run[stage] for run in found])
