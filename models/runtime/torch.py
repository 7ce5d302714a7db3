"""The runtime on PyTorch: for CUDA, and as the reference for the exported graphs."""

import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from iwcodec.models.network.config import ModelConfig
from iwcodec.models.network.network import ImplicitWarp, Sources
from iwcodec.models.runtime.pictures import resize_area
from iwcodec.models.runtime.types import MAX_ACTIVE, Keypoints, Picture, Source
from iwcodec.models.runtime.weights import DEFAULT_MODEL, WEIGHTS, read_info, read_weights_file


def load_weights(model: str = DEFAULT_MODEL, folder: Path = WEIGHTS) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Load a model's configuration and its weights as stored (fp16), including those of its base.

    Raises FileNotFoundError on an unknown model."""
    file = read_weights_file(model, folder)
    weights = load_weights(file.base, folder)[1] if file.base is not None else {}
    with safe_open(folder / f"{model}.safetensors", framework="pt") as tensors:
        weights |= {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
    return ModelConfig.from_dict(file.config), weights


def load_network(model: str = DEFAULT_MODEL, folder: Path = WEIGHTS) -> ImplicitWarp:
    """Load a model as a float32 network in evaluation mode. Raises FileNotFoundError on an unknown model."""
    config, weights = load_weights(model, folder)
    network = ImplicitWarp(config)
    network.load_state_dict(weights)
    return network.eval()


def load_state(file: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Load a dict that `torch.save` wrote; nothing but tensors and plain values is unpickled.

    Raises OSError, and ValueError if the file holds anything else."""
    try:
        state = torch.load(file, map_location=device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError) as error:
        raise ValueError(f"{file} is damaged, or was not written by PyTorch") from error
    if not isinstance(state, dict):
        raise ValueError(f"{file} holds no weights")
    return state


class TorchRuntime:
    """The network in float32 PyTorch (types.Runtime)."""

    def __init__(self, model: str = DEFAULT_MODEL, device: str | None = None, folder: Path = WEIGHTS) -> None:
        """`device` defaults to CUDA if available. Raises FileNotFoundError on an unknown model."""
        self.info = read_info(model, folder)
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.network = load_network(model, folder).to(self.device)

    @torch.inference_mode()
    def detect(self, picture: Picture) -> Keypoints:
        scaled = resize_area(picture, self.network.config.detector_size)
        return self.network.detect(self._tensor(scaled)[None])[0].cpu().numpy()

    @torch.inference_mode()
    def prepare(self, picture: Picture) -> Source:
        scaled = resize_area(picture, self.network.config.net_size)
        pixels, net_pixels = (self._tensor(p)[None, None] for p in (picture, scaled))
        keypoints = self.detect(picture)
        source_keypoints = torch.from_numpy(keypoints)[None, None].to(self.device)
        encoded = self.network.encode_sources(pixels, source_keypoints, net_pixels)
        membership, basis = (part[0, 0].cpu().numpy() for part in (encoded.membership, encoded.basis))
        return Source(picture, keypoints, encoded, membership, basis)

    def with_picture(self, source: Source, picture: Picture) -> Source:
        pixels = self._tensor(picture)[None, None]
        return replace(source, picture=picture, features=source.features._replace(pictures=pixels))

    @torch.inference_mode()
    def reconstruct(self, keypoints: Keypoints, sources: Sequence[Source], suppression: float = 0.0) -> Picture:
        if not 1 <= len(sources) <= MAX_ACTIVE:
            raise ValueError(f"1 to {MAX_ACTIVE} sources, not {len(sources)}")
        driving = torch.from_numpy(np.ascontiguousarray(keypoints))[None].to(self.device)
        threshold = torch.full((1,), suppression, device=self.device)
        out = self.network.generate(driving, concatenate(sources), suppression=threshold).picture[0]
        return to_uint8(out.permute(1, 2, 0)).cpu().numpy()

    def _tensor(self, picture: Picture) -> Tensor:
        return torch.from_numpy(picture).to(self.device).permute(2, 0, 1).float() / 255


def concatenate(sources: Sequence[Source]) -> Sources:
    """Concatenate the features of sources that a TorchRuntime prepared into one set."""
    return Sources(*(torch.cat(parts, dim=1) for parts in zip(*(s.features for s in sources), strict=True)))


def to_uint8(picture: Tensor) -> Tensor:
    """Convert a picture in 0..1 to 8-bit values, clamped and rounded."""
    return (picture.clamp(0, 1) * 255).round().to(torch.uint8)
