"""PSNR-Y, SSIM and MS-SSIM against scikit-image, ffmpeg and libvmaf, and on pictures with a known result."""

import json
import math
import re
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from iwcodec.benchmarks.metrics import vmaf
from iwcodec.benchmarks.metrics.fidelity import luma, ms_ssim, psnr_y, ssim
from iwcodec.benchmarks.metrics.learned.availability import MetricUnavailableError
from iwcodec.codec.media.quality import psnr
from iwcodec.codec.media.types import Picture
from support.metrics.pictures import noisy, pair, texture


def test_psnr_of_a_known_error() -> None:
    grey = np.full((64, 64), 100.0)
    assert psnr_y(grey, grey + 5) == pytest.approx(20 * math.log10(255 / 5))
    assert psnr_y(grey, grey) == 60


def test_luma_weights() -> None:
    primaries = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    np.testing.assert_allclose(luma(primaries)[0], [76.245, 149.685, 29.07, 255])


@pytest.mark.parametrize("amplitude", [3, 20, 80])
def test_ssim_equals_scikit_image(amplitude: int) -> None:
    theirs = pytest.importorskip("skimage.metrics")
    a, b = luma(texture()), luma(noisy(texture(), amplitude))
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    assert ssim(a, b) == pytest.approx(theirs.structural_similarity(a, b, **options), abs=1e-9)


def test_ms_ssim_combines_five_scales() -> None:
    a = luma(texture())
    assert ms_ssim(a, a) == pytest.approx(1)
    fine, coarse = luma(noisy(texture(), 40)), luma(cv2.GaussianBlur(texture(), (0, 0), 6))
    # Fine noise averages out at coarser scales, so MS-SSIM penalises it less than SSIM; a strong blur stays visible.
    assert ms_ssim(a, fine) > ssim(a, fine)
    assert 0 < ms_ssim(a, coarse) < ms_ssim(a, fine)
    assert ms_ssim(a, 255 - a) == 0
    with pytest.raises(ValueError, match="176"):
        ms_ssim(a[:100], a[:100])


@pytest.fixture(scope="module")
def ffmpeg() -> str:
    try:
        return vmaf.find_ffmpeg()
    except MetricUnavailableError as error:
        pytest.skip(str(error))


def by_ffmpeg(
    ffmpeg: str, folder: Path, originals: list[Any], decoded: list[Any], form: str, graph: str, log: str
) -> str:
    """The log that an ffmpeg filter writes for decoded (its first input) and original pictures."""
    inputs = []
    for name, pictures in (("decoded", decoded), ("original", originals)):
        (folder / name).write_bytes(b"".join(p.tobytes() for p in pictures))
        height, width = pictures[0].shape[:2]
        inputs += ["-f", "rawvideo", "-pix_fmt", form, "-video_size", f"{width}x{height}", "-i", name]
    command = [ffmpeg, "-v", "error", *inputs, "-lavfi", graph, "-f", "null", "-"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return (folder / log).read_text()


def grey(pictures: list[Picture]) -> list[Any]:
    return [luma(p).round().astype(np.uint8) for p in pictures]


@pytest.mark.parametrize("amplitude", [2, 12, 60])
def test_psnr_equals_ffmpeg(ffmpeg: str, tmp_path: Path, amplitude: int) -> None:
    originals, decoded = pair(amplitude)
    log = by_ffmpeg(ffmpeg, tmp_path, originals, decoded, "rgb24", "psnr=stats_file=log", "log")
    theirs = [float(number) for number in re.findall(r"psnr_avg:([0-9.]+)", log)]
    assert [psnr(a, b) for a, b in zip(originals, decoded, strict=True)] == pytest.approx(theirs, abs=0.006)
    log = by_ffmpeg(ffmpeg, tmp_path, grey(originals), grey(decoded), "gray", "psnr=stats_file=log", "log")
    theirs = [float(number) for number in re.findall(r"psnr_y:([0-9.]+)", log)]
    planes = zip(grey(originals), grey(decoded), strict=True)
    assert [psnr_y(a.astype(float), b.astype(float)) for a, b in planes] == pytest.approx(theirs, abs=0.006)


@pytest.mark.parametrize(("blur", "near"), [(0, 0.001), (3, 0.012)])
def test_ms_ssim_is_close_to_libvmaf(ffmpeg: str, tmp_path: Path, blur: int, near: float) -> None:
    """libvmaf downsamples with another filter, so the results differ slightly."""
    originals, decoded = pair(12)
    if blur:
        decoded = [cv2.GaussianBlur(p, (0, 0), blur) for p in originals]
    graph = "libvmaf=log_path=log:log_fmt=json:feature=name=float_ms_ssim"
    log = by_ffmpeg(ffmpeg, tmp_path, grey(originals), grey(decoded), "gray", graph, "log")
    theirs = [frame["metrics"]["float_ms_ssim"] for frame in json.loads(log)["frames"]]
    planes = zip(grey(originals), grey(decoded), strict=True)
    ours = [ms_ssim(a.astype(float), b.astype(float)) for a, b in planes]
    assert ours == pytest.approx(theirs, abs=near)
    assert max(ours) < 0.995
