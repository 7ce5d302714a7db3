"""The five ONNX graphs of a model.

They take uint8 pictures (B, H, W, 3), so that callers need no conversion. Shapes are named as in network.py:

- `detector`: picture at the detector's size -> keypoints (1, K, 3).
- `source`: picture at the network's input size (1, h, w, 3), keypoints -> rows (1, M, R), membership (1, M, K + 1) and
  basis (1, b, 3 K).
- `merge`: rows of S sources (1, S, M, R), S dynamic -> rows, keys and pooled keys of all sources in blocks
  (attention.Blocks). They are valid as long as the set of sources stays the same.
- `attend`: driving keypoints, keypoints of S sources, the outputs of `merge`, membership, basis -> fields (1, S, g, g,
  3), the shift of the sampling position of each cell in each source (x and y in pixels of the network's input) and the
  weight of the source; and decoder features.
- `refine`: base picture in 0..1, features -> uint8 picture, both as planes (1, 3, H, W), or without up blocks
  pixel-unshuffled as (1, 12, H / 2, W / 2).

Between `attend` and `refine` the caller computes the base picture: OpenCV upsamples the fields, samples and blends
several times faster than ONNX Runtime. Only `refine` depends on the up blocks, so a model that extends a base model by
up blocks needs just that graph of its own.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnx.numpy_helper
import torch
from torch import Tensor, nn

from iwcodec.models.network.attention import Blocks
from iwcodec.models.network.network import ImplicitWarp
from iwcodec.models.network.warp import coarse_fields
from iwcodec.models.runtime.onnx import MERGED
from iwcodec.models.runtime.torch import to_uint8
from iwcodec.models.runtime.weights import PARTS

OPSET = 17
"""ONNX operator set of the graphs."""
MIN_HALF_SIZE = 8_000
"""Smallest number of values of a tensor that is stored as fp16. Smaller tensors are few bytes together."""
DETECTOR_MIN_HALF_SIZE = 50_000
"""MIN_HALF_SIZE of the detector, whose last layers are sensitive to rounding."""


class NetworkGraph(nn.Module):
    """A part of the network with the inputs and outputs of a graph."""

    def __init__(self, network: ImplicitWarp) -> None:
        super().__init__()
        self.network: ImplicitWarp = network


class DetectorGraph(NetworkGraph):
    """`detector`."""

    def forward(self, picture: Tensor) -> Tensor:
        return self.network.detect(to_float(picture))


class SourceGraph(NetworkGraph):
    """`source`."""

    def forward(self, picture: Tensor, keypoints: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pixels = to_float(picture)[:, None]
        encoded = self.network.encode_sources(pixels, keypoints[:, None], pixels)
        return encoded.rows[:, 0], encoded.membership[:, 0], encoded.basis[:, 0]


class MergeGraph(NetworkGraph):
    """`merge`."""

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        merged = self.network.merge_sources(rows, self.network.config.side)
        return merged.rows, merged.keys, merged.pooled


class AttendGraph(NetworkGraph):
    """`attend`."""

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
        side, merged = config.side, Blocks(keys, pooled, rows)
        attended, unit_queries = network.attend_merged(driving, keypoints, merged, membership, basis, side)
        features, warp = network.decoder_inputs(attended, unit_queries, side)
        fields = coarse_fields(warp, side, network.log_focus.exp()).transpose(2, 3)
        fields = fields * torch.tensor([[config.net_size / 2], [config.net_size / 2], [1.0]])
        return fields.transpose(2, 3).unflatten(2, (side, side)), features


class RefineGraph(NetworkGraph):
    """`refine`."""

    def forward(self, base: Tensor, features: Tensor) -> Tensor:
        return to_uint8(self.corrected(base, features))

    def corrected(self, base: Tensor, features: Tensor) -> Tensor:
        """Return the picture before it is rounded to bytes."""
        decoder = self.network.decoder
        correct = decoder.correct if self.network.config.up_blocks else decoder.correct_folded
        return correct(features, base)


def to_float(pictures: Tensor) -> Tensor:
    """Convert uint8 pictures (B, H, W, 3) to (B, 3, H, W) in 0..1."""
    return pictures.permute(0, 3, 1, 2).float() / 255


class Export(NamedTuple):
    """Arguments of the ONNX exporter for one graph."""

    graph: NetworkGraph
    inputs: tuple[Tensor, ...]
    input_names: list[str]
    output_names: list[str]
    dynamic_axes: dict[str, dict[int, str]]


def export_graphs(network: ImplicitWarp, model: str, folder: Path, parts: Sequence[str] = PARTS) -> None:
    """Write the graphs `parts` of a network to `folder` as `model`.PART.onnx."""
    config = network.config
    picture = torch.zeros(1, config.net_size, config.net_size, 3, dtype=torch.uint8)
    small = torch.zeros(1, config.detector_size, config.detector_size, 3, dtype=torch.uint8)
    keypoints = torch.rand(1, config.keypoints, 3)
    with torch.no_grad():
        encoded = SourceGraph(network)(picture, keypoints)
    several, rows, membership, basis = (x[:, None].repeat(1, 2, *[1] * (x.dim() - 1)) for x in (keypoints, *encoded))
    with torch.no_grad():
        attend_inputs = (keypoints, several, *MergeGraph(network)(rows), membership, basis)
        _, features = AttendGraph(network)(*attend_inputs)
    side = config.size if config.up_blocks else config.size // 2
    base = torch.zeros(1, 3 if config.up_blocks else 12, side, side)
    sources = {1: "sources"}
    merged = {name: {1: "blocks"} for name in MERGED}
    merged["rows"][2] = "columns"
    exports = {
        "detector": Export(DetectorGraph(network), (small,), ["picture"], ["keypoints"], {}),
        "source": Export(
            SourceGraph(network), (picture, keypoints), ["picture", "keypoints"], ["rows", "membership", "basis"], {}
        ),
        "merge": Export(MergeGraph(network), (rows,), ["features"], list(MERGED), {"features": sources, **merged}),
        "attend": Export(
            AttendGraph(network),
            attend_inputs,
            ["driving", "keypoints", *MERGED, "membership", "basis"],
            ["fields", "features"],
            {**dict.fromkeys(["keypoints", "membership", "basis", "fields"], sources), **merged},
        ),
        "refine": Export(RefineGraph(network), (base, features), ["base", "features"], ["picture"], {}),
    }
    for part in parts:
        file = folder / f"{model}.{part}.onnx"
        write_graph(exports[part], file)
        store_halves(file, DETECTOR_MIN_HALF_SIZE if part == "detector" else MIN_HALF_SIZE)


def write_graph(export: Export, file: Path) -> None:
    """Trace a graph and write it as ONNX."""
    arguments: dict[str, Any] = {
        "input_names": export.input_names,
        "output_names": [f"{name}_out" if name in export.input_names else name for name in export.output_names],
        "dynamic_axes": export.dynamic_axes,
    }
    torch.onnx.export(export.graph.eval(), export.inputs, str(file), opset_version=OPSET, dynamo=False, **arguments)


def store_halves(file: Path, min_size: int) -> None:
    """Store the weights of a graph with at least `min_size` values as fp16.

    ONNX Runtime widens them to fp32 when it loads the graph, so only the file gets smaller. Keypoints change by less
    than a tenth of a pixel."""
    model = onnx.load(str(file))
    for weights in list(model.graph.initializer):
        values = onnx.numpy_helper.to_array(weights)
        if values.dtype != np.float32 or values.size < min_size or np.abs(values).max() > np.finfo(np.float16).max:
            continue
        stored = onnx.numpy_helper.from_array(values.astype(np.float16), f"{weights.name}_half")
        widened = onnx.helper.make_node("Cast", [stored.name], [weights.name], to=onnx.TensorProto.FLOAT)
        model.graph.initializer.remove(weights)
        model.graph.initializer.append(stored)
        model.graph.node.insert(0, widened)
    onnx.save(model, str(file))
