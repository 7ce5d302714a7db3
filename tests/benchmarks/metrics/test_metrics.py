"""benchmarks/metrics.py against scikit-image, ffmpeg and libvmaf, and on pictures whose answer is known."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from iwcodec.benchmarks.metrics import metrics
from iwcodec.benchmarks.metrics.metrics import (
    MetricUnavailableError,
    flicker,
    luma,
    measure,
    motion_error,
    ms_ssim,
    psnr_y,
    ssim,
    vmaf,
)
from iwcodec.codec.media.quality import psnr
from iwcodec.codec.media.types import Picture


def texture(size: int = 192, seed: int = 0) -> Picture:
    coarse = np.random.default_rng(seed).integers(20, 236, (size // 8, size // 8, 3), np.uint8)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_LINEAR)


def noisy(picture: Picture, amplitude: int, seed: int = 1) -> Picture:
    noise = np.random.default_rng(seed).integers(-amplitude, amplitude + 1, picture.shape)
    return (picture.astype(int) + noise).clip(0, 255).astype(np.uint8)


def shifted(picture: Picture, dx: float) -> Picture:
    size = len(picture)
    matrix = np.array([[1, 0, dx], [0, 1, 0]], np.float64)
    return cv2.warpAffine(picture, matrix, (size, size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)


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


def test_ms_ssim_is_of_five_scales() -> None:
    a = luma(texture())
    assert ms_ssim(a, a) == pytest.approx(1)
    fine, coarse = luma(noisy(texture(), 40)), luma(cv2.GaussianBlur(texture(), (0, 0), 6))
    # Fine noise is gone at the coarser scales, so it costs less there than at one scale; a strong blur is not.
    assert ms_ssim(a, fine) > ssim(a, fine)
    assert 0 < ms_ssim(a, coarse) < ms_ssim(a, fine)
    assert ms_ssim(a, 255 - a) == 0
    with pytest.raises(ValueError, match="176"):
        ms_ssim(a[:100], a[:100])


def test_flicker_is_change_where_the_original_is_still() -> None:
    still, half = texture(), texture()
    half[:, :96] = texture(seed=5)[:, :96]
    brighter = still + np.uint8(6)
    assert flicker((still, still), (still, still)) == 0
    assert flicker((still, still), (still, brighter)) == pytest.approx(6)
    # The decoded left half follows a real change; only the right half, which blinks, counts.
    blinking = half.copy()
    blinking[:, 96:] += np.uint8(4)
    assert flicker((still, half), (still, blinking)) == pytest.approx(4, abs=0.3)
    assert flicker((still, 255 - still), (still, still)) is None or flicker((still, 255 - still), (still, still)) == 0


def test_motion_error_is_the_missing_motion() -> None:
    a, b = texture(), shifted(texture(), 3)
    assert motion_error((a, b), (a, b)) == 0
    assert motion_error((a, b), (a, a)) == pytest.approx(3, abs=0.3)
    assert motion_error((a, b), (a, shifted(texture(), 2))) == pytest.approx(1, abs=0.3)


def test_measure_is_the_mean_over_the_clip() -> None:
    originals = [shifted(texture(), dx) for dx in (0, 1, 2)]
    decoded = [noisy(p, 5, seed) for seed, p in enumerate(originals)]
    scores = measure(iter(originals), iter(decoded))
    pairs = [(luma(a), luma(b)) for a, b in zip(originals, decoded, strict=True)]
    assert scores["psnr_y"] == pytest.approx(np.mean([psnr_y(a, b) for a, b in pairs]))
    assert scores["ssim"] == pytest.approx(np.mean([ssim(a, b) for a, b in pairs]))
    assert scores["ms_ssim"] == pytest.approx(np.mean([ms_ssim(a, b) for a, b in pairs]))
    assert 0 < (scores["psnr_rgb"] or 0) < (scores["psnr_y"] or 0)
    assert scores["motion_error"] is not None
    small = measure([texture(64)], [texture(64)])
    assert [small[column] for column in ("ms_ssim", "flicker", "motion_error")] == [None, None, None]
    assert small["psnr_rgb"] == 60


def test_measure_gives_what_is_wanted() -> None:
    pictures = [texture(64)] * 2
    assert measure(pictures, pictures, ("ssim",)) == {"ssim": pytest.approx(1)}
    assert set(measure(pictures, pictures, ("psnr", "motion"))) == {"psnr_rgb", "psnr_y", "motion_error"}


def test_motion_is_of_every_fifth_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[int] = []

    def watched(originals: tuple[Picture, Picture], decoded: tuple[Picture, Picture]) -> float:
        looked_at.append(int(originals[0][0, 0, 0]))
        return float(originals[1][0, 0, 0])

    monkeypatch.setattr(metrics, "motion_error", watched)
    levels = [np.full((16, 16, 3), level, np.uint8) for level in range(12)]
    assert measure(levels, levels, ("motion",)) == {"motion_error": 6}
    assert looked_at == [0, 5, 10]


def test_measure_wants_two_clips_of_one_length() -> None:
    with pytest.raises(ValueError, match=r"shorter|longer"):
        measure([texture()] * 2, [texture()])
    with pytest.raises(ValueError, match="no pictures"):
        measure([], [])


@pytest.fixture(scope="module")
def ffmpeg() -> str:
    try:
        return metrics.find_ffmpeg()
    except MetricUnavailableError as error:
        pytest.skip(str(error))


def by_ffmpeg(
    ffmpeg: str, folder: Path, originals: list[Any], decoded: list[Any], form: str, graph: str, log: str
) -> str:
    """What a filter of ffmpeg's writes of decoded (its first input) and original pictures."""
    inputs = []
    for name, pictures in (("decoded", decoded), ("original", originals)):
        (folder / name).write_bytes(b"".join(p.tobytes() for p in pictures))
        height, width = pictures[0].shape[:2]
        inputs += ["-f", "rawvideo", "-pix_fmt", form, "-video_size", f"{width}x{height}", "-i", name]
    command = [ffmpeg, "-v", "error", *inputs, "-lavfi", graph, "-f", "null", "-"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return (folder / log).read_text()


def pair(amplitude: int, count: int = 3) -> tuple[list[Picture], list[Picture]]:
    originals = [shifted(texture(), 2 * n) for n in range(count)]
    return originals, [noisy(p, amplitude, seed) for seed, p in enumerate(originals)]


def grey(pictures: list[Picture]) -> list[Any]:
    return [luma(p).round().astype(np.uint8) for p in pictures]


@pytest.mark.parametrize("amplitude", [2, 12, 60])
def test_psnr_equals_ffmpeg_s(ffmpeg: str, tmp_path: Path, amplitude: int) -> None:
    originals, decoded = pair(amplitude)
    log = by_ffmpeg(ffmpeg, tmp_path, originals, decoded, "rgb24", "psnr=stats_file=log", "log")
    theirs = [float(number) for number in re.findall(r"psnr_avg:([0-9.]+)", log)]
    assert [psnr(a, b) for a, b in zip(originals, decoded, strict=True)] == pytest.approx(theirs, abs=0.006)
    log = by_ffmpeg(ffmpeg, tmp_path, grey(originals), grey(decoded), "gray", "psnr=stats_file=log", "log")
    theirs = [float(number) for number in re.findall(r"psnr_y:([0-9.]+)", log)]
    planes = zip(grey(originals), grey(decoded), strict=True)
    assert [psnr_y(a.astype(float), b.astype(float)) for a, b in planes] == pytest.approx(theirs, abs=0.006)


@pytest.mark.parametrize(("blur", "near"), [(0, 0.001), (3, 0.012)])
def test_ms_ssim_is_near_libvmaf_s(ffmpeg: str, tmp_path: Path, blur: int, near: float) -> None:
    """Theirs halves with another filter, so it is not the same to the last digit."""
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


def test_vmaf_equals_libvmaf_s(ffmpeg: str, tmp_path: Path) -> None:
    """Over another way: YUV made here and not by ffmpeg, the mean pooled by libvmaf."""
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
    assert abs(np.mean(vmaf(decoded, originals)) - pooled) > 1, "the order of the two must matter, or this says nothing"


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
