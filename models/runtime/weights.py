"""Files of a model: `NAME.safetensors` with the weights and configuration, `NAME.PART.onnx` for each graph, and
`NAME.sha256` with the digests of all of them, as sha256sum writes it.

Bitstreams and peers name a model by the digest of its weights, and `NAME.sha256` ties the graphs to them: what is run
is what was named.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iwcodec.models.runtime.types import ModelInfo

WEIGHTS = Path(__file__).parents[1] / "weights"
"""Folder of the shipped models."""

DEFAULT_MODEL = "lite-256"
"""Name of the model that is used where none is named."""

PARTS = ("detector", "source", "merge", "attend", "refine")
"""The ONNX graphs of a model; export/graphs.py describes them."""


@dataclass(frozen=True)
class WeightsFile:
    """Metadata of a weights file."""

    sha256: str
    config: dict[str, Any]
    base: str | None
    """Name of the base model, whose weights and graphs this model uses wherever it has none of its own."""


def read_weights_file(model: str, folder: Path = WEIGHTS) -> WeightsFile:
    """Read the metadata of a model's weights file without PyTorch.

    Raises FileNotFoundError if the file is missing, or if the base model is not the one it was exported against.
    """
    file = folder / f"{model}.safetensors"
    if not file.exists():
        raise FileNotFoundError(f"no model {model!r}; available: {', '.join(list_models(folder)) or 'none'}")
    data = file.read_bytes()
    metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    base = metadata.get("base")
    if base is not None and read_weights_file(base, folder).sha256 != metadata["base_sha256"]:
        raise FileNotFoundError(f"{model} was exported against another {base}: train and export it again")
    return WeightsFile(hashlib.sha256(data).hexdigest(), json.loads(metadata["config"]), base)


def read_tensors(model: str, is_wanted: Callable[[str], bool], folder: Path = WEIGHTS) -> bytes:
    """Return the tensors of half precision of a model and its base, by name, as another safetensors file."""
    base = read_weights_file(model, folder).base
    header: dict[str, Any] = {}
    values: list[bytes] = []
    length = 0
    for owner in filter(None, (base, model)):
        data = (folder / f"{owner}.safetensors").read_bytes()
        begin = 8 + int.from_bytes(data[:8], "little")
        for name, tensor in json.loads(data[8:begin]).items():
            if tensor.get("dtype") == "F16" and is_wanted(name):
                first, last = (begin + offset for offset in tensor["data_offsets"])
                header[name] = tensor | {"data_offsets": [length, length := length + last - first]}
                values.append(data[first:last])
    text = json.dumps(header, separators=(",", ":")).encode()
    return b"".join((len(text).to_bytes(8, "little"), text, *values))


def read_info(model: str, folder: Path = WEIGHTS) -> ModelInfo:
    """Return the identity of a model. Raises FileNotFoundError as `read_weights_file` does."""
    file = read_weights_file(model, folder)
    return ModelInfo(model, bytes.fromhex(file.sha256)[:8], file.config["keypoints"], file.config["size"])


def graph_file(model: str, part: str, folder: Path = WEIGHTS) -> Path:
    """Return the path of a model's graph, or of its base's graph where the model has none of its own."""
    own = folder / f"{model}.{part}.onnx"
    base = read_weights_file(model, folder).base
    return own if base is None or own.exists() else graph_file(base, part, folder)


def read_graphs(model: str, folder: Path = WEIGHTS) -> dict[str, bytes]:
    """Read all graphs of a model, by part. Raises FileNotFoundError if one is missing, or is not the one that was
    exported together with the weights."""
    graphs = {}
    digests: dict[str, dict[str, str]] = {}
    for part in PARTS:
        file = graph_file(model, part, folder)
        owner = file.name.removesuffix(f".{part}.onnx")
        if owner not in digests:
            digests[owner] = read_digests(owner, folder)
            weights = f"{owner}.safetensors"
            _check_digest(digests[owner], folder / weights, (folder / weights).read_bytes(), owner)
        graphs[part] = file.read_bytes()
        _check_digest(digests[owner], file, graphs[part], owner)
    return graphs


def _check_digest(digests: dict[str, str], file: Path, data: bytes, owner: str) -> None:
    if digests.get(file.name) != hashlib.sha256(data).hexdigest():
        raise FileNotFoundError(
            f"{file} is not the one that was exported as part of {owner}: install or export the model again"
        )


def digest_file(model: str, folder: Path) -> Path:
    return folder / f"{model}.sha256"


def read_digests(model: str, folder: Path) -> dict[str, str]:
    """The digests of a model's files by name; empty if there are none."""
    file = digest_file(model, folder)
    lines = file.read_text(encoding="ascii").splitlines() if file.exists() else []
    return {name: digest for digest, separator, name in (line.partition("  ") for line in lines) if separator}


def write_digests(model: str, folder: Path) -> None:
    """Write the digests of a model's weights and of its own graphs."""
    files = sorted([folder / f"{model}.safetensors", *folder.glob(f"{model}.*.onnx")])
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    digest_file(model, folder).write_text("".join(lines), encoding="ascii")


def list_models(folder: Path = WEIGHTS) -> list[str]:
    """List the names of the models in a folder, sorted."""
    return sorted(file.name.removesuffix(".safetensors") for file in folder.glob("*.safetensors"))
