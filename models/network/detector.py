"""Keypoint detector: picture -> K places and strengths (paper, section 3.1; hourglass as in FOMM)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iwcodec.models.network.config import ModelConfig
from iwcodec.models.network.geometry import cell_centres
from iwcodec.models.network.layers import UNet, resize

TEMPERATURE = 0.1
"""Softmax temperature of the heatmaps, as in FOMM."""


class KeypointDetector(nn.Module):
    """(B, 3, H, W) in 0..1 -> (B, K, 3): x and y in [-1, 1], strength in (0, 1)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.size = config.detector_size
        self.stem = config.detector_stem
        width = config.detector_widths[0]
        self.hourglass = UNet(3 * config.detector_stem**2, config.detector_widths)
        self.heatmaps = nn.Conv2d(width, config.keypoints, 3, 1, 1)
        self.strengths = nn.Conv2d(width, config.keypoints, 1)

    def forward(self, picture: Tensor) -> Tensor:
        return self.locate(picture)[0]

    def locate(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Return the keypoints and their heatmaps (B, K, cells), each of which sums to 1."""
        x = resize(picture, self.size)
        features = self.hourglass(F.pixel_unshuffle(x, self.stem) - 0.5)
        heat = (self.heatmaps(features) / TEMPERATURE).flatten(2).softmax(-1)  # (B, K, hw)
        side = self.size // self.stem
        places = heat @ cell_centres(side, heat)  # (B, K, 2)
        strength = (heat * self.strengths(features).flatten(2)).sum(-1, keepdim=True).sigmoid()
        return torch.cat([places, strength], dim=-1), heat
