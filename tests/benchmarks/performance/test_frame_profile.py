"""Profile of a frame's reconstruction: which stage each node belongs to, and that profiling changes no picture."""

from typing import Any

import cv2
import numpy as np
import pytest

from iwcodec.benchmarks.performance.frame_profile import PROFILED_STAGES, profile_frames, runs, stage_of
from iwcodec.benchmarks.performance.stages import WARM
from iwcodec.models.runtime.load import load_runtime
from iwcodec.models.runtime.types import Runtime
from support.codec.stub_runtime import StubRuntime


def test_nodes_belong_to_stages() -> None:
    assert stage_of("attend", "/query_net/unet/Conv_kernel_time", "Conv") == "query net"
    assert stage_of("attend", "/TopK_kernel_time", "TopK") == "attention"
    assert stage_of("attend", "/Transpose_kernel_time", "Transpose") == "attention"
    assert stage_of("attend", "/Tanh_output_0_nchwc_kernel_time", "Conv") == "decoder"
    assert stage_of("attend", "/blocks/blocks.0/Add_kernel_time", "Add") == "decoder"
    assert stage_of("refine", "/Relu_2_output_0_nchwc_kernel_time", "Conv") == "decoder"
    assert stage_of("refine", "/Clip_kernel_time", "Clip") == "decoder"


def test_profile_is_split_into_runs() -> None:
    def node(ts: int, name: str, dur: int) -> dict:
        return {"cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur, "args": {"op_name": "MatMul"}}

    events = [
        {"cat": "Session", "name": "session_initialization", "ts": 0, "dur": 5},
        node(12, "/query_net/MatMul", 300),
        node(15, "/MatMul", 500),
        {"cat": "Node", "name": "/MatMul_fence_before", "ts": 14, "dur": 1},
        {"cat": "Session", "name": "model_run", "ts": 10, "dur": 900},
        node(1012, "/MatMul", 700),
        node(1020, "/MatMul_1", 50),
        {"cat": "Session", "name": "model_run", "ts": 1010, "dur": 900},
    ]
    first, second = runs("attend", events)
    assert first == pytest.approx({"query net": 0.0003, "attention": 0.0005})
    assert second == pytest.approx({"attention": 0.00075})


def test_every_stage_is_timed_and_pictures_do_not_change() -> None:
    runtime = load_runtime(kind="onnx", threads=1)
    size = runtime.info.size
    picture = cv2.resize(np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5, (size, size))
    keypoints = runtime.prepare(picture).keypoints
    reconstructed = []

    def prepare(other: Runtime) -> Any:
        source = other.prepare(picture)
        return lambda row: reconstructed.append(other.reconstruct(row, [source]))

    spent = profile_frames(runtime, 1, prepare, [keypoints] * (WARM + 2))
    assert tuple(spent) == PROFILED_STAGES
    assert all(seconds.shape == (2,) and (seconds > 0).all() for seconds in spent.values())
    plain = runtime.reconstruct(keypoints, [runtime.prepare(picture)])
    assert all(np.array_equal(one, plain) for one in reconstructed)


def test_other_runtimes_are_not_profiled() -> None:
    assert profile_frames(StubRuntime(), 1, lambda runtime: lambda row: None, []) == {}
