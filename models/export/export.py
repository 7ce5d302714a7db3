"""Export of a checkpoint to fp16 safetensors and ONNX graphs (graphs.py), which are checked against each other.

A model may extend a base model by up blocks. Its weights file then holds only those, and of the graphs only `refine` is
its own.
"""

import json
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from iwcodec.models.export.compare import TOLERANCE, compare
from iwcodec.models.export.graphs import export_graphs
from iwcodec.models.network.config import ModelConfig
from iwcodec.models.network.network import ImplicitWarp
from iwcodec.models.runtime.onnx import OnnxRuntime
from iwcodec.models.runtime.torch import TorchRuntime, load_state, load_weights
from iwcodec.models.runtime.weights import PARTS, read_weights_file, write_digests


def load_checkpoint(file: Path, size: int | None = None) -> ImplicitWarp:
    """Load the averaged weights of a training checkpoint, for pictures of `size` pixels.

    Raises OSError, and ValueError or KeyError if the file is not a checkpoint."""
    state = load_state(file)
    config = ModelConfig.from_dict(state["model"])
    network = ImplicitWarp(replace(config, size=size or config.size))
    network.load_state_dict(state["average"])
    return network.eval()


def save_weights(network: ImplicitWarp, file: Path, base: str | None = None) -> None:
    """Write the weights as fp16 safetensors with the configuration in the metadata.

    With `base`, the name of a model in the same folder, only the up blocks are written. Raises ValueError if anything
    else differs from the base, and FileNotFoundError if the base is missing.
    """
    state = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in network.state_dict().items()
    }
    metadata = {"config": json.dumps(network.config.to_dict())}
    if base is not None:
        state = weights_beyond_base(network.config, state, *load_weights(base, file.parent))
        metadata |= {"base": base, "base_sha256": read_weights_file(base, file.parent).sha256}
    save_file(state, file, metadata=metadata)


def weights_beyond_base(
    config: ModelConfig, state: dict[str, Tensor], base: ModelConfig, shared: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Return the weights that the base lacks. Raises ValueError if the others differ from the base's."""
    extended = replace(
        base, name=config.name, size=base.size * config.scale, up_blocks=config.up_blocks, up_detail=config.up_detail
    )
    if config != extended:
        raise ValueError(f"{config.name} is not {base.name} with up blocks")
    differing = [name for name, value in shared.items() if name not in state or not state[name].equal(value)]
    own = {name: value for name, value in state.items() if name not in shared}
    differing += [name for name in own if not name.startswith("decoder.up.")]
    if differing:
        raise ValueError(f"not only the up blocks differ from the base: {', '.join(differing[:3])}")
    return own


@dataclass(frozen=True)
class ExportReport:
    """Result of `export`."""

    model: str
    digest: str
    """Digest of the weights as in bitstreams (runtime.types.ModelInfo), 16 hexadecimal digits."""
    folder: str
    bytes: dict[str, int]
    """Size of each file by its name."""
    differences: dict[str, float]
    """Differences between PyTorch and ONNX Runtime; see `compare.compare`."""
    largest_difference: float


def export(network: ImplicitWarp, model: str, folder: Path, base: str | None = None) -> ExportReport:
    """Write `model`.safetensors, its graphs and their digests to `folder`, after checking that they agree.

    With `base`, the name of a model in the same folder that this one extends by up blocks, only what it does not share
    with the base is written. Raises ValueError if PyTorch and ONNX Runtime differ by more than TOLERANCE or the base
    has other weights; then nothing is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{model}-", dir=folder) as temporary:
        staging = Path(temporary)
        shared = set() if base is None else copy_model(base, folder, staging)
        save_weights(network, staging / f"{model}.safetensors", base)
        reference = TorchRuntime(model, "cpu", staging)
        export_graphs(reference.network, model, staging, PARTS if base is None else ("refine",))
        write_digests(model, staging)
        differences = compare(reference, OnnxRuntime(model, 1, staging))
        if not all(value <= TOLERANCE for value in differences.values()):  # fails on NaN too
            raise ValueError(f"torch and ONNX disagree: {differences}")
        for old in folder.glob(f"{model}.*.onnx"):
            old.unlink()
        written = [file for file in sorted(staging.iterdir()) if file.name not in shared]
        sizes = {file.name: file.replace(folder / file.name).stat().st_size for file in written}
    digest = reference.info.digest.hex()
    return ExportReport(model, digest, str(folder), sizes, differences, max(differences.values()))


def copy_model(model: str, folder: Path, into: Path) -> set[str]:
    """Copy the files of a model to another folder and return their names. Raises FileNotFoundError on an unknown
    model."""
    read_weights_file(model, folder)
    files = list(folder.glob(f"{model}.*"))
    for file in files:
        shutil.copy(file, into)
    return {file.name for file in files}
