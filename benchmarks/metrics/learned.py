"""Metrics that others have trained: LPIPS, FID, ColorVideoVDP.

The weights of the first two are published by others and not part of this package. They are read from the folder that
the environment variable IWCODEC_METRIC_WEIGHTS names; without them MetricUnavailableError says which file is missing
and where it comes from. PyTorch is imported only when one of these is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from iwcodec.benchmarks.metrics.metrics import MetricUnavailableError
from iwcodec.codec.extras import install
from iwcodec.codec.media.types import Picture

if TYPE_CHECKING:
    from torch import Tensor

    State = dict[str, Tensor]
    Layer = Callable[..., Tensor]

ALEXNET = "alexnet-owt-7be5be79.pth"
LPIPS = "lpips_v0.1_alex.pth"
INCEPTION = "pt_inception-2015-12-05-6726825d.pth"
ORIGIN = {
    ALEXNET: "AlexNet of torchvision",
    LPIPS: "lpips/weights/v0.1/alex.pth of github.com/richzhang/PerceptualSimilarity, renamed",
    INCEPTION: "the Inception of github.com/mseitzer/pytorch-fid",
}

_LPIPS_SHIFT, _LPIPS_SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_ALEXNET_LAYERS = ((0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1))  # number, stride, padding


def check_inception(folder: Path | None = None) -> None:
    """Raises MetricUnavailableError where `fid` would."""
    _load(INCEPTION, folder)


class ColorVideoVdp:
    """R. K. Mantiuk et al., SIGGRAPH 2024: quality in just objectionable differences, 10 when none can be seen.

    As seen on the metric's standard screen, 30 inch at 3840 x 2160 from 0.75 m. Needs the package cvvdp.
    """

    def __init__(self) -> None:
        try:
            import pycvvdp
        except ImportError as error:
            raise MetricUnavailableError(
                f"ColorVideoVDP needs the package cvvdp (pip install cvvdp); {error.name or error} is missing."
            ) from error
        except (RuntimeError, OSError) as error:  # of a torchvision that does not fit torch
            raise MetricUnavailableError(f"ColorVideoVDP needs a torchvision that fits torch: {error}.") from error
        self._metric = pycvvdp.cvvdp(display_name="standard_4k", quiet=True)

    def __call__(self, originals: Sequence[Picture], decoded: Sequence[Picture], fps: float) -> float:
        quality, _ = self._metric.predict(
            np.stack(decoded), np.stack(originals), dim_order="FHWC", frames_per_second=fps
        )
        return float(quality)


class Lpips:
    """R. Zhang et al., CVPR 2018, version 0.1 on AlexNet: the distance of two pictures, 0 when they are equal."""

    def __init__(self, folder: Path | None = None) -> None:
        self._alexnet = _load(ALEXNET, folder)
        self._heads = [_load(LPIPS, folder)[f"lin{i}.model.1.weight"] for i in range(len(_ALEXNET_LAYERS))]

    def __call__(self, original: Picture, decoded: Picture) -> float:
        import torch

        with torch.inference_mode():
            pairs = zip(self._features(original), self._features(decoded), self._heads, strict=True)
            return sum(float(torch.nn.functional.conv2d((a - b) ** 2, head).mean()) for a, b, head in pairs)

    def _features(self, picture: Picture) -> Iterator[Tensor]:
        """Activations after each of the five ReLUs, every cell's vector of length 1."""
        import torch
        from torch.nn import functional

        shift, scale = (torch.tensor(values).view(1, 3, 1, 1) for values in (_LPIPS_SHIFT, _LPIPS_SCALE))
        x = (_tensor([picture]) - shift) / scale
        for number, stride, padding in _ALEXNET_LAYERS:
            if number in (3, 6):
                x = functional.max_pool2d(x, 3, 2)
            weight, bias = self._alexnet[f"features.{number}.weight"], self._alexnet[f"features.{number}.bias"]
            x = functional.relu(functional.conv2d(x, weight, bias, stride, padding))
            yield x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)


def fid(originals: Iterable[Picture], decoded: Iterable[Picture], folder: Path | None = None) -> float:
    """Frechet Inception distance (M. Heusel et al., NIPS 2017) between two sets of pictures, lower is better.

    It compares distributions of 2048 features: thousands of pictures of many people, or the figure means little.
    ValueError for fewer than two pictures a side.
    """
    state = _load(INCEPTION, folder)
    return frechet(_features_of(originals, state), _features_of(decoded, state))


def frechet(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Between the Gaussians fitted to two sets of vectors, (n, d) and (m, d)."""
    if min(len(a), len(b)) < 2:
        raise ValueError("at least two pictures a side are needed")
    # With both covariances as R^T R, the eigenvalues of their product are the squared singular values of R_a R_b^T.
    roots = [np.linalg.qr(x - x.mean(0), mode="r") / np.sqrt(len(x) - 1) for x in (a, b)]
    cross = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    gap = np.square(a.mean(0) - b.mean(0)).sum()
    return float(gap + sum(np.square(root).sum() for root in roots) - 2 * cross)


def _features_of(pictures: Iterable[Picture], state: State) -> NDArray[np.float64]:
    import torch

    with torch.inference_mode():
        rows = [inception_features(_tensor([picture]), state)[0].double().numpy() for picture in pictures]
    return np.stack(rows) if rows else np.zeros((0, 2048))


def inception_features(x: Tensor, state: State) -> Tensor:
    """(n, 3, H, W) in -1..1 -> (n, 2048): Inception v3 (C. Szegedy et al., CVPR 2016) as FID uses it.

    It differs from the classifier in its poolings: averages leave the padding out, the last block takes maxima.
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

    def maxima(x: Tensor) -> Tensor:
        return functional.max_pool2d(x, 3, 1, 1)

    def shrink(x: Tensor) -> Tensor:
        return functional.max_pool2d(x, 3, 2)

    x = functional.interpolate(x, (299, 299), mode="bilinear", align_corners=False)
    x = conv(conv(x, "Conv2d_1a_3x3", 2, same=False), "Conv2d_2a_3x3", same=False)
    x = shrink(conv(x, "Conv2d_2b_3x3"))
    x = shrink(conv(conv(x, "Conv2d_3b_1x1"), "Conv2d_4a_3x3", same=False))
    for name in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        x = _block_5(x, name, conv, average)
    x = _reduce_6a(x, conv, shrink)
    for name in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        x = _block_6(x, name, conv, average)
    x = _reduce_7a(x, conv, shrink)
    x = _block_7(x, "Mixed_7b", conv, average)
    x = _block_7(x, "Mixed_7c", conv, maxima)
    return x.mean((2, 3))


def _chain(x: Tensor, block: str, conv: Layer, *names: str) -> Tensor:
    for name in names:
        x = conv(x, f"{block}.branch{name}")
    return x


def _join(*branches: Tensor) -> Tensor:
    import torch

    return torch.cat(branches, 1)


def _block_5(x: Tensor, block: str, conv: Layer, pool: Layer) -> Tensor:
    return _join(
        _chain(x, block, conv, "1x1"),
        _chain(x, block, conv, "5x5_1", "5x5_2"),
        _chain(x, block, conv, "3x3dbl_1", "3x3dbl_2", "3x3dbl_3"),
        _chain(pool(x), block, conv, "_pool"),
    )


def _reduce_6a(x: Tensor, conv: Layer, shrink: Layer) -> Tensor:
    double = _chain(x, "Mixed_6a", conv, "3x3dbl_1", "3x3dbl_2")
    return _join(
        conv(x, "Mixed_6a.branch3x3", 2, same=False), conv(double, "Mixed_6a.branch3x3dbl_3", 2, same=False), shrink(x)
    )


def _block_6(x: Tensor, block: str, conv: Layer, pool: Layer) -> Tensor:
    return _join(
        _chain(x, block, conv, "1x1"),
        _chain(x, block, conv, "7x7_1", "7x7_2", "7x7_3"),
        _chain(x, block, conv, *(f"7x7dbl_{i}" for i in range(1, 6))),
        _chain(pool(x), block, conv, "_pool"),
    )


def _reduce_7a(x: Tensor, conv: Layer, shrink: Layer) -> Tensor:
    three = _chain(x, "Mixed_7a", conv, "3x3_1")
    seven = _chain(x, "Mixed_7a", conv, "7x7x3_1", "7x7x3_2", "7x7x3_3")
    return _join(
        conv(three, "Mixed_7a.branch3x3_2", 2, same=False),
        conv(seven, "Mixed_7a.branch7x7x3_4", 2, same=False),
        shrink(x),
    )


def _block_7(x: Tensor, block: str, conv: Layer, pool: Layer) -> Tensor:
    three = _chain(x, block, conv, "3x3_1")
    double = _chain(x, block, conv, "3x3dbl_1", "3x3dbl_2")
    return _join(
        _chain(x, block, conv, "1x1"),
        *(_chain(three, block, conv, name) for name in ("3x3_2a", "3x3_2b")),
        *(_chain(double, block, conv, name) for name in ("3x3dbl_3a", "3x3dbl_3b")),
        _chain(pool(x), block, conv, "_pool"),
    )


def _tensor(pictures: list[Picture]) -> Tensor:
    """uint8 (H, W, 3) -> float (n, 3, H, W) in -1..1."""
    import torch

    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def _load(name: str, folder: Path | None) -> State:
    folder = folder or Path(os.environ.get("IWCODEC_METRIC_WEIGHTS", "."))
    path = folder / name
    if not path.is_file():
        raise MetricUnavailableError(
            f"{name} is not in {folder} ({ORIGIN[name]}); set IWCODEC_METRIC_WEIGHTS to the folder that holds it."
        )
    try:
        import torch
    except ImportError as error:
        raise MetricUnavailableError(f"LPIPS and FID need PyTorch ({install('train')}).") from error
    state: Any = torch.load(path, map_location="cpu", weights_only=True)
    return dict(state)
