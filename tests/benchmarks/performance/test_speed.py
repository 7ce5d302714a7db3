"""`bench speed` measures every stage. Speed itself is not asserted."""

from pathlib import Path

import pytest

pytest.importorskip("psutil")

from iwcodec.benchmarks.performance import frame_profile, speed, speed_stages, stages
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
    parts = "capture: colour conversion", "capture: crop"
    sent = ("capture", *parts, "detector", "keypoint fit", "eyes and mouth", "motion coding")
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
    assert results["threads"] == 1
    assert results["dense_missing"] == "left out"
    assert results["memory_mb"]["peak"] >= results["memory_mb"]["loaded"] > 0
    assert passes
