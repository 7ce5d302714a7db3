"""benchmarks/speed.py runs, and its arithmetic is right; how fast anything is, no test can say."""

import numpy as np
import pytest

pytest.importorskip("psutil")

from iwcodec.benchmarks.speed import WARM, part_of, peak_mb, run, summarised, timed
from iwcodec.models.runtime import load_runtime


def test_every_stage_is_measured() -> None:
    runtime = load_runtime(kind="onnx", threads=1)
    told: list[str] = []
    results = run(runtime, 10, 1, 12, lambda name, share: told.append(name))
    stages = {(stage["stage"], stage["sources"]) for stage in results["stages"]}
    assert stages == {
        *((name, None) for name in ("camera picture to square RGB", "detector", "keypoint fit", "a frame, sent")),
        *((name, None) for name in ("motion coding", "motion decoding")),
        *((name, None) for name in ("source coding", "source decoding", "source preparation")),
        *(("rebuilding a frame", n) for n in (1, 3, 8)),
        *((name, None) for name in ("SVT-AV1 encoding", "AV1 decoding (dav1d)")),
    }
    for stage in results["stages"]:
        assert 0 < stage["p50_ms"] <= stage["p95_ms"] <= stage["p99_ms"]
        assert stage["repeats"] >= 7
    for count in (1, 3):
        parts = {part["part"]: part["share"] for part in results["parts"] if part["sources"] == count}
        assert {"query net", "attention", "decoder"} <= parts.keys()
        assert sum(parts.values()) == pytest.approx(1, abs=0.01)
    assert results["threads"] == 1
    assert all(ratio > 0 for ratio in results["ratios"].values())
    assert results["memory_mb"]["peak"] >= results["memory_mb"]["loaded"] > 0
    assert results["soak"]["frames"] == 12
    assert "soaking" in told


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


def test_nodes_belong_to_parts() -> None:
    assert part_of("/query_net/unet/Conv_kernel_time", "Conv") == "query net"
    assert part_of("/TopK_kernel_time", "TopK") == "attention"
    assert part_of("/Relu_2_output_0_nchwc_kernel_time", "Conv") == "decoder"
    assert part_of("/GridSample_kernel_time", "GridSample") == "sampling"
    assert part_of("/Transpose_kernel_time", "Transpose") == "other"


def test_peak_is_at_least_what_was_needed() -> None:
    kept = np.ones(30_000_000, np.uint8)
    assert peak_mb() > kept.nbytes / 2**20
