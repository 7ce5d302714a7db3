"""`iwcodec doctor`: what this machine has, how fast it is, and the command that mends what is missing."""

import importlib.util
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from iwcodec.codec.extras import PACKAGE, install
from iwcodec.models.runtime.load import cuda_is_there, load_runtime
from iwcodec.models.runtime.types import Picture, Runtime
from iwcodec.models.runtime.weights import DEFAULT_MODEL, list_models, read_info

REPEATS = 20
OPTIONAL = {
    "torch": f"{install('train')} (training, CUDA)",
    "mediapipe": "pip install mediapipe==0.10.14 (the face mesh, for training)",
    "fastapi": f"{install('server')} (rooms and signalling for calls)",
    "aiortc": f"{install('call')} (calls)",
    "matplotlib": f"{install('bench')} (plots of the benchmarks)",
    "imageio_ffmpeg": f"{install('bench')} (VMAF)",
}
REPORTED = ("iwcodec", "onnxruntime", "av", "opencv-python-headless", "numpy", "constriction", "torch")


@dataclass(frozen=True)
class Examination:
    machine: dict[str, str]
    versions: dict[str, str]
    speed: dict[str, float]
    """Milliseconds, median of REPEATS; `receiver frames/s` from the one with three sources."""
    missing: list[str]


def examine() -> Examination:
    """Measure and look around. Never raises: what fails is reported as missing."""
    missing = [f"{name}: {remedy}" for name, remedy in OPTIONAL.items() if importlib.util.find_spec(name) is None]
    speed: dict[str, float] = {}
    device = "none"
    try:
        runtime = load_runtime()
        device = f"{runtime.device} ({type(runtime).__name__})"
        speed = measure(runtime)
        for larger in larger_models():
            rebuilt = rebuild_ms(load_runtime(larger), 3)
            speed |= {f"{larger}: rebuild, 3 sources ms": rebuilt, f"{larger}: frames/s": round(1000 / rebuilt, 1)}
    except (FileNotFoundError, ImportError, RuntimeError) as error:
        missing.insert(0, f"model {DEFAULT_MODEL}: {error}; reinstall with pip install --force-reinstall '{PACKAGE}'")
    for codec, encoder in (("libsvtav1", True), ("libdav1d", False), ("libopus", True)):
        if not has_codec(codec, encoder):
            missing.append(f"{codec} in PyAV: pip install --force-reinstall --only-binary av av")
    machine = {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "cores": str(os.cpu_count()),
        "device": device,
        "cuda": "yes" if cuda_is_there() else "no",
        "models": ", ".join(list_models()),
    }
    return Examination(machine, versions(), speed, missing)


def larger_models() -> list[str]:
    """Shipped models for larger pictures than the default's."""
    return [name for name in list_models() if read_info(name).size > read_info(DEFAULT_MODEL).size]


def versions() -> dict[str, str]:
    found = {}
    for name in REPORTED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def has_codec(name: str, encoder: bool) -> bool:
    import av

    try:
        av.codec.Codec(name, "w" if encoder else "r")
    except ValueError:
        return False
    return True


def measure(runtime: Runtime) -> dict[str, float]:
    """Median milliseconds of the network's parts on a noise picture."""
    picture = noise(runtime.info.size)
    rebuilt = rebuild_ms(runtime, 3)
    return {
        "detect ms": median_ms(lambda: runtime.detect(picture)),
        "prepare source ms": median_ms(lambda: runtime.prepare(picture)),
        "rebuild, 1 source ms": rebuild_ms(runtime, 1),
        "rebuild, 3 sources ms": rebuilt,
        "receiver frames/s": round(1000 / rebuilt, 1),
    }


def rebuild_ms(runtime: Runtime, sources: int) -> float:
    source = runtime.prepare(noise(runtime.info.size))
    return median_ms(lambda: runtime.reconstruct(source.keypoints, [source] * sources))


def noise(size: int) -> Picture:
    return np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)


def median_ms(work: Callable[[], object]) -> float:
    work()
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return round(float(np.median(times)) * 1000, 2)
