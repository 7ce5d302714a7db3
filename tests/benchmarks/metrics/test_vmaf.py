"""VMAF: the order of its inputs, agreement with libvmaf's own pooling, and errors."""

import json
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from iwcodec.benchmarks.metrics.learned.availability import MetricUnavailableError
from iwcodec.benchmarks.metrics.vmaf import find_ffmpeg, vmaf
from support.metrics.pictures import pair, shifted, texture


@pytest.fixture(scope="module")
def ffmpeg() -> str:
    try:
        return find_ffmpeg()
    except MetricUnavailableError as error:
        pytest.skip(str(error))


def test_vmaf_equals_libvmaf(ffmpeg: str, tmp_path: Path) -> None:
    """The reference converts to YUV with PyAV instead of ffmpeg, and libvmaf pools the mean."""
    originals, decoded = pair(40)
    planar = [
        [av.VideoFrame.from_ndarray(p, format="rgb24").reformat(format="yuv420p").to_ndarray() for p in clip]
        for clip in (originals, decoded)
    ]
    for name, clip in zip(("original", "decoded"), planar, strict=True):
        (tmp_path / name).write_bytes(b"".join(p.tobytes() for p in clip))
    raw = ["-f", "rawvideo", "-pix_fmt", "yuv420p", "-video_size", "192x192", "-i"]
    graph = "libvmaf=model=version=vmaf_v0.6.1:log_path=log:log_fmt=json"
    command = [ffmpeg, "-v", "error", *raw, "decoded", *raw, "original", "-lavfi", graph, "-f", "null", "-"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    pooled = json.loads((tmp_path / "log").read_text())["pooled_metrics"]["vmaf"]["mean"]
    ours = vmaf(originals, decoded)
    assert np.mean(ours) == pytest.approx(pooled, abs=0.3)
    assert abs(np.mean(vmaf(decoded, originals)) - pooled) > 1, "swapping the inputs must change the score"


def test_vmaf_falls_with_quality() -> None:
    pytest.importorskip("imageio_ffmpeg")
    originals = [shifted(texture(), dx) for dx in range(3)]
    try:
        same = vmaf(originals, originals)
    except MetricUnavailableError as error:
        pytest.skip(str(error))
    worse = vmaf(originals, [cv2.GaussianBlur(p, (0, 0), 4) for p in originals])
    assert len(same) == len(worse) == 3
    assert min(same) > max(worse)
    assert min(same) > 90
    with pytest.raises(ValueError, match="differ"):
        vmaf(originals, originals[:2])


def test_vmaf_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(MetricUnavailableError, match="imageio-ffmpeg"):
        vmaf([texture()], [texture()])
