"""Export: a checkpoint -> safetensors (fp16) and five ONNX graphs, checked against each other.

The graphs take uint8 pictures (B, H, W, 3), so that no caller repeats the conversion:

- `detector`: picture of the detector's size -> keypoints (1, K, 3);
- `source`: picture as the nets see it (1, h, w, 3), keypoints -> rows (1, M, R), membership (1, M, K + 1) and basis
  (1, b, 3 K);
- `merge`: rows of S sources (1, S, M, R; S is free) -> rows, keys and pooled keys of them all in blocks
  (attention.Blocks), which stay while the set does;
- `attend`: driving keypoints, and keypoints of S sources, what `merge` gave, membership, basis -> fields (1, S, g, g, 3),
  of each source how far from each cell it is sampled (x and y in pixels of w) and what it weighs there, and features;
- `refine`: the base picture of 0..1, features -> uint8 picture, both in planes (1, 3, H, W), or where there are no up
  blocks in planes of every second pixel of every second row (1, 12, H / 2, W / 2; torch's pixel_unshuffle).

Between the last two the caller makes the base picture: OpenCV enlarges fields, samples and blends several times as
quickly as ONNX Runtime. H and W are h and w but for up blocks, which only `refine` knows of. So a model that adds up
blocks to a base has that graph alone, and its weights file only theirs.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnx.numpy_helper
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from iwcodec.models.network.attention import Blocks
from iwcodec.models.network.config import ModelConfig
from iwcodec.models.network.network import ImplicitWarp, Sources, coarse_fields
from iwcodec.models.runtime.onnx import JOINED, MAX_ACTIVE, OnnxRuntime
from iwcodec.models.runtime.torch import TorchRuntime, load_state, load_weights, to_uint8
from iwcodec.models.runtime.types import Keypoints, Picture, Source
from iwcodec.models.runtime.weights import PARTS, read_weights_file

OPSET = 17
TOLERANCE = 1e-3
SMALL = {"detector": 50_000}
SMALLEST = 8_000
"""Weights of fewer values stay as they are: together they are few, and the detector's last layers are touchy."""
TIES = 0.005
"""Share of the values behind top-k that may differ: blocks all but equally good may be chosen otherwise."""


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


class MergeGraph(nn.Module):
    def __init__(self, network: ImplicitWarp) -> None:
        super().__init__()
        self.network = network

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        joined = self.network.join(rows, self.network.config.side)
        return joined.rows, joined.keys, joined.pooled


class AttendGraph(nn.Module):
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


class RefineGraph(nn.Module):
    def __init__(self, network: ImplicitWarp) -> None:
        super().__init__()
        self.network = network

    def forward(self, base: Tensor, features: Tensor) -> Tensor:
        return to_uint8(self.corrected(base, features))

    def corrected(self, base: Tensor, features: Tensor) -> Tensor:
        decoder = self.network.decoder
        correct = decoder.correct if self.network.config.up_blocks else decoder.correct_folded
        return correct(features, base)


def to_float(pictures: Tensor) -> Tensor:
    return pictures.permute(0, 3, 1, 2).float() / 255


def load_checkpoint(file: Path, size: int | None = None) -> ImplicitWarp:
    """The averaged weights of a training run's checkpoint, for pictures of `size`. Raises ValueError, OSError, and
    KeyError where it is no checkpoint."""
    state = load_state(file)
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


@dataclass(frozen=True)
class ExportReport:
    """What `export` wrote."""

    model: str
    digest: str
    """As bitstreams name it: 16 hexadecimal digits (runtime.ModelInfo)."""
    folder: str
    bytes: dict[str, int]
    """Of each file, by its name."""
    differences: dict[str, float]
    """Of torch and ONNX Runtime, see `compare`."""
    largest_difference: float


def export(network: ImplicitWarp, model: str, folder: Path, base: str | None = None) -> ExportReport:
    """Write `model`.safetensors and its graphs into `folder`, once they are found to agree.

    With `base`, a model in the same folder that this one adds up blocks to, only what it does not share with that.
    Raises ValueError when torch and ONNX Runtime disagree by more than TOLERANCE, or the base has other weights;
    nothing is written then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{model}-", dir=folder) as temporary:
        beside = Path(temporary)
        shared = set() if base is None else copied(base, folder, beside)
        save_weights(network, beside / f"{model}.safetensors", base)
        reference = TorchRuntime(model, "cpu", beside)
        export_graphs(reference._network, model, beside, PARTS if base is None else ("refine",))
        differences = compare(reference, OnnxRuntime(model, 1, beside))
        if not all(value <= TOLERANCE for value in differences.values()):  # nor is anything not a number
            raise ValueError(f"torch and ONNX disagree: {differences}")
        for old in folder.glob(f"{model}.*.onnx"):
            old.unlink()
        written = [file for file in sorted(beside.iterdir()) if file.name not in shared]
        sizes = {file.name: file.replace(folder / file.name).stat().st_size for file in written}
    digest = reference.info.digest.hex()
    return ExportReport(model, digest, str(folder), sizes, differences, max(differences.values()))


def copied(model: str, folder: Path, into: Path) -> set[str]:
    """Names of the model's files, now in another folder too. Raises FileNotFoundError where there is no such model."""
    read_weights_file(model, folder)
    files = list(folder.glob(f"{model}.*"))
    for file in files:
        shutil.copy(file, into)
    return {file.name for file in files}


def export_graphs(network: ImplicitWarp, model: str, folder: Path, parts: Sequence[str] = PARTS) -> None:
    config = network.config
    seen = torch.zeros(1, config.seen, config.seen, 3, dtype=torch.uint8)
    small = torch.zeros(1, config.detector_size, config.detector_size, 3, dtype=torch.uint8)
    keypoints = torch.rand(1, config.keypoints, 3)
    with torch.no_grad():
        of_source = SourceGraph(network)(seen, keypoints)
    several, rows, membership, basis = (x[:, None].repeat(1, 2, *[1] * (x.dim() - 1)) for x in (keypoints, *of_source))
    with torch.no_grad():
        looked_at = (keypoints, several, *MergeGraph(network)(rows), membership, basis)
        _, features = AttendGraph(network)(*looked_at)
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
    write("merge", MergeGraph(network), (rows,), ["features"], list(JOINED), {"features": of_sources, **joined})
    names = ["driving", "keypoints", *JOINED, "membership", "basis"]
    free = {**dict.fromkeys(["keypoints", "membership", "basis", "fields"], of_sources), **joined}
    write("attend", AttendGraph(network), looked_at, names, ["fields", "features"], free)
    side = config.size if config.up_blocks else config.size // 2
    base = torch.zeros(1, 3 if config.up_blocks else 12, side, side)
    write("refine", RefineGraph(network), (base, features), ["base", "features"], ["picture"], {})
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


def compare(
    reference: TorchRuntime, exported: OnnxRuntime, pictures: Sequence[Picture] | None = None
) -> dict[str, float]:
    """Largest differences of every output of every graph, each given the same inputs in both, and of rebuilt pictures.

    `pictures` are up to MAX_ACTIVE sources (size, size, 3), smooth noise where there are none; they are looked at one,
    two and so on together, from the keypoints of the first and from their mean. Differences are in [-1, 1] units of
    places, of full scale of pictures, and of the largest value of features. `refine` counts from where rounding to grey
    levels no longer explains it. `picture` goes through everything, where OpenCV samples to a 32nd of a pixel and one
    grey level is 0.004 of full scale: so the mean is taken.
    """
    pictures = smooth_noise(reference.info.size) if pictures is None else pictures
    sources, exports = ([runtime.prepare(p) for p in pictures] for runtime in (reference, exported))
    found = [of_source(reference, exported, source) for source in sources]
    for driving in (sources[0].keypoints, np.mean([s.keypoints for s in sources], axis=0).astype(np.float32)):
        for count in range(1, len(pictures) + 1):
            found.append(of_frame(reference, exported, driving, sources[:count]))
            rebuilt = reference.reconstruct(driving, sources[:count]).astype(int)
            again = exported.reconstruct(driving, exports[:count])
            found.append({"picture": float(np.abs(rebuilt - again).mean() / 255)})
    names = dict.fromkeys(name for each in found for name in each)
    return {name: float(np.max([each[name] for each in found if name in each])) for name in names}


def smooth_noise(size: int) -> list[Picture]:
    coarse = np.random.default_rng(5).random((MAX_ACTIVE, 9, 9, 3)).astype(np.float32)
    large = (cv2.resize(n, (size, size), interpolation=cv2.INTER_CUBIC) for n in coarse)
    return [(n.clip(0, 1) * 255).astype(np.uint8) for n in large]


def of_source(reference: TorchRuntime, exported: OnnxRuntime, source: Source) -> dict[str, float]:
    """Differences of what is made of a source by itself."""
    run = exported._sessions
    small, seen = (exported._seen_by(part, source.picture) for part in ("detector", "source"))
    (keypoints,) = run["detector"].run(["keypoints"], {"picture": small})
    given = {"picture": seen, "keypoints": source.keypoints[None]}
    rows, membership, basis = run["source"].run(["rows", "membership", "basis"], given)
    return {
        "keypoints": apart(source.keypoints, keypoints[0]),
        "rows": apart(source.features.rows[0, 0].numpy(), rows[0]),
        "membership": apart(source.membership, membership[0]),
        "basis": apart(source.basis, basis[0]),
    }


@torch.inference_mode()
def of_frame(
    reference: TorchRuntime, exported: OnnxRuntime, driving: Keypoints, sources: Sequence[Source]
) -> dict[str, float]:
    """Differences of what is made of driving keypoints and sources (torch's in both)."""
    network, run = reference._network, exported._sessions
    joined = Sources(*(torch.cat(parts, dim=1) for parts in zip(*(s.features for s in sources), strict=True)))
    blocks = dict(zip(JOINED, MergeGraph(network)(joined.rows), strict=True))
    exported_blocks = run["merge"].run(JOINED, {"features": joined.rows.numpy()})
    given = {"driving": torch.from_numpy(driving)[None], "keypoints": joined.keypoints, **blocks}
    given |= {"membership": joined.membership, "basis": joined.basis}
    fields, features = (out.numpy() for out in AttendGraph(network)(*given.values()))
    again, features_again = run["attend"].run(["fields", "features"], {k: v.numpy() for k, v in given.items()})
    base = torch.from_numpy(sources[0].picture).permute(2, 0, 1)[None].float() / 255
    base = base if network.config.up_blocks else F.pixel_unshuffle(base, 2)
    exact = RefineGraph(network).corrected(base, torch.from_numpy(features)).clamp(0, 1).numpy()
    (painted,) = run["refine"].run(None, {"base": base.numpy(), "features": features})
    half = network.config.seen / 2
    return {
        **{f"joined {k}": apart(blocks[k].numpy(), made) for k, made in zip(JOINED, exported_blocks, strict=True)},
        "shifts": apart(fields[..., :2] / half, again[..., :2] / half, TIES),
        "weights": apart(fields[..., 2], again[..., 2], TIES),
        "features": apart(features, features_again, TIES),
        "refine": float(np.maximum(np.abs(exact * 255 - painted).max() - 0.5, 0)) / 255,
    }


def apart(a: NDArray[np.float32], b: NDArray[np.float32], but: float = 0.0) -> float:
    """Largest difference, `but` for a share of the values, as a share of the largest value where that is above 1."""
    return float(np.quantile(np.abs(a - b), 1 - but) / max(1.0, float(np.abs(a).max())))
