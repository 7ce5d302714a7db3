"""How good decoded pictures are: fidelity, structure, stillness, motion. VMAF where an ffmpeg has it.

Pictures are uint8 RGB (H, W, 3). Metrics that need a network's weights are in `learned`.
"""

import json
import math
import os
import subprocess
import tempfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.errors import CodecError
from iwcodec.codec.extras import install
from iwcodec.codec.media.quality import PERFECT_DB, psnr
from iwcodec.codec.media.types import Picture

Plane = NDArray[np.float64]

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
SMALLEST = 176
"""Pixels a side that five scales of an 11 x 11 window need."""
MOTION_STRIDE = 5
"""Frame pairs from one whose motion is compared to the next: two flows take three times as long as all else."""
STILL = 2.0
"""Grey levels: the original counts as still where it changes by no more from one frame to the next."""


class MetricUnavailableError(CodecError):
    """A metric that needs a program or weights this machine does not have."""


SIMPLE = ("psnr", "ssim", "ms-ssim", "flicker", "motion")
"""What `measure` can do."""


def measure(
    originals: Iterable[Picture], decoded: Iterable[Picture], wanted: Collection[str] = SIMPLE
) -> dict[str, float | None]:
    """Means over a clip, in one pass. `wanted` are names from SIMPLE; "psnr" gives psnr_rgb and psnr_y.

    None is for ms_ssim of pictures under 176 pixels (too small for five scales), flicker of a clip that is nowhere
    still, and flicker and motion of a single frame. ValueError unless both have the same number of pictures, and some.
    """
    values: dict[str, list[float]] = {column: [] for name in wanted for column in COLUMNS[name]}
    last: tuple[Picture, Picture] | None = None
    count = 0
    for original, picture in zip(originals, decoded, strict=True):
        count += 1
        for column, value in _of_frame(original, picture, wanted):
            values[column].append(value)
        if last is not None:
            before = (last[0], original), (last[1], picture)
            if "flicker" in wanted and (change := flicker(*before)) is not None:
                values["flicker"].append(change)
            if "motion" in wanted and (count - 2) % MOTION_STRIDE == 0:
                values["motion_error"].append(motion_error(*before))
        last = original, picture
    if not count:
        raise ValueError("no pictures")
    return {column: float(np.mean(found)) if found else None for column, found in values.items()}


COLUMNS = {
    "psnr": ("psnr_rgb", "psnr_y"),
    "ssim": ("ssim",),
    "ms-ssim": ("ms_ssim",),
    "flicker": ("flicker",),
    "motion": ("motion_error",),
}
"""Metric -> the figures it gives."""


def _of_frame(original: Picture, picture: Picture, wanted: Collection[str]) -> Iterator[tuple[str, float]]:
    y, y_decoded = luma(original), luma(picture)
    if "psnr" in wanted:
        yield "psnr_rgb", psnr(original, picture)
        yield "psnr_y", psnr_y(y, y_decoded)
    if "ssim" in wanted or "ms-ssim" in wanted:
        maps = _ssim_maps(y, y_decoded)
        if "ssim" in wanted:
            yield "ssim", _ssim(maps)
        if "ms-ssim" in wanted and min(y.shape) >= SMALLEST:
            yield "ms_ssim", _ms_ssim(y, y_decoded, maps)


def luma(picture: Picture) -> Plane:
    """BT.601 luma over the full range, 0 to 255, not rounded."""
    return np.asarray(picture @ np.array([0.299, 0.587, 0.114]), np.float64)


def psnr_y(original: Plane, decoded: Plane) -> float:
    """Of luma, in dB, at most PERFECT_DB."""
    error = float(np.mean(np.square(original - decoded)))
    return PERFECT_DB if error == 0 else min(PERFECT_DB, 10 * math.log10(255**2 / error))


def ssim(original: Plane, decoded: Plane) -> float:
    """Mean structural similarity of luma; Z. Wang et al., IEEE Trans. Image Processing 13 (2004), 11 x 11 Gaussian."""
    return _ssim(_ssim_maps(original, decoded))


def _ssim(maps: tuple[Plane, Plane]) -> float:
    return float(np.mean(maps[0] * maps[1]))


def ms_ssim(original: Plane, decoded: Plane) -> float:
    """Multi-scale SSIM of luma; Z. Wang, E. Simoncelli, A. Bovik, Asilomar 2003. ValueError under 176 pixels."""
    if min(original.shape) < SMALLEST:
        raise ValueError(f"MS-SSIM needs pictures of at least {SMALLEST} pixels, not {min(original.shape)}")
    return _ms_ssim(original, decoded, _ssim_maps(original, decoded))


def _ms_ssim(original: Plane, decoded: Plane, maps: tuple[Plane, Plane]) -> float:
    """`maps` are those of the finest scale."""
    product = 1.0
    for scale, weight in enumerate(MS_SSIM_WEIGHTS):
        if scale:
            original, decoded = _halve(original), _halve(decoded)
            maps = _ssim_maps(original, decoded)
        structure, light = maps
        term = float(np.mean(structure * light if scale == len(MS_SSIM_WEIGHTS) - 1 else structure))
        product *= max(term, 0.0) ** weight
    return product


def flicker(originals: tuple[Picture, Picture], decoded: tuple[Picture, Picture]) -> float | None:
    """Mean change in grey levels between two decoded frames where the original is still; None where it is nowhere."""
    change = np.abs(luma(originals[1]) - luma(originals[0]))
    still = cv2.boxFilter(change, -1, (3, 3)) <= STILL
    if not still.any():
        return None
    return float(np.abs(luma(decoded[1]) - luma(decoded[0]))[still].mean())


def motion_error(originals: tuple[Picture, Picture], decoded: tuple[Picture, Picture]) -> float:
    """Mean end-point error, in pixels, between the optical flows (DIS) from frame to frame of original and decoded."""
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    true, shown = (flow.calc(_grey(pair[0]), _grey(pair[1]), None) for pair in (originals, decoded))
    return float(np.linalg.norm(true - shown, axis=2).mean())


def vmaf(originals: Iterable[Picture], decoded: Iterable[Picture], fps: float = 25) -> list[float]:
    """VMAF (v0.6.1) of each frame, 0 to 100, by the ffmpeg that imageio-ffmpeg carries.

    Its model was trained on 1080p watched from three picture heights: compare figures of one size only.
    Raises MetricUnavailableError without imageio-ffmpeg or libvmaf, ValueError for clips of different length.
    """
    program = find_ffmpeg()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shapes = [_write_raw(folder / file, clip) for file, clip in (("a.rgb", originals), ("b.rgb", decoded))]
        if shapes[0] != shapes[1]:
            raise ValueError(f"clips differ: {shapes[0]} and {shapes[1]} (frames, height, width)")
        count, height, width = shapes[0]
        raw = [
            "-f",
            "rawvideo",
            "-pix_fmt",
            "rgb24",
            "-video_size",
            f"{width}x{height}",
            "-framerate",
            f"{fps:g}",
            "-i",
        ]
        graph = "[0]format=yuv420p[b];[1]format=yuv420p[a];[b][a]libvmaf=log_path=vmaf.json:log_fmt=json"
        graph += f":n_threads={os.cpu_count() or 1}"
        # Relative names: a drive letter's colon would end the filter's option.
        command = [program, "-v", "error", *raw, "b.rgb", *raw, "a.rgb", "-lavfi", graph, "-f", "null", "-"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        log = folder / "vmaf.json"
        if done.returncode or not log.exists():
            raise MetricUnavailableError(
                f"VMAF could not be computed: {done.stderr.strip() or 'ffmpeg wrote nothing'}."
            )
        frames = json.loads(log.read_text())["frames"]
    if len(frames) != count:
        raise MetricUnavailableError(f"VMAF gave {len(frames)} figures for {count} frames.")
    return [float(frame["metrics"]["vmaf"]) for frame in frames]


def _grey(picture: Picture) -> Picture:
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8)


def find_ffmpeg() -> str:
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise MetricUnavailableError(f"VMAF needs imageio-ffmpeg ({install('bench')}).") from error
    program = str(imageio_ffmpeg.get_ffmpeg_exe())
    done = subprocess.run([program, "-v", "error", "-filters"], capture_output=True, text=True, check=False)
    if " libvmaf " not in done.stdout:
        raise MetricUnavailableError(f"VMAF needs an ffmpeg with libvmaf; {program} has none.")
    return program


def _write_raw(path: Path, pictures: Iterable[Picture]) -> tuple[int, int, int]:
    count, shape = 0, (0, 0)
    with path.open("wb") as file:
        for picture in pictures:
            file.write(np.ascontiguousarray(picture).tobytes())
            count, shape = count + 1, picture.shape[:2]
    return count, *shape


def _halve(plane: Plane) -> Plane:
    """Mean of 2 x 2; a last odd row or column is dropped."""
    even = plane[: plane.shape[0] // 2 * 2, : plane.shape[1] // 2 * 2]
    return (even[0::2, 0::2] + even[1::2, 0::2] + even[0::2, 1::2] + even[1::2, 1::2]) / 4


def _ssim_maps(a: Plane, b: Plane) -> tuple[Plane, Plane]:
    """(contrast x structure, luminance) where the whole window lies inside the picture."""
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b, square_a, square_b, product = _windowed(a, b, a * a, b * b, a * b)
    variance_a, variance_b = square_a - mean_a**2, square_b - mean_b**2
    structure = (2 * (product - mean_a * mean_b) + c2) / (variance_a + variance_b + c2)
    light = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return structure, light


def _windowed(*planes: Plane) -> Iterator[Plane]:
    for plane in planes:
        blurred = np.asarray(cv2.GaussianBlur(plane, (11, 11), 1.5), np.float64)
        yield blurred[5:-5, 5:-5]
