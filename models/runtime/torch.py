"""The network on PyTorch: for CUDA, and for checking ONNX Runtime against."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from iwcodec.models.network.config import ModelConfig
from iwcodec.models.network.network import ImplicitWarp, Sources
from iwcodec.models.runtime.onnx import MAX_ACTIVE, resized
from iwcodec.models.runtime.types import Keypoints, Picture, Source
from iwcodec.models.runtime.weights import DEFAULT_MODEL, WEIGHTS, read_info, read_weights_file


def load_weights(model: str = DEFAULT_MODEL, folder: Path = WEIGHTS) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Configuration and shipped weights, its base's among them, as they are stored (fp16). Raises FileNotFoundError."""
    found = read_weights_file(model, folder)
    weights = load_weights(found.base, folder)[1] if found.base is not None else {}
    with safe_open(folder / f"{model}.safetensors", framework="pt") as file:
        weights |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return ModelConfig.from_dict(found.config), weights


def load_network(model: str = DEFAULT_MODEL, folder: Path = WEIGHTS) -> ImplicitWarp:
    """The network with its shipped weights, in float32 and evaluation mode."""
    config, weights = load_weights(model, folder)
    network = ImplicitWarp(config)
    network.load_state_dict(weights)
    return network.eval()


def load_state(file: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """What `torch.save` made of a dict. Raises OSError, and ValueError where that is not what the file holds."""
    try:
        state = torch.load(file, map_location=device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError) as error:
        raise ValueError(f"{file} is damaged, or was not written by PyTorch") from error
    if not isinstance(state, dict):
        raise ValueError(f"{file} holds no weights")
    return state


class TorchRuntime:
    """See runtime.Runtime."""

    def __init__(self, model: str = DEFAULT_MODEL, device: str | None = None, folder: Path = WEIGHTS) -> None:
        self.info = read_info(model, folder)
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._network = load_network(model, folder).to(self.device)

    @torch.inference_mode()
    def detect(self, picture: Picture) -> Keypoints:
        seen = resized(picture, self._network.config.detector_size)
        return self._network.detect(self._tensor(seen)[None])[0].cpu().numpy()

    @torch.inference_mode()
    def prepare(self, picture: Picture) -> Source:
        pixels, seen = (self._tensor(p)[None, None] for p in (picture, resized(picture, self._network.config.seen)))
        keypoints = self.detect(picture)
        known = torch.from_numpy(keypoints)[None, None].to(self.device)
        encoded = self._network.encode_sources(pixels, known, seen)
        known_to_all = (part[0, 0].cpu().numpy() for part in (encoded.membership, encoded.basis))
        return Source(picture, keypoints, encoded, *known_to_all)

    @torch.inference_mode()
    def reconstruct(self, keypoints: Keypoints, sources: Sequence[Source], suppression: float = 0.0) -> Picture:
        if not 1 <= len(sources) <= MAX_ACTIVE:
            raise ValueError(f"1 to {MAX_ACTIVE} sources, not {len(sources)}")
        joined = Sources(*(torch.cat(parts, dim=1) for parts in zip(*(s.features for s in sources), strict=True)))
        driving = torch.from_numpy(np.ascontiguousarray(keypoints))[None].to(self.device)
        zone = torch.full((1,), suppression, device=self.device)
        out = self._network.generate(driving, joined, suppression=zone).picture[0]
        return to_uint8(out.permute(1, 2, 0)).cpu().numpy()

    def _tensor(self, picture: Picture) -> Tensor:
        return torch.from_numpy(picture).to(self.device).permute(2, 0, 1).float() / 255


def to_uint8(picture: Tensor) -> Tensor:
    return (picture.clamp(0, 1) * 255).round().to(torch.uint8)
