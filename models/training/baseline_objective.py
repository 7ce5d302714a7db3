"""The training objective of the baselines (models/baselines): the losses that all of them share.

Losses on motion fields and landmarks need what only our network has; stages give them no weight.
"""

from typing import Any

from torch import Tensor, nn

from iwcodec.models.training import losses
from iwcodec.models.training.config import Stage
from iwcodec.models.training.objective import Losses, random_crop, random_transform
from iwcodec.models.training.perceptual import PerceptualLoss


class BaselineObjective(nn.Module):
    """A baseline and its losses, with the interface of objective.Objective."""

    def __init__(self, network: nn.Module, perceptual: PerceptualLoss | None) -> None:
        super().__init__()
        self.network = network
        self.perceptual = perceptual

    def forward(self, batch: dict[str, Tensor], stage: Stage) -> tuple[Losses, Tensor, Tensor]:
        """Return the losses, the generated pictures and their targets, both (B, 3, H, W)."""
        driving, sources = batch["driving"], batch["sources"]
        target = driving.flatten(0, 1)
        picture = self.network(target, sources.repeat_interleave(driving.shape[1], 0))
        result = {
            "l1": (picture - target).abs().mean(),
            "decibels": losses.decibel_loss(picture, target),
            "equivariance": self.equivariance(driving[:, 0]),
        }
        if self.perceptual is not None and stage.weights.perceptual:
            result["perceptual"] = self.perceptual(*random_crop(stage.perceptual_side, picture, target))
        return result, picture, target

    def equivariance(self, pictures: Tensor) -> Tensor:
        """Each network's own equivariance loss, with its priors on keypoints."""
        network: Any = self.network
        transformed, affine = random_transform(pictures, network.config.detector_size)
        loss: Tensor = network.equivariance(network.detect(pictures), network.detect(transformed), affine)
        return loss
