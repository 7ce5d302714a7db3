"""`bench speed` measures every stage, and its arithmetic is right. Speed itself is not asserted."""

from pathlib import Path

import pytest

pytest.importorskip("psutil")

from iwcodec.benchmarks.performance import frame_profile, speed, speed_stages, stages
from iwcodec.benchmarks.performance.stages import Stage
from iwcodec.models.runtime.load import load_runtime


def test_every_stage_is_measured(face_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "sample_clip", lambda: face_clip)
    for module in (frame_profile, speed, speed_stages, stages):
        monkeypatch.setattr(module, "WARM", 2)
    monkeypatch.setattr(speed, "SOURCES", counts := (1, 8))
    runtime = load_runtime(kind="onnx", threads=1)
    passes: list[str] = []
    results = speed.run(runtime, 8, 1, lambda name, share: passes.append(name))
    measured = {(stage["stage"], stage["sources"]) for stage in results["stages"]}
    sent = ("capture", "capture: colour conversion", "capture: crop", "detector", "keypoint fit", "motion coding")
    assert measured == {
        *((name, n) for name in (*sent, "a frame, sent") for n in counts),
        *(
            (name, n)
            for name in ("rebuilding a frame", "a frame, received", *frame_profile.PROFILED_STAGES)
            for n in counts
        ),
        *((name, None) for name in ("capture from a file", "face search, one frame in 5", "motion decoding")),
        *((name, None) for name in ("source coding", "source decoding", "source preparation")),
        *((name, None) for name in ("SVT-AV1 encoding", "AV1 decoding (dav1d)")),
    }
    for stage in results["stages"]:
        assert 0 < stage["p50_ms"] <= stage["p95_ms"] <= stage["p99_ms"]
        assert stage["repeats"] >= 5
    for count in counts:
        parts = {part["part"]: part["share"] for part in results["parts"] if part["sources"] == count}
        assert {"query net", "attention", "decoder"} <= parts.keys()
        assert sum(parts.values()) == pytest.approx(1, abs=0.01)
        assert 0 <= parts["rest"] < 0.5
    for total in results["sums"]:
        assert 0 < total["stages_ms"] <= total["watched_ms"]
        assert total["unwatched_ms"] > 0
    assert results["threads"] == 1
    assert {results["pools"][name] for name in ("ONNX Runtime", "OpenCV", "libscipy_openblas", "dav1d")} == {1}
    assert all(ratio > 0 for ratio in results["ratios"].values())
    assert results["dense_missing"] == "left out"
    assert results["memory_mb"]["peak"] >= results["memory_mb"]["loaded"] > 0
    assert passes


def test_ratios_are_of_medians() -> None:
    def stage(name: str, sources: int | None, ms: float) -> Stage:
        return Stage(name, sources, ms, 9 * ms, 9 * ms, 1.0, 10)

    alone = [stage("motion decoding", None, 1), stage("AV1 decoding (dav1d)", None, 2)]
    alone += [stage("SVT-AV1 encoding", None, 4), stage("source coding", None, 12)]
    some = [stage("rebuilding a frame", n, 4 + n) for n in (1, 3, 8, 16)]
    some += [stage("a frame, sent", n, 2 * n) for n in (1, 3, 8, 16)]
    found = speed.ratios([*alone, *some])
    assert found["receiver (3 sources) / AV1 decoding"] == 4
    assert found["sender (1 source) / SVT-AV1 encoding"] == 0.5
    assert found["source coding / SVT-AV1 encoding"] == 3
    assert not any("dense" in name for name in found)
    dense = [stage("dense attention alone", n, 100 * n) for n in (1, 3, 8)]
    dense += [stage("sparse attention alone", n, n) for n in (1, 3, 8)]
    found = speed.ratios([*alone, *some, *dense])
    assert found["dense attention / ours (all of 8)"] == 100
    assert found["dense attention / ours (all of 8 / the 3 in use)"] == pytest.approx(800 / 3, abs=0.001)
