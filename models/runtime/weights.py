"""."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iwcodec.models.runtime.types import ModelInfo

WEIGHTS = Path(__file__).parents[1] / "weights"

DEFAULT_MODEL = "lite-256"

PARTS = ("detector", "source", "merge", "attend", "refine")
"""The graphs of a model; see export.py."""


@dataclass(frozen=True)
class WeightsFile:
    """What a file of weights says of itself."""

    sha256: str
    config: dict[str, Any]
    base: str | None
    """The model whose weights and graphs it shares, but for what it holds itself."""


def read_weights_file(model: str, folder: Path = WEIGHTS) -> WeightsFile:
    """Raises FileNotFoundError, also where the model's base is not the one it was made with."""
    file = folder / f"{model}.safetensors"
    if not file.exists():
        raise FileNotFoundError(f"no model {model!r}; there are: {', '.join(list_models(folder)) or 'none'}")
    data = file.read_bytes()
    metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    base = metadata.get("base")
    if base is not None and read_weights_file(base, folder).sha256 != metadata["base_sha256"]:
        raise FileNotFoundError(f"{model} builds on another {base} than is here: train and export it again")
    return WeightsFile(hashlib.sha256(data).hexdigest(), json.loads(metadata["config"]), base)


def read_info(model: str, folder: Path = WEIGHTS) -> ModelInfo:
    """What a bitstream names. Raises FileNotFoundError."""
    found = read_weights_file(model, folder)
    return ModelInfo(model, bytes.fromhex(found.sha256)[:8], found.config["keypoints"], found.config["size"])


def graph_file(model: str, part: str, folder: Path = WEIGHTS) -> Path:
    """The model's own graph, or its base's."""
    own = folder / f"{model}.{part}.onnx"
    base = read_weights_file(model, folder).base
    return own if base is None or own.exists() else graph_file(base, part, folder)


def list_models(folder: Path = WEIGHTS) -> list[str]:
    return sorted(file.name.removesuffix(".safetensors") for file in folder.glob("*.safetensors"))
