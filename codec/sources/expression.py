"""What the eyes or the mouth in a patch do: how far they are open, where they look, how wide the mouth is.

A small convolutional network for each region (28,000 weights each), trained by benchmarks/train_expression.py with
MediaPipe's face mesh as the teacher. To grey levels alone, a closed eye in the right light may be nearer to an open one
than another open eye in another light; what the network reads depends neither on light nor on a shift by some pixels.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SIDE = 32
"""Side in pixels of the grey patch that the network takes."""
CONVOLUTIONS = 3
MIN_CONTRAST = 8.0
"""Grey levels added to a patch's standard deviation, by which its levels are divided."""
WEIGHTS = Path(__file__).parents[1] / "data" / "expression.npz"

Values = NDArray[np.float32]


@dataclass(frozen=True)
class _Network:
    kernels: list[Values]
    """(9 * inputs, outputs) of each 3x3 convolution of stride 2."""
    kernel_biases: list[Values]
    layers: list[Values]
    """(inputs, outputs) of each fully connected layer."""
    biases: list[Values]


@cache
def _network(region: int) -> _Network:
    with np.load(WEIGHTS) as stored:
        arrays = {name: stored[name].astype(np.float32) for name in stored.files}

    def all_of(kind: str, count: int) -> list[Values]:
        return [arrays[f"{region}.{kind}.{n}"] for n in range(count)]

    return _Network(
        all_of("kernel", CONVOLUTIONS), all_of("kernel_bias", CONVOLUTIONS), all_of("layer", 2), all_of("bias", 2)
    )


def expression(grey: NDArray[np.uint8], region: int) -> Values:
    """Return what a region does: (2,), the eyes' opening and gaze, or the mouth's opening and width.

    `grey`: the patch (SIDE, SIDE). Values are in standard deviations over many people.
    """
    network = _network(region)
    levels = grey.astype(np.float32)
    values = ((levels - levels.mean()) / (levels.std(ddof=1) + MIN_CONTRAST))[..., None]
    for kernel, bias in zip(network.kernels, network.kernel_biases, strict=True):
        values = np.maximum(_patches(values) @ kernel + bias, 0)
    hidden = np.maximum(values.reshape(-1) @ network.layers[0] + network.biases[0], 0)
    return np.asarray(hidden @ network.layers[1] + network.biases[1], np.float32)


def _patches(values: Values) -> Values:
    """(H, W, C) -> (H / 2, W / 2, 9 C): the 3x3 neighbourhood of every second value, zeros outside."""
    height, width, channels = values.shape
    padded = np.zeros((height + 2, width + 2, channels), np.float32)
    padded[1:-1, 1:-1] = values
    windows = [padded[row : row + height : 2, column : column + width : 2] for row in range(3) for column in range(3)]
    return np.concatenate(windows, axis=2)
