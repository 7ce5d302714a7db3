"""AlexNet and VGG-16 with few channels and made-up weights, in the files of the published ones."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iwcodec.benchmarks import weights
from iwcodec.benchmarks.weights import ALEXNET, DISTS, VGG16

CHANNELS = 4
KERNELS = {ALEXNET: (11, 5, 3, 3, 3), VGG16: (3,) * 13}
"""Sides of the convolutions' kernels."""
ROOTS = {ALEXNET: "AlexNet_0", VGG16: "VGG16_0"}


def array_pickle(tree: Any) -> bytes:
    """A pickle as numpy 1 wrote it: the published weights are that old."""
    return pickle.dumps(tree, protocol=3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def network(name: str) -> dict[str, Any]:
    rng = np.random.default_rng(len(name))
    layers: dict[str, Any] = {}
    for n, side in enumerate(KERNELS[name]):
        inputs = CHANNELS if n else 3
        kernel = rng.normal(0, 1 / (side * inputs**0.5), (side, side, inputs, CHANNELS)).astype(np.float32)
        layers[f"Conv_{n}"] = {"kernel": kernel, "bias": rng.random(CHANNELS).astype(np.float32)}
    heads = {
        f"NetLinLayer_{n}": {"Conv_0": {"kernel": rng.random((1, 1, CHANNELS, 1)).astype(np.float32)}} for n in range(5)
    }
    return {ROOTS[name]: layers, **heads}


def use_small_backbones(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill a cache of weights and have it used, whatever its files' SHA-256."""
    import torch

    monkeypatch.setenv("IWCODEC_WEIGHTS", str(folder))
    monkeypatch.setattr(weights, "is_valid", lambda path, digest: path.is_file())
    for name in KERNELS:
        (folder / name).write_bytes(array_pickle(network(name)))
    parts = {part: torch.rand(1, 3 + 5 * CHANNELS, 1, 1) for part in ("alpha", "beta")}
    torch.save(parts, folder / DISTS)
