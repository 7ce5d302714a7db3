"""Building blocks and shape helpers shared by the detector, the encoders and the decoder."""

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
    """U-Net (hourglass) with one level per width; each level after the first halves the resolution.

    (B, inputs, h, w) -> (B, widths[0], h, w); h and w must be multiples of 2 ** (len(widths) - 1).
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
    """Depthwise 5x5 convolution and a two-layer pointwise MLP, added to the input. No normalisation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.spread = nn.Conv2d(channels, channels, 5, 1, 2, groups=channels)
        self.grow = nn.Conv2d(channels, 2 * channels, 1)
        self.shrink = nn.Conv2d(2 * channels, channels, 1)
        nn.init.normal_(self.shrink.weight, std=0.01)
        nn.init.zeros_(self.shrink.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shrink(F.relu(self.grow(self.spread(x))))


def zero_init(layer: nn.Conv2d) -> nn.Conv2d:
    """Initialise a layer to output zero, so that a correction starts as no correction."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def to_cells(x: Tensor) -> Tensor:
    """Flatten feature maps to cells in raster order: (B, C, g, g) -> (B, M, C)."""
    return x.flatten(2).transpose(1, 2)


def to_maps(x: Tensor, side: int) -> Tensor:
    """Arrange cells as feature maps, the inverse of `to_cells`: (B, M, C) -> (B, C, g, g)."""
    return x.transpose(1, 2).unflatten(2, (side, side))


def upsample(x: Tensor, scale: int) -> Tensor:
    """Upsample bilinearly: (B, C, h, w) -> (B, C, scale * h, scale * w)."""
    return x if scale == 1 else F.interpolate(x, scale_factor=float(scale), mode="bilinear", align_corners=False)


def resize(picture: Tensor, size: int) -> Tensor:
    """Scale square pictures (B, C, H, W) to `size`: average pooling by whole factors, else bilinear interpolation.

    Training, export and inference all use this function, because keypoints depend on it.
    """
    side = picture.shape[-1]
    if side == size:
        return picture
    if side % size == 0:
        return F.avg_pool2d(picture, side // size)
    return F.interpolate(picture, size=(size, size), mode="bilinear", align_corners=False)
