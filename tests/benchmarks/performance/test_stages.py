"""benchmarks/stages.py: what repeats come to, what threads there are, and whose time is whose inside a frame."""

import sys

import cv2
import numpy as np
import pytest
from threadpoolctl import threadpool_info

from iwcodec.benchmarks.performance.stages import INSIDE, WARM, pinned, pools, runs, split, stage_of, summarised, timed
from iwcodec.models.runtime.load import load_runtime


def test_quantiles_and_rate() -> None:
    stage = summarised("x", [n / 1000 for n in range(1, 102)], 3)
    assert (stage.p50_ms, stage.p95_ms, stage.p99_ms) == (51, 96, 100)
    assert stage.per_s == pytest.approx(1000 / 51, abs=0.01)
    with pytest.raises(ValueError, match="never measured"):
        summarised("x", [])


def test_the_first_calls_do_not_count() -> None:
    made: list[int] = []
    stage = timed("x", made.append, range(WARM + 5), each=4)
    assert made == list(range(WARM + 5))
    assert stage.repeats == 5


def test_every_pool_is_pinned_and_set_free_again() -> None:
    def blas() -> set[int]:
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    cv2.setNumThreads(2)
    before = blas()
    runtime = load_runtime(kind="onnx", threads=1)
    with pinned(1):
        assert cv2.getNumThreads() == 1
        assert blas() == {1}
        assert {pools(runtime, 1)[name] for name in ("ONNX Runtime", "OpenCV", "libscipy_openblas")} == {1}
    assert cv2.getNumThreads() == 2
    assert blas() == before


def test_nodes_belong_to_stages() -> None:
    assert stage_of("attend", "/query_net/unet/Conv_kernel_time", "Conv") == "query net"
    assert stage_of("attend", "/TopK_kernel_time", "TopK") == "attention"
    assert stage_of("attend", "/Transpose_kernel_time", "Transpose") == "attention"
    assert stage_of("attend", "/Tanh_output_0_nchwc_kernel_time", "Conv") == "decoder"
    assert stage_of("attend", "/blocks/blocks.0/Add_kernel_time", "Add") == "decoder"
    assert stage_of("refine", "/Relu_2_output_0_nchwc_kernel_time", "Conv") == "decoder"
    assert stage_of("refine", "/Clip_kernel_time", "Clip") == "decoder"


def test_a_profile_is_split_into_its_runs() -> None:
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


@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_stages_are_less_than_their_frame_and_pictures_stay(kind: str) -> None:
    if kind == "torch":
        pytest.importorskip("torch")
    runtime = load_runtime(kind=kind, threads=1)
    size = runtime.info.size
    picture = cv2.resize(np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5, (size, size))
    keypoints = runtime.prepare(picture).keypoints
    rebuilt = []

    def prepare(other):
        source = other.prepare(picture)
        return lambda row: rebuilt.append(other.reconstruct(row, [source]))

    found = split(runtime, 1, prepare, [keypoints] * (WARM + 2))
    assert found is not None
    assert tuple(found.stages) == INSIDE
    assert all(seconds.shape == (2,) and (seconds > 0).all() for seconds in found.stages.values())
    assert (found.rest() > 0).all()
    plain = runtime.reconstruct(keypoints, [runtime.prepare(picture)])
    assert all(np.array_equal(one, plain) for one in rebuilt)
    if kind == "torch":
        assert not vars(runtime._network).keys() & {"queries", "attend", "decode"}
        assert sys.modules["iwcodec.models.runtime.torch"].to_uint8.__name__ == "to_uint8"


def test_a_runtime_without_stages_has_none() -> None:
    class Other:
        pass

    assert split(Other(), 1, lambda runtime: lambda row: None, []) is None  # type: ignore[arg-type]
