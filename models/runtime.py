"""Running the network: one small interface, ONNX Runtime by default.

A runtime turns pictures into keypoints (sender), source pictures into cached keys and values, and keypoints plus
sources into pictures (receiver). Pictures are uint8 RGB (H, W, 3); keypoints float32 (K, 3).
"""

import hashlib
import json
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

WEIGHTS = Path(__file__).parent / "weights"
DEFAULT_MODEL = "lite-256"
PARTS = ("detector", "source", "look", "paint")
"""The graphs of a model; see export.py."""
MAX_ACTIVE = 4
"""Most sources that may enter attention for one frame."""

Picture = NDArray[np.uint8]
Keypoints = NDArray[np.float32]


@dataclass(frozen=True)
class ModelInfo:
    """What a bitstream names: decoding with another model gives other pictures."""

    model_id: str
    digest: bytes
    """First 8 bytes of the SHA-256 of the weights' file. One that builds on another model's weights holds their
    SHA-256, so that this names all of them."""
    keypoints: int
    size: int
    """Pixels a side of source and rebuilt pictures."""


@dataclass(frozen=True)
class Source:
    """A source picture as the receiver keeps it."""

    picture: Picture
    keypoints: Keypoints
    features: Any
    """The runtime's own: keys, values and pixels of the cells."""
    membership: NDArray[np.float32]
    """(M, K + 1): which keypoint each cell of the attention grid belongs to; the last is the background."""
    basis: NDArray[np.float32]
    """(b, 3 K): how each cell of a coarser square grid moves with the keypoints (geometry.moved)."""


class Runtime(Protocol):
    @property
    def info(self) -> ModelInfo: ...

    @property
    def device(self) -> str: ...

    def detect(self, picture: Picture) -> Keypoints:
        """Square picture of any size -> keypoints (K, 3)."""
        ...

    def prepare(self, picture: Picture) -> Source:
        """Source picture of `info.size` -> what attention needs of it."""
        ...

    def reconstruct(self, keypoints: Keypoints, sources: Sequence[Source]) -> Picture:
        """Keypoints (K, 3) and 1 to MAX_ACTIVE sources -> picture of `info.size`."""
        ...


class OnnxRuntime:
    """The exported graphs on ONNX Runtime's CPU provider: the model's own, and its base's. Several threads may use it
    at once, as a call does."""

    device = "cpu"

    def __init__(self, model: str = DEFAULT_MODEL, threads: int | None = None, folder: Path = WEIGHTS) -> None:
        """Raises FileNotFoundError where the model is not there."""
        import onnxruntime

        self.info = read_info(model, folder)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or min(4, os.cpu_count() or 1)
        options.inter_op_num_threads = 1
        # Spinning threads take the cores from OpenCV's sampling between the graphs, and in a call from everyone else:
        # without, a frame takes little more than half the time on two cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._sessions = {
            part: onnxruntime.InferenceSession(
                str(graph_file(model, part, folder)), options, providers=["CPUExecutionProvider"]
            )
            for part in PARTS
        }
        self._seen: int = self._sessions["source"].get_inputs()[0].shape[1]
        self._kept = _Kept(self._sessions["paint"].get_inputs()[0].shape)

    def detect(self, picture: Picture) -> Keypoints:
        return self._sessions["detector"].run(None, {"picture": self._seen_by("detector", picture)})[0][0]

    def prepare(self, picture: Picture) -> Source:
        keypoints = self.detect(picture)
        feed = {"picture": self._seen_by("source", picture), "keypoints": keypoints[None]}
        features = self._sessions["source"].run(None, feed)
        return Source(picture, keypoints, *(feature[0] for feature in features))

    def reconstruct(self, keypoints: Keypoints, sources: Sequence[Source]) -> Picture:
        if not 1 <= len(sources) <= MAX_ACTIVE:
            raise ValueError(f"1 to {MAX_ACTIVE} sources, not {len(sources)}")
        fields, features = self._sessions["look"].run(None, {"driving": keypoints[None], **self._joined(sources)})
        base = self._planes(self._base(fields[0], sources))
        return from_planes(self._sessions["paint"].run(None, {"base": base, "features": features})[0][0])

    def _planes(self, picture: NDArray[Any]) -> NDArray[np.float32]:
        """(H, W, 3) of 0..255 -> what `paint` takes: of 0..1, in planes."""
        planes = self._kept.base
        fold = self.info.size // planes.shape[-1]
        for n, (row, column) in enumerate(np.ndindex(fold, fold)):
            for plane, channel in zip(
                planes[0, n :: fold**2], cv2.split(picture[row::fold, column::fold]), strict=True
            ):
                np.multiply(channel, np.float32(1 / 255), out=plane)
        return planes

    def _base(self, fields: NDArray[np.float32], sources: Sequence[Source]) -> NDArray[Any]:
        """The sources sampled and blended, by fields (S, g, g, 3) as the graph gives them: (H, W, 3) of 0..255. As
        network.sampling_fields and network.blend."""
        seen = (self._seen, self._seen)
        wide = [cv2.resize(field, seen, interpolation=cv2.INTER_LINEAR) for field in fields]
        sampled = [
            cv2.remap(
                s.picture, enlarged(f[..., :2], self.info.size), None, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE
            )
            for s, f in zip(sources, wide, strict=True)
        ]
        return sampled[0] if len(sampled) == 1 else self._blended(sampled, [field[..., 2] for field in wide])

    def _blended(self, sampled: Sequence[Picture], weights: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        total = sum(weights[1:], weights[0])
        shares = [resized_shares(weight / total, self.info.size) for weight in weights]
        blended, so_far = sampled[0].astype(np.float32), shares[0]
        for picture, share in zip(sampled[1:], shares[1:], strict=True):
            blended = cv2.blendLinear(blended, picture.astype(np.float32), so_far, share)
            so_far = so_far + share
        return blended

    def _seen_by(self, part: str, picture: Picture) -> Picture:
        """(1, side, side, 3), as large as the graph looks at it."""
        return resized(picture, self._sessions[part].get_inputs()[0].shape[1])[None]

    def _joined(self, sources: Sequence[Source]) -> dict[str, Any]:
        """The set's features as the graph takes them; kept, because from frame to frame the set seldom changes."""
        kept = self._kept
        if len(sources) != len(kept.sources) or any(a is not b for a, b in zip(sources, kept.sources, strict=True)):
            kept.sources = tuple(sources)
            kept.joined = {
                "keypoints": np.stack([s.keypoints for s in sources])[None],
                "rows": np.stack([s.features for s in sources])[None],
                "membership": np.stack([s.membership for s in sources])[None],
                "basis": np.stack([s.basis for s in sources])[None],
            }
        return kept.joined


class _Kept(threading.local):
    """What a thread keeps from frame to frame: the last set of sources, and room for the base picture."""

    def __init__(self, base: Sequence[int]) -> None:
        self.sources: tuple[Source, ...] = ()
        self.joined: dict[str, Any] = {}
        self.base = np.empty(base, np.float32)


def resized(picture: Picture, side: int) -> Picture:
    """What the nets see: every runtime shrinks in the same integers, for keypoints must not depend on it."""
    if picture.shape[0] == side:
        return picture
    return np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


def enlarged(shift: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """How far from themselves the pixels (h, h, 2) of a picture are sampled, in pixels -> where those of one of `side`
    are, (side, side, 2); as network.enlarge_places."""
    seen = len(shift)
    if seen != side:
        shift = cv2.resize(shift, (side, side), interpolation=cv2.INTER_LINEAR) * np.float32(side / seen)
    return np.asarray(shift + pixel_grid(side), np.float32)


def from_planes(planes: Picture) -> Picture:
    """What `paint` gives, (3 n^2, H / n, W / n), -> (H, W, 3)."""
    fold = round((len(planes) // 3) ** 0.5)
    if fold == 1:
        return np.asarray(cv2.merge(list(planes)), np.uint8)
    picture = np.empty((fold * planes.shape[1], fold * planes.shape[2], 3), np.uint8)
    for n, (row, column) in enumerate(np.ndindex(fold, fold)):
        picture[row::fold, column::fold] = cv2.merge(list(planes[n :: fold**2]))
    return picture


def resized_shares(share: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    if len(share) == side:
        return share
    return np.asarray(cv2.resize(share, (side, side), interpolation=cv2.INTER_LINEAR), np.float32)


@cache
def pixel_grid(side: int) -> NDArray[np.float32]:
    """(side, side, 2): the pixels' own x and y."""
    axis = np.arange(side, dtype=np.float32)
    return np.stack(np.meshgrid(axis, axis), axis=-1)


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


def load_runtime(model: str = DEFAULT_MODEL, kind: str = "auto", threads: int | None = None) -> Runtime:
    """`kind`: "onnx" (CPU), "torch" (CPU or CUDA), "cuda" (one captured graph a frame, runtime_cuda.py) or "auto":
    CUDA through torch where there is one, else ONNX."""
    if kind == "cuda":
        from .runtime_cuda import CudaRuntime

        return CudaRuntime(model)
    if kind == "torch" or (kind == "auto" and cuda_is_there()):
        from .runtime_torch import TorchRuntime

        return TorchRuntime(model)
    if kind not in ("auto", "onnx"):
        raise ValueError(f"no runtime {kind!r}: auto, onnx, torch or cuda")
    return OnnxRuntime(model, threads)


def cuda_is_there() -> bool:
    """Asks torch only where it is installed already; importing it costs seconds."""
    import importlib.util

    if importlib.util.find_spec("torch") is None or not any(
        Path(p).exists() for p in ("/dev/nvidia0", "/dev/dxg", "C:/Windows/System32/nvcuda.dll")
    ):
        return False
    import torch

    return torch.cuda.is_available()
