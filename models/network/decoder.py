"""Decoder: attended values -> correction of the base picture (paper, section 3.2, for the residual on the values)."""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iwcodec.models.network.config import ModelConfig
from iwcodec.models.network.layers import ResidualBlock, upsample, zero_init


class UpBlock(nn.Module):
    """Doubles the resolution of a correction: upsamples it and adds the missing detail."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(inputs // 4 + 3, outputs, 3, 1, 1)
        self.see = nn.Conv2d(3, outputs, 4, 2, 1)
        self.out = zero_init(nn.Conv2d(outputs, 12, 3, 1, 1))

    def forward(self, change: Tensor, x: Tensor, base: Tensor) -> tuple[Tensor, Tensor]:
        """Correction (B, 3, h, w), features (B, inputs, h / 2, w / 2) and the larger base picture (B, 3, 2h, 2w) ->
        correction (B, 3, 2h, 2w) and features (B, outputs, h, w)."""
        x = F.relu(self.enter(torch.cat([F.pixel_shuffle(x, 2), change], dim=1)) + self.see(base - 0.5))
        return upsample(change, 2) + F.pixel_shuffle(self.out(x), 2), x


class Decoder(nn.Module):
    """Attended rows -> correction of the sampling positions (`nudge`), then correction of the base picture."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        inputs = 2 * config.dim + 3 + 1
        self.residual = nn.Sequential(
            nn.Conv2d(inputs, config.trunk, 1), nn.ReLU(), nn.Conv2d(config.trunk, config.values, 1)
        )
        self.entry = nn.Conv2d(config.values, config.trunk, 1)
        self.blocks = nn.Sequential(*(ResidualBlock(config.trunk) for _ in range(config.trunk_blocks)))
        self.nudge = zero_init(nn.Conv2d(config.trunk, 2, 3, 1, 1))
        fold = config.cell // 2
        self.unfold = nn.Conv2d(config.trunk, 16 * fold**2, 1)
        self.fuse = nn.Conv2d(16 + 12, config.detail, 3, 1, 1)
        self.refine = nn.Conv2d(config.detail, config.detail, 3, 1, 1)
        self.out = zero_init(nn.Conv2d(config.detail, 12, 3, 1, 1))
        widths = [config.detail, *[config.up_detail] * config.up_blocks]
        self.up = nn.ModuleList(UpBlock(a, b) for a, b in itertools.pairwise(widths))

    def features(self, values: Tensor, context: Tensor) -> Tensor:
        """Attended values (B, C, g, g) and context [pixels, keys, queries, mass] -> trunk features (B, trunk, g, g).

        The residual MLP on the context is that of the paper's section 3.2; the mass is an addition."""
        if self.config.residual:
            values = values + self.residual(context)
        return self.blocks(self.entry(values))

    def correct(self, features: Tensor, base: Tensor) -> Tensor:
        """Correct a base picture (B, 3, H, W); `features` are the trunk features with the gate appended (`change`)."""
        if not len(self.up):
            return F.pixel_shuffle(self.correct_folded(features, F.pixel_unshuffle(base, 2)), 2)
        bases = [base]
        for _ in self.up:
            bases.append(F.avg_pool2d(bases[-1], 2))
        change, x = self.change(features, F.pixel_unshuffle(bases.pop(), 2))
        change = F.pixel_shuffle(change, 2)
        for block in self.up:
            change, x = block(change, x, bases.pop())
        return base + change

    def correct_folded(self, features: Tensor, base: Tensor) -> Tensor:
        """Correct a base picture in the pixel-unshuffled form (B, 12, H / 2, W / 2); for models without up blocks."""
        return base + self.change(features, base)[0]

    def change(self, features: Tensor, base: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the folded correction of a folded base picture, and the features it was made from.

        The last channel of `features` (B, trunk + 1, g, g) is a gate in 0..1 that scales the correction."""
        features, gate = features[:, :-1], features[:, -1:]
        half = F.pixel_shuffle(F.relu(self.unfold(features)), self.config.cell // 2)
        x = F.relu(self.fuse(torch.cat([half, base - 0.5], dim=1)))
        x = F.relu(self.refine(x))
        return self.out(x) * upsample(gate, self.config.cell // 2), x
