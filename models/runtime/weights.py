"""Files of a model: `NAME.safetensors` with the weights and configuration, and `NAME.PART.onnx` for each graph."""

import hashlib
import json
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


def read_info(model: str, folder: Path = WEIGHTS) -> ModelInfo:
    """Return the identity of a model. Raises FileNotFoundError as `read_weights_file` does."""
    file = read_weights_file(model, folder)
    return ModelInfo(model, bytes.fromhex(file.sha256)[:8], file.config["keypoints"], file.config["size"])


def graph_file(model: str, part: str, folder: Path = WEIGHTS) -> Path:
    """Return the path of a model's graph, or of its base's graph where the model has none of its own."""
    own = folder / f"{model}.{part}.onnx"
    base = read_weights_file(model, folder).base
    return own if base is None or own.exists() else graph_file(base, part, folder)


def list_models(folder: Path = WEIGHTS) -> list[str]:
    """List the names of the models in a folder, sorted."""
    return sorted(file.name.removesuffix(".safetensors") for file in folder.glob("*.safetensors"))
