"""Export: a checkpoint -> safetensors (fp16) and five ONNX graphs, checked against each other.

The graphs take uint8 pictures (B, H, W, 3), so that no caller repeats the conversion:

- `detector`: picture of the detector's size -> keypoints (1, K, 3);
- `source`: picture as the nets see it (1, h, w, 3), keypoints -> rows (1, M, R), membership (1, M, K + 1) and basis
  (1, b, 3 K);
- `join`: rows of S sources (1, S, M, R; S is free) -> rows, keys and pooled keys of them all in blocks
  (attention.Blocks), which stay while the set does;
- `look`: driving keypoints, and keypoints of S sources, what `join` gave, membership, basis -> fields (1, S, g, g, 3),
  of each source how far from each cell it is sampled (x and y in pixels of w) and what it weighs there, and features;
- `paint`: the base picture of 0..1, features -> uint8 picture, both in planes (1, 3, H, W), or where there are no up
  blocks in planes of every second pixel of every second row (1, 12, H / 2, W / 2; torch's pixel_unshuffle).

Between the last two the caller makes the base picture: OpenCV enlarges fields, samples and blends several times as
quickly as ONNX Runtime. H and W are h and w but for up blocks, which only `paint` knows of. So a model that adds up
blocks to a base has that graph alone, and its weights file only theirs.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from .attention import Blocks
from .config import ModelConfig
from .network import ImplicitWarp, coarse_fields
from .runtime import JOINED, PARTS, OnnxRuntime, read_weights_file
from .runtime_torch import TorchRuntime, load_weights, to_uint8

OPSET = 17
TOLERANCE = 1e-3
SMALL = {"detector": 50_000}
SMALLEST = 8_000
"""Weights of fewer values stay as they are: together they are few, and the detector's last layers are touchy."""


class DetectorGraph(nn.Module):
    def __init__(self, network: ImplicitWarp) -> None:
        super().__init__()
        self.network = network

    def forward(self, picture: Tensor) -> Tensor:
        return self.network.detect(to_float(picture))


class SourceGraph(nn.Module):
    def __init__(self, network: ImplicitWarp) -> None:
        super().__init__()
        self.network = network

    def forward(self, picture: Tensor, keypoints: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        seen = to_float(picture)[:, None]
        encoded = self.network.encode_sources(seen, keypoints[:, None], seen)
        return encoded.rows[:, 0], encoded.membership[:, 0], encoded.basis[:, 0]


class JoinGraph(nn.Module):
    def __init__(self, network: ImplicitWarp) -> None:
        super().__init__()
        self.network = network

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        joined = self.network.join(rows, self.network.config.side)
        return joined.rows, joined.keys, joined.pooled


class LookGraph(nn.Module):
    def __init__(self, network: ImplicitWarp) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        driving: Tensor,
        keypoints: Tensor,
        rows: Tensor,
        keys: Tensor,
        pooled: Tensor,
        membership: Tensor,
        basis: Tensor,
    ) -> tuple[Tensor, Tensor]:
        network, config = self.network, self.network.config
        side, joined = config.side, Blocks(keys, pooled, rows)
        attended, unit_queries = network.attend_joined(driving, keypoints, joined, membership, basis, side)
        features, warp = network.look(attended, unit_queries, side)
        fields = coarse_fields(warp, side, network.log_focus.exp()).transpose(2, 3)
        fields = fields * torch.tensor([[config.seen / 2], [config.seen / 2], [1.0]])
        return fields.transpose(2, 3).unflatten(2, (side, side)), features


class PaintGraph(nn.Module):
    def __init__(self, network: ImplicitWarp) -> None:
        super().__init__()
        self.network = network

    def forward(self, base: Tensor, features: Tensor) -> Tensor:
        decoder = self.network.decoder
        correct = decoder.correct if self.network.config.up_blocks else decoder.correct_folded
        return to_uint8(correct(features, base))


def to_float(pictures: Tensor) -> Tensor:
    return pictures.permute(0, 3, 1, 2).float() / 255


def load_checkpoint(file: Path, size: int | None = None) -> ImplicitWarp:
    """The averaged weights of a training run's checkpoint, for pictures of `size`."""
    state = torch.load(file, map_location="cpu", weights_only=True)
    config = ModelConfig.from_dict(state["model"])
    network = ImplicitWarp(replace(config, size=size or config.size))
    network.load_state_dict(state["average"])
    return network.eval()


def save_weights(network: ImplicitWarp, file: Path, base: str | None = None) -> None:
    """fp16 safetensors with the configuration inside; of a model with a base, in the same folder, the up blocks alone.

    Raises ValueError where something else differs from the base, FileNotFoundError where that is not there.
    """
    state = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in network.state_dict().items()
    }
    metadata = {"config": json.dumps(network.config.to_dict())}
    if base is not None:
        state = without_base(network.config, state, *load_weights(base, file.parent))
        metadata |= {"base": base, "base_sha256": read_weights_file(base, file.parent).sha256}
    save_file(state, file, metadata=metadata)


def without_base(
    config: ModelConfig, state: dict[str, Tensor], base: ModelConfig, shared: dict[str, Tensor]
) -> dict[str, Tensor]:
    """The weights that a base does not have. Raises ValueError where it does not do for the rest."""
    grown = replace(
        base, name=config.name, size=base.size * config.scale, up_blocks=config.up_blocks, up_detail=config.up_detail
    )
    if config != grown:
        raise ValueError(f"{config.name} is not {base.name} with up blocks")
    differing = [name for name, value in shared.items() if name not in state or not state[name].equal(value)]
    own = {name: value for name, value in state.items() if name not in shared}
    differing += [name for name in own if not name.startswith("decoder.up.")]
    if differing:
        raise ValueError(f"not only the up blocks differ from the base: {', '.join(differing[:3])}")
    return own


def export(network: ImplicitWarp, model: str, folder: Path, base: str | None = None) -> dict[str, float]:
    """Write `model`.safetensors and its graphs into `folder`; returns the largest torch-ONNX differences.

    With `base`, a model in the same folder that this one adds up blocks to, only what it does not share with that.
    Raises ValueError when torch and ONNX Runtime disagree by more than TOLERANCE, or the base has other weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(network, folder / f"{model}.safetensors", base)
    for old in folder.glob(f"{model}.*.onnx"):
        old.unlink()
    reference = TorchRuntime(model, "cpu", folder)
    export_graphs(reference._network, model, folder, PARTS if base is None else ("paint",))
    differences = compare(reference, OnnxRuntime(model, 1, folder))
    if max(differences.values()) > TOLERANCE:
        raise ValueError(f"torch and ONNX disagree: {differences}")
    return differences


def export_graphs(network: ImplicitWarp, model: str, folder: Path, parts: Sequence[str] = PARTS) -> None:
    config = network.config
    seen = torch.zeros(1, config.seen, config.seen, 3, dtype=torch.uint8)
    small = torch.zeros(1, config.detector_size, config.detector_size, 3, dtype=torch.uint8)
    keypoints = torch.rand(1, config.keypoints, 3)
    with torch.no_grad():
        of_source = SourceGraph(network)(seen, keypoints)
    several, rows, membership, basis = (x[:, None].repeat(1, 2, *[1] * (x.dim() - 1)) for x in (keypoints, *of_source))
    with torch.no_grad():
        looked_at = (keypoints, several, *JoinGraph(network)(rows), membership, basis)
        _, features = LookGraph(network)(*looked_at)
    write = graph_writer(model, folder, parts)
    write("detector", DetectorGraph(network), (small,), ["picture"], ["keypoints"], {})
    write(
        "source",
        SourceGraph(network),
        (seen, keypoints),
        ["picture", "keypoints"],
        ["rows", "membership", "basis"],
        {},
    )
    of_sources = {1: "sources"}
    joined = {name: {1: "blocks"} for name in JOINED}
    joined["rows"][2] = "columns"
    write("join", JoinGraph(network), (rows,), ["features"], list(JOINED), {"features": of_sources, **joined})
    names = ["driving", "keypoints", *JOINED, "membership", "basis"]
    free = {**dict.fromkeys(["keypoints", "membership", "basis", "fields"], of_sources), **joined}
    write("look", LookGraph(network), looked_at, names, ["fields", "features"], free)
    side = config.size if config.up_blocks else config.size // 2
    base = torch.zeros(1, 3 if config.up_blocks else 12, side, side)
    write("paint", PaintGraph(network), (base, features), ["base", "features"], ["picture"], {})
    for part in parts:
        store_halves(folder / f"{model}.{part}.onnx", SMALL.get(part, SMALLEST))


def store_halves(file: Path, small: int) -> None:
    """Store a graph's weights of at least so many values as fp16. ONNX Runtime widens them again when it loads the
    graph, so that only the file is smaller, and keypoints move by less than a tenth of a pixel."""
    model = onnx.load(str(file))
    for weights in list(model.graph.initializer):
        values = onnx.numpy_helper.to_array(weights)
        if values.dtype != np.float32 or values.size < small or np.abs(values).max() > np.finfo(np.float16).max:
            continue
        stored = onnx.numpy_helper.from_array(values.astype(np.float16), f"{weights.name}_half")
        widened = onnx.helper.make_node("Cast", [stored.name], [weights.name], to=onnx.TensorProto.FLOAT)
        model.graph.initializer.remove(weights)
        model.graph.initializer.append(stored)
        model.graph.node.insert(0, widened)
    onnx.save(model, str(file))


def graph_writer(model: str, folder: Path, parts: Sequence[str]) -> Callable[..., None]:
    """What writes the graphs among `parts`, and no others."""

    def write(
        part: str,
        graph: nn.Module,
        inputs: tuple[Tensor, ...],
        names: list[str],
        outputs: list[str],
        free: dict[str, Any],
    ) -> None:
        if part not in parts:
            return
        torch.onnx.export(
            graph.eval(),
            inputs,
            str(folder / f"{model}.{part}.onnx"),
            input_names=names,
            output_names=[f"{name}_out" if name in names else name for name in outputs],
            dynamic_axes=free,
            opset_version=OPSET,
            dynamo=False,
        )

    return write


def compare(reference: TorchRuntime, exported: OnnxRuntime) -> dict[str, float]:
    """Largest differences on smooth pictures: keypoints, source features (relative), pictures (of full scale).

    Pictures are compared before they matter to the eye: one grey level is 0.004 of full scale, so the mean is taken.
    """
    rng = np.random.default_rng(5)
    size = reference.info.size
    noise = rng.random((3, 9, 9, 3)).astype(np.float32)
    import cv2

    pictures = [
        (cv2.resize(n, (size, size), interpolation=cv2.INTER_CUBIC).clip(0, 1) * 255).astype(np.uint8) for n in noise
    ]
    a, b = ([runtime.prepare(p) for p in pictures] for runtime in (reference, exported))
    keypoints = max(float(np.abs(x.keypoints - y.keypoints).max()) for x, y in zip(a, b, strict=True))
    rows = max(float(np.abs(x.features.rows[0, 0].numpy() - y.features).max()) for x, y in zip(a, b, strict=True))
    driving = np.mean([s.keypoints for s in a], axis=0).astype(np.float32)
    differences = [
        np.abs(reference.reconstruct(driving, a[:n]).astype(int) - exported.reconstruct(driving, b[:n])).mean() / 255
        for n in (1, 2, 3)
    ]
    return {"keypoints": keypoints, "rows": rows, "picture": float(max(differences))}
