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
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

WEIGHTS = Path(__file__).parent / "weights"
DEFAULT_MODEL = "lite-256"
MAX_ACTIVE = 4
"""Most sources that may enter attention for one frame."""

Picture = NDArray[np.uint8]
Keypoints = NDArray[np.float32]


@dataclass(frozen=True)
class ModelInfo:
    """What a bitstream names: decoding with another model gives other pictures."""

    model_id: str
    digest: bytes
    """First 8 bytes of the SHA-256 of the weights."""
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
    """(M, 3 K): how each cell moves with the keypoints (geometry.moved)."""


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
    """The exported graphs on ONNX Runtime's CPU provider. Several threads may use it at once, as a call does."""

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
                str(folder / f"{model}.{part}.onnx"), options, providers=["CPUExecutionProvider"]
            )
            for part in ("detector", "source", "look", "paint")
        }
        self._kept = _Kept(self.info.size)

    def detect(self, picture: Picture) -> Keypoints:
        picture = resized(picture, self._sessions["detector"].get_inputs()[0].shape[1])
        return self._sessions["detector"].run(None, {"picture": picture[None]})[0][0]

    def prepare(self, picture: Picture) -> Source:
        keypoints = self.detect(picture)
        features = self._sessions["source"].run(None, {"picture": picture[None], "keypoints": keypoints[None]})
        return Source(picture, keypoints, *(feature[0] for feature in features))

    def reconstruct(self, keypoints: Keypoints, sources: Sequence[Source]) -> Picture:
        if not 1 <= len(sources) <= MAX_ACTIVE:
            raise ValueError(f"1 to {MAX_ACTIVE} sources, not {len(sources)}")
        looked = self._sessions["look"].run(None, {"driving": keypoints[None], **self._joined(sources)})
        places, shares, features = looked
        for source, place, out in zip(sources, places[0], self._kept.sampled, strict=False):
            cv2.remap(source.picture, place, None, cv2.INTER_LINEAR, out, cv2.BORDER_REPLICATE)
        sampled = self._kept.sampled[None, : len(sources)]
        return self._sessions["paint"].run(None, {"sampled": sampled, "shares": shares, "features": features})[0][0]

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
    """What a thread keeps from frame to frame: the last set of sources, and room for its samples."""

    def __init__(self, size: int) -> None:
        self.sources: tuple[Source, ...] = ()
        self.joined: dict[str, Any] = {}
        self.sampled = np.empty((MAX_ACTIVE, size, size, 3), np.uint8)


def resized(picture: Picture, side: int) -> Picture:
    """What the detector sees: every runtime shrinks in the same integers, for keypoints must not depend on it."""
    if picture.shape[0] == side:
        return picture
    return np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


def read_info(model: str, folder: Path = WEIGHTS) -> ModelInfo:
    """What the weights file says of itself. Raises FileNotFoundError."""
    file = folder / f"{model}.safetensors"
    if not file.exists():
        raise FileNotFoundError(f"no model {model!r}; there are: {', '.join(list_models(folder)) or 'none'}")
    data = file.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    config = json.loads(header["__metadata__"]["config"])
    return ModelInfo(model, hashlib.sha256(data).digest()[:8], config["keypoints"], config["size"])


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
