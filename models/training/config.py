"""Training configurations, read from TOML files."""

import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from iwcodec.models.network.config import CONFIGS, ModelConfig
from iwcodec.models.training.data.samples import SamplePlan
from iwcodec.models.training.losses import LossWeights


@dataclass(frozen=True)
class Stage:
    """One stage of a training run."""

    name: str
    steps: int
    """Optimiser steps."""
    plan: SamplePlan
    learning_rate: float = 5e-4
    """Learning rate after the warm-up."""
    warmup: int = 100
    """Steps over which the learning rate rises linearly."""
    final: float = 0.1
    """Learning rate at the end of the stage as a share of `learning_rate`; cosine decay in between."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Adam's betas."""
    shrink: int = 1
    """Factor by which pictures are pooled before the network reads them. The detector reads the loader's size."""
    weights: LossWeights = field(default_factory=LossWeights)
    motion_only: bool = False
    """Train the detector and the motion basis alone, on the motion residuals of the keypoints. No picture is generated,
    which is many times faster, and everything else depends on the motion. `noise` is added to the fitted keypoints."""
    perceptual_side: int = 0
    """Side in pixels of the random square on which the perceptual loss is computed; 0 is the whole picture."""
    only: str = ""
    """Prefix of the names of the trained parameters, for example `decoder.up` or `basis_net`. All others are frozen,
    and only the losses on the picture apply, or those on the motion with `motion_only`."""
    fitted: float = 0.0
    """Share of the driving frames that are generated from fitted keypoints, as an offline sender transmits them."""
    noise: float = 0.0
    """Largest quantisation error added to driving places, in [-1, 1] units, when pictures are generated."""
    keep_norms: bool = False
    """Freeze the running statistics of the batch norms and normalise by them: batches of a few large pictures are too
    small a sample."""
    validate_every: int = 500
    """Steps between validations."""

    @property
    def wants_motion(self) -> bool:
        """Whether the stage fits keypoints to the flow."""
        return bool(self.fitted or self.weights.prior or self.weights.fit or self.weights.aligned)


@dataclass(frozen=True)
class TrainConfig:
    """A training run: the network and its stages."""

    model: ModelConfig
    stages: tuple[Stage, ...]
    baseline: str | None = None
    """Baseline (baselines/networks.py) to train in place of the network, at its widths."""
    start: str | None = None
    """Model whose weights initialise the run: a shipped one, or a path to one in another folder."""
    seed: int = 1
    cache_size: int = 256
    """Side in pixels of the frames in the cache."""


def load_config(file: Path) -> TrainConfig:
    """Read a configuration: `model` (a name in network.config.CONFIGS), an optional table `override` of its settings,
    and an array of tables `stage`.

    Raises ValueError with the reason if it is invalid."""
    try:
        raw = tomllib.loads(file.read_text())
        model = CONFIGS[raw["model"]]
        override: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.get("override", {}).items()}
        stages = tuple(parse_stage(stage) for stage in raw["stage"])
        rest = {key: raw[key] for key in ("start", "seed", "cache_size") if key in raw}
        return TrainConfig(replace(model, **override), stages, **rest)
    except (KeyError, TypeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{file}: {type(error).__name__}: {error}") from error


def parse_stage(raw: dict[str, Any]) -> Stage:
    """Build a stage from its TOML table. Raises KeyError or TypeError on missing or unknown settings."""
    raw = dict(raw)
    plan = SamplePlan(**raw.pop("plan"))
    weights = LossWeights(**raw.pop("weights", {}))
    if "betas" in raw:
        raw["betas"] = tuple(raw["betas"])
    return Stage(plan=plan, weights=weights, **raw)
