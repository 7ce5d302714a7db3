"""Building blocks shared by the detector, the U-Nets and the decoder."""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvBlock(nn.Sequential):
    """3x3 convolution, batch norm (folded into the convolution on export), ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs, momentum=0.05),
            nn.ReLU(inplace=True),
        )


class UNet(nn.Module):
    """A U-Net (hourglass) that halves the picture once per width after the first.

    (B, inputs, h, w) -> (B, widths[0], h, w); h and w are multiples of 2 ** (len(widths) - 1).
    """

    def __init__(self, inputs: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = ConvBlock(inputs, widths[0])
        self.down = nn.ModuleList(ConvBlock(a, b, stride=2) for a, b in itertools.pairwise(widths))
        self.up = nn.ModuleList(ConvBlock(b, a) for a, b in itertools.pairwise(widths))
        self.merge = nn.ModuleList(ConvBlock(2 * a, a) for a in widths[:-1])

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        skips = [x]
        for down in self.down:
            x = down(x)
            skips.append(x)
        x = skips.pop()
        for up, merge in zip(reversed(self.up), reversed(self.merge), strict=True):
            x = F.interpolate(up(x), scale_factor=2.0, mode="nearest")
            x = merge(torch.cat([x, skips.pop()], dim=1))
        return x


class ResidualBlock(nn.Module):
    """Depthwise 5x5, then a two-layer pointwise MLP, added to the input. No norm: the decoder works on a picture."""

    def __init__(self, channels: int, expansion: int = 2) -> None:
        super().__init__()
        self.spread = nn.Conv2d(channels, channels, 5, 1, 2, groups=channels)
        self.grow = nn.Conv2d(channels, expansion * channels, 1)
        self.shrink = nn.Conv2d(expansion * channels, channels, 1)
        nn.init.normal_(self.shrink.weight, std=0.01)
        nn.init.zeros_(self.shrink.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shrink(F.relu(self.grow(self.spread(x))))


def zero_init(layer: nn.Conv2d) -> nn.Conv2d:
    """Make a layer start as zero, so that what it corrects starts uncorrected."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
