"""`iwcodec doctor`: describe this machine, measure its speed, and name the command that installs what is missing."""

import importlib.util
import os
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from iwcodec.codec.errors import CodecError
from iwcodec.codec.extras import install, requirement
from iwcodec.codec.media.audio.opus import library
from iwcodec.models.runtime.load import cuda_is_available, load_runtime
from iwcodec.models.runtime.types import Picture, Runtime
from iwcodec.models.runtime.weights import DEFAULT_MODEL, list_models, read_info

REPEATS = 20
"""Calls of which the median time is reported."""
OPTIONAL = {
    "torch": f"{install('train')} (training, CUDA)",
    "mediapipe": "pip install mediapipe==0.10.14 (the face mesh, for training)",
    "fastapi": f"{install('server')} (rooms and signalling for calls)",
    "aiortc": f"{install('call')} (calls)",
    "matplotlib": f"{install('bench')} (plots of the benchmarks)",
    "imageio_ffmpeg": f"{install('bench')} (VMAF)",
}
"""Modules and the command that installs each."""
REPORTED = ("iwcodec", "onnxruntime", "av", "opencv-python-headless", "numpy", "constriction", "torch")
"""Packages whose versions are reported."""


@dataclass(frozen=True)
class Examination:
    """What `iwcodec doctor` prints."""

    machine: dict[str, str]
    versions: dict[str, str]
    speed: dict[str, float]
    """Median milliseconds, and frames a second of a receiver that rebuilds frames from three sources."""
    missing: list[str]
    """What encoding and decoding need and do not find, and the command that installs it."""
    optional: list[str]
    """What other tasks need: the task, and the command that installs it."""


def examine() -> Examination:
    """Examine this machine. Never raises: what fails is reported as missing."""
    optional = [f"{name}: {remedy}" for name, remedy in OPTIONAL.items() if importlib.util.find_spec(name) is None]
    missing: list[str] = []
    speed: dict[str, float] = {}
    device = "none"
    try:
        runtime = load_runtime()
        device = f"{runtime.device} ({type(runtime).__name__})"
        speed = measure(runtime)
        for larger in larger_models():
            rebuild = rebuild_ms(load_runtime(larger), 3)
            speed |= {f"{larger}: rebuild, 3 sources ms": rebuild, f"{larger}: frames/s": round(1000 / rebuild, 1)}
    except (FileNotFoundError, ImportError, RuntimeError) as error:
        remedy = f"pip install --force-reinstall '{requirement()}'"
        missing.insert(0, f"model {DEFAULT_MODEL}: {error}; reinstall with {remedy}")
    for codec, encoder in (("libsvtav1", True), ("libdav1d", False)):
        if not has_codec(codec, encoder):
            missing.append(f"{codec} in PyAV: pip install --force-reinstall --only-binary av av")
    try:
        library()
    except CodecError:
        missing.append("libopus: pip install --force-reinstall --only-binary av av")
    machine = {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "cores": str(os.cpu_count()),
        "device": device,
        "cuda": "yes" if cuda_is_available() else "no",
        "models": ", ".join(list_models()),
    }
    return Examination(machine, versions(), speed, missing, optional)


def larger_models() -> list[str]:
    """Return the shipped models for larger pictures than those of the default model."""
    return [name for name in list_models() if read_info(name).size > read_info(DEFAULT_MODEL).size]


def versions() -> dict[str, str]:
    """Return the versions of the installed packages of REPORTED."""
    installed = {}
    for name in REPORTED:
        with suppress(PackageNotFoundError):
            installed[name] = version(name)
    return installed


def has_codec(name: str, encoder: bool) -> bool:
    """Return whether PyAV has a codec."""
    import av

    try:
        av.codec.Codec(name, "w" if encoder else "r")
    except ValueError:
        return False
    return True


def measure(runtime: Runtime) -> dict[str, float]:
    """Time the parts of the network on pictures of noise."""
    picture = noise(runtime.info.size)
    rebuild = rebuild_ms(runtime, 3)
    return {
        "detect ms": median_ms(lambda: runtime.detect(picture)),
        "prepare source ms": median_ms(lambda: runtime.prepare(picture)),
        "rebuild, 1 source ms": rebuild_ms(runtime, 1),
        "rebuild, 3 sources ms": rebuild,
        "receiver frames/s": round(1000 / rebuild, 1),
    }


def rebuild_ms(runtime: Runtime, sources: int) -> float:
    """Return the median milliseconds to rebuild a frame from a number of sources."""
    source = runtime.prepare(noise(runtime.info.size))
    return median_ms(lambda: runtime.reconstruct(source.keypoints, [source] * sources))


def noise(size: int) -> Picture:
    """Return a random picture (size, size, 3)."""
    return np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)


def median_ms(work: Callable[[], object]) -> float:
    """Return the median milliseconds of REPEATS calls, after one that is not timed."""
    work()
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return round(float(np.median(times)) * 1000, 2)
