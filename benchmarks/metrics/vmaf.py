"""VMAF v0.6.1, computed by the ffmpeg that imageio-ffmpeg carries."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from iwcodec.benchmarks.metrics.learned.availability import MetricUnavailableError
from iwcodec.codec.extras import install
from iwcodec.codec.media.types import Picture


def vmaf(originals: Iterable[Picture], decoded: Iterable[Picture], fps: float = 25) -> list[float]:
    """VMAF of each frame, 0 to 100.

    The model was trained on 1080p viewed from three picture heights: compare figures of one picture size only.
    Raises MetricUnavailableError without imageio-ffmpeg or libvmaf, ValueError for clips of different length or size.
    """
    program = find_ffmpeg()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shapes = [_write_raw(folder / file, clip) for file, clip in (("a.rgb", originals), ("b.rgb", decoded))]
        if shapes[0] != shapes[1]:
            raise ValueError(f"clips differ: {shapes[0]} and {shapes[1]} (frames, height, width)")
        count, height, width = shapes[0]
        raw = ["-f", "rawvideo", "-pix_fmt", "rgb24"]
        raw += ["-video_size", f"{width}x{height}", "-framerate", f"{fps:g}", "-i"]
        graph = "[0]format=yuv420p[b];[1]format=yuv420p[a];[b][a]libvmaf=log_path=vmaf.json:log_fmt=json"
        graph += f":n_threads={os.cpu_count() or 1}"
        # Relative names, because the colon of a Windows drive letter would end the filter option.
        command = [program, "-v", "error", *raw, "b.rgb", *raw, "a.rgb", "-lavfi", graph, "-f", "null", "-"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        log = folder / "vmaf.json"
        if done.returncode or not log.exists():
            raise MetricUnavailableError(
                f"VMAF could not be computed: {done.stderr.strip() or 'ffmpeg wrote nothing'}."
            )
        frames = json.loads(log.read_text())["frames"]
    if len(frames) != count:
        raise MetricUnavailableError(f"VMAF gave {len(frames)} scores for {count} frames.")
    return [float(frame["metrics"]["vmaf"]) for frame in frames]


def find_ffmpeg() -> str:
    """Path of imageio-ffmpeg's program. Raises MetricUnavailableError without it or without libvmaf in it."""
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
    """Write packed RGB frames; returns (frames, height, width)."""
    count, shape = 0, (0, 0)
    with path.open("wb") as file:
        for picture in pictures:
            file.write(np.ascontiguousarray(picture).tobytes())
            count, shape = count + 1, picture.shape[:2]
    return count, *shape
