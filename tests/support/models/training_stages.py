"""Stages and batches for the training tests; needs PyTorch."""

import torch

from iwcodec.models.training.config import Stage
from iwcodec.models.training.data.samples import SamplePlan
from iwcodec.models.training.losses import LossWeights

ADVERSARIAL = LossWeights(adversarial=0.1, feature_matching=1.0)


def stage(steps: int, **settings) -> Stage:
    """A stage of small batches that never validates."""
    return Stage("s", steps, SamplePlan(64, 2, 2, max_sources=2), validate_every=10**6, **settings)


def one_batch() -> dict[str, torch.Tensor]:
    """A batch of two clips with two driving frames and two sources each, always the same."""
    generator = torch.Generator().manual_seed(0)
    picture = torch.nn.functional.interpolate(
        torch.rand(4, 3, 6, 6, generator=generator), size=(64, 64), mode="bicubic"
    )
    picture = picture.clamp(0, 1)
    return {
        "driving": picture.unflatten(0, (2, 2)),
        "sources": picture.flip(0).unflatten(0, (2, 2)),
        "shift": torch.zeros(2, 2, 2, 32, 32, 2),
        "error": torch.full((2, 2, 2, 32, 32), 3.0),
        "driving_landmarks": torch.zeros(2, 2, 13, 3),
        "source_landmarks": torch.full((2, 2, 13, 3), torch.nan),
    }


def identical(a: object, b: object) -> bool:
    """Whether nested dicts and sequences of tensors are equal bit by bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(identical(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(identical, a, b))
    return a == b
