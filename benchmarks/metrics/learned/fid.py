"""Frechet Inception distance (FID); M. Heusel et al., "GANs Trained by a Two Time-Scale Update Rule [...]", NIPS 2017.

With the published Inception weights (see `availability`). PyTorch is imported only when it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from iwcodec.benchmarks.metrics.learned.availability import INCEPTION, load_weights
from iwcodec.benchmarks.metrics.learned.lpips import to_tensor
from iwcodec.codec.media.types import Picture

if TYPE_CHECKING:
    from torch import Tensor

    State = dict[str, Tensor]
    Layer = Callable[..., Tensor]


def check_inception(folder: Path | None = None) -> None:
    """Raise MetricUnavailableError if `fid` would."""
    load_weights(INCEPTION, folder)


def fid(originals: Iterable[Picture], decoded: Iterable[Picture], folder: Path | None = None) -> float:
    """Frechet Inception distance between two sets of pictures; lower is better.

    Compares distributions of 2048 features, so it is meaningful only for thousands of pictures of many people.
    Raises ValueError for fewer than two pictures in either set.
    """
    state = load_weights(INCEPTION, folder)
    return frechet(_features_of(originals, state), _features_of(decoded, state))


def frechet(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Frechet distance between the Gaussians fitted to two sets of vectors, (n, d) and (m, d)."""
    if min(len(a), len(b)) < 2:
        raise ValueError("at least two pictures in each set are needed")
    # With both covariances as R^T R, the eigenvalues of their product are the squared singular values of R_a R_b^T.
    roots = [np.linalg.qr(x - x.mean(0), mode="r") / np.sqrt(len(x) - 1) for x in (a, b)]
    cross = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    gap = np.square(a.mean(0) - b.mean(0)).sum()
    return float(gap + sum(np.square(root).sum() for root in roots) - 2 * cross)


def _features_of(pictures: Iterable[Picture], state: State) -> NDArray[np.float64]:
    import torch

    with torch.inference_mode():
        rows = [inception_features(to_tensor(picture), state)[0].double().numpy() for picture in pictures]
    return np.stack(rows) if rows else np.zeros((0, 2048))


def inception_features(x: Tensor, state: State) -> Tensor:
    """(n, 3, H, W) in -1..1 -> (n, 2048): Inception v3 (C. Szegedy et al., CVPR 2016) as FID uses it.

    Differs from the classifier in pooling: average pooling excludes the padding, and the last block max-pools.
    """
    from torch.nn import functional

    def conv(x: Tensor, name: str, stride: int = 1, same: bool = True) -> Tensor:
        weight = state[f"{name}.conv.weight"]
        padding = (weight.shape[2] // 2, weight.shape[3] // 2) if same else 0
        x = functional.conv2d(x, weight, None, stride, padding)
        mean, variance, gain, bias = (
            state[f"{name}.bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return functional.relu(functional.batch_norm(x, mean, variance, gain, bias, eps=0.001))

    def average(x: Tensor) -> Tensor:
        return functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)

    def maximum(x: Tensor) -> Tensor:
        return functional.max_pool2d(x, 3, 1, 1)

    def reduce(x: Tensor) -> Tensor:
        return functional.max_pool2d(x, 3, 2)

    x = functional.interpolate(x, (299, 299), mode="bilinear", align_corners=False)
    x = conv(conv(x, "Conv2d_1a_3x3", 2, same=False), "Conv2d_2a_3x3", same=False)
    x = reduce(conv(x, "Conv2d_2b_3x3"))
    x = reduce(conv(conv(x, "Conv2d_3b_1x1"), "Conv2d_4a_3x3", same=False))
    for name in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        x = _block_5(x, name, conv, average)
    x = _reduce_6a(x, conv, reduce)
    for name in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        x = _block_6(x, name, conv, average)
    x = _reduce_7a(x, conv, reduce)
    x = _block_7(x, "Mixed_7b", conv, average)
    x = _block_7(x, "Mixed_7c", conv, maximum)
    return x.mean((2, 3))


def _chain(x: Tensor, block: str, conv: Layer, *names: str) -> Tensor:
    for name in names:
        x = conv(x, f"{block}.branch{name}")
    return x


def _concatenate(*branches: Tensor) -> Tensor:
    import torch

    return torch.cat(branches, 1)


def _block_5(x: Tensor, block: str, conv: Layer, pool: Layer) -> Tensor:
    return _concatenate(
        _chain(x, block, conv, "1x1"),
        _chain(x, block, conv, "5x5_1", "5x5_2"),
        _chain(x, block, conv, "3x3dbl_1", "3x3dbl_2", "3x3dbl_3"),
        _chain(pool(x), block, conv, "_pool"),
    )


def _reduce_6a(x: Tensor, conv: Layer, reduce: Layer) -> Tensor:
    double = _chain(x, "Mixed_6a", conv, "3x3dbl_1", "3x3dbl_2")
    return _concatenate(
        conv(x, "Mixed_6a.branch3x3", 2, same=False), conv(double, "Mixed_6a.branch3x3dbl_3", 2, same=False), reduce(x)
    )


def _block_6(x: Tensor, block: str, conv: Layer, pool: Layer) -> Tensor:
    return _concatenate(
        _chain(x, block, conv, "1x1"),
        _chain(x, block, conv, "7x7_1", "7x7_2", "7x7_3"),
        _chain(x, block, conv, *(f"7x7dbl_{i}" for i in range(1, 6))),
        _chain(pool(x), block, conv, "_pool"),
    )


def _reduce_7a(x: Tensor, conv: Layer, reduce: Layer) -> Tensor:
    three = _chain(x, "Mixed_7a", conv, "3x3_1")
    seven = _chain(x, "Mixed_7a", conv, "7x7x3_1", "7x7x3_2", "7x7x3_3")
    return _concatenate(
        conv(three, "Mixed_7a.branch3x3_2", 2, same=False),
        conv(seven, "Mixed_7a.branch7x7x3_4", 2, same=False),
        reduce(x),
    )


def _block_7(x: Tensor, block: str, conv: Layer, pool: Layer) -> Tensor:
    three = _chain(x, block, conv, "3x3_1")
    double = _chain(x, block, conv, "3x3dbl_1", "3x3dbl_2")
    return _concatenate(
        _chain(x, block, conv, "1x1"),
        *(_chain(three, block, conv, name) for name in ("3x3_2a", "3x3_2b")),
        *(_chain(double, block, conv, name) for name in ("3x3dbl_3a", "3x3dbl_3b")),
        _chain(pool(x), block, conv, "_pool"),
    )
