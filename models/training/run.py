"""One training run: networks, optimisers, the training step and checkpoints."""

import copy
import math
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from iwcodec.models.baselines.networks import BASELINES
from iwcodec.models.network.config import ModelConfig
from iwcodec.models.network.network import ImplicitWarp
from iwcodec.models.runtime.torch import load_state, load_weights
from iwcodec.models.runtime.weights import WEIGHTS
from iwcodec.models.training.baseline_objective import BaselineObjective
from iwcodec.models.training.config import Stage, TrainConfig
from iwcodec.models.training.discriminator import PatchDiscriminator, discriminator_loss, feature_matching_loss
from iwcodec.models.training.evaluate import Score
from iwcodec.models.training.objective import Objective
from iwcodec.models.training.perceptual import PerceptualLoss

EMA = 0.997
"""Decay per step of the moving average of the weights."""

LOG_PARAMETER_RATE = 10.0
"""Learning rate of the logarithmic scalars of the attention, relative to that of the other parameters."""


class Run:
    """State of a training run, as a checkpoint stores it, and one training step.

    The folder holds `checkpoint.pt` and `log.txt`; an existing checkpoint is resumed. With several processes only the
    first writes."""

    def __init__(self, config: TrainConfig, folder: Path, device: str) -> None:
        torch.manual_seed(config.seed)
        self.config, self.folder, self.device = config, folder, torch.device(device)
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.network: Any = (BASELINES[config.baseline] if config.baseline else ImplicitWarp)(config.model)
        self.network = self.network.to(self.device)
        if config.start is not None:
            start = Path(config.start)
            self.start_from(load_weights(start.name, WEIGHTS / start.parent)[1], config.start)
        for parameter in self.network.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.to(memory_format=torch.channels_last)  # faster on CPUs
        self.average = copy.deepcopy(self.network).requires_grad_(False).eval()
        wants_features = any(stage.weights.perceptual for stage in config.stages)
        objective = BaselineObjective if config.baseline else Objective
        self.objective = objective(self.network, PerceptualLoss().to(self.device) if wants_features else None)
        self.discriminator: PatchDiscriminator | None = None
        if any(stage.weights.adversarial for stage in config.stages):
            self.discriminator = PatchDiscriminator().to(self.device)
        self.optimizer = torch.optim.Adam(parameter_groups(self.network))
        self.critic_optimizer = (
            torch.optim.Adam(self.discriminator.parameters(), 2e-4, (0.5, 0.999)) if self.discriminator else None
        )
        self.stage, self.step = 0, 0
        self.stop_signals: list[int] = []
        """Signals that arrived during a step, which stop the run after it."""
        self.losses: dict[str, float] = {}
        """Running means of the losses of the current stage, unweighted."""
        self.scores: list[Score] = []
        """Scores of the last validation."""
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "checkpoint.pt").exists():
            self.load(folder / "checkpoint.pt")

    @property
    def sample_seed(self) -> int:
        """Seed of this stage and process."""
        return self.config.seed + 1000 * self.stage + 31 * self.rank

    def load(self, file: Path) -> None:
        """Load a checkpoint. Raises ValueError if it is damaged or belongs to another network."""
        state = load_state(file, self.device)
        trained = ModelConfig.from_dict(state["model"]), state.get("baseline")
        if trained != (self.config.model, self.config.baseline):
            raise ValueError(
                f"{file} is a checkpoint of another network than this configuration's: use another run folder"
            )
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.discriminator is not None and self.critic_optimizer is not None and "discriminator" in state:
            self.discriminator.load_state_dict(state["discriminator"])
            self.critic_optimizer.load_state_dict(state["critic_optimizer"])
        self.stage, self.step = state["stage"], state["step"]

    def start_from(self, weights: dict[str, Tensor], name: str) -> None:
        """Initialise from weights of another model. Parameters that it lacks, or has in another shape, keep their
        random initialisation. Raises ValueError if it has parameters that this network lacks."""
        own = self.network.state_dict()
        unknown = weights.keys() - own.keys()
        if unknown:
            raise ValueError(f"{name} has parameters that this network lacks: {', '.join(sorted(unknown))}")
        self.network.load_state_dict(own | {k: v for k, v in weights.items() if v.shape == own[k].shape})

    def save(self) -> None:
        """Write the checkpoint atomically; does nothing in processes other than the first."""
        if self.rank:
            return
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "stage": self.stage,
            "step": self.step,
            "model": self.config.model.to_dict(),
            "baseline": self.config.baseline,
        }
        if self.discriminator is not None and self.critic_optimizer is not None:
            state["discriminator"] = self.discriminator.state_dict()
            state["critic_optimizer"] = self.critic_optimizer.state_dict()
        partial = self.folder / "checkpoint.partial"
        torch.save(state, partial)
        partial.replace(self.folder / "checkpoint.pt")

    def log(self, text: str) -> None:
        """Print a line and append it to the log; does nothing in processes other than the first."""
        if self.rank:
            return
        print(text, file=sys.stderr, flush=True)
        with (self.folder / "log.txt").open("a") as file:
            file.write(text + "\n")

    def set_trainable(self, stage: Stage) -> None:
        """Freeze all parameters but those the stage trains. Raises ValueError if it trains none."""
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(name.startswith(stage.only))
        if not any(parameter.requires_grad for parameter in self.network.parameters()):
            raise ValueError(f"no parameter of {self.config.model.name} begins with {stage.only!r}")

    def train_step(self, objective: nn.Module, batch: dict[str, Tensor], stage: Stage) -> dict[str, float]:
        """Take one optimiser step and return the unweighted losses and their weighted total."""
        weights = stage.weights
        # Seeded by step on every device and in every process, so that checkpoints need no generator state.
        torch.manual_seed(self.sample_seed * 10**7 + self.step)
        rate = learning_rate(stage, self.step)
        for group in self.optimizer.param_groups:
            group["lr"], group["betas"] = rate * group["scale"], stage.betas
        self.network.eval()
        for name, module in self.network.named_modules():
            if name.startswith(stage.only):
                module.train()
        if stage.keep_norms:
            freeze_norms(self.network)
        result, generated, target = objective(batch, stage)
        if self.discriminator is not None and weights.adversarial:
            self.discriminator.requires_grad_(False)
            score, features = self.discriminator(generated)
            result["adversarial"] = -score.mean()
            result["feature_matching"] = feature_matching_loss(self.discriminator(target)[1], features)
            self.discriminator.requires_grad_(True)
        total = torch.stack([getattr(weights, name) * value for name, value in result.items()]).sum()
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        if torch.isfinite(norm):
            self.optimizer.step()
        if self.discriminator is not None and self.critic_optimizer is not None and weights.adversarial:
            result["critic"] = self.critic_step(target, generated.detach())
        self.update_average()
        return {name: float(value.detach()) for name, value in result.items()} | {"total": float(total.detach())}

    def critic_step(self, real: Tensor, fake: Tensor) -> Tensor:
        """Take one optimiser step of the discriminator and return its loss; gradients are averaged over processes."""
        assert self.discriminator is not None
        assert self.critic_optimizer is not None
        loss = discriminator_loss(self.discriminator(real)[0], self.discriminator(fake)[0])
        self.critic_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if dist.is_initialized():
            for parameter in self.discriminator.parameters():
                if parameter.grad is not None:
                    dist.all_reduce(parameter.grad)
                    parameter.grad /= dist.get_world_size()
        self.critic_optimizer.step()
        return loss

    @torch.no_grad()
    def update_average(self) -> None:
        """Update the moving average of the weights, which is validated and shipped; it adapts faster at the start."""
        keep = min(EMA, (1 + self.step) / (10 + self.step)) if self.stage == 0 else EMA
        for slow, fast in zip(self.average.parameters(), self.network.parameters(), strict=True):
            slow.lerp_(fast, 1 - keep)
        for kept, current in zip(self.average.buffers(), self.network.buffers(), strict=True):
            kept.copy_(current)


def parameter_groups(network: nn.Module) -> list[dict[str, Any]]:
    """Split the parameters into two optimiser groups with different learning rates.

    The few scalars of the attention (geometric prior, temperature, focus) are logarithms that must change by whole
    units; at the common learning rate they stay where they started."""
    logarithms = [p for name, p in network.named_parameters() if name.startswith(("prior.", "log_"))]
    others = [p for name, p in network.named_parameters() if not name.startswith(("prior.", "log_"))]
    return [{"params": others, "scale": 1.0}, {"params": logarithms, "scale": LOG_PARAMETER_RATE}]


def freeze_norms(network: nn.Module) -> None:
    """Put the batch norms in evaluation mode: they normalise by their running statistics and do not update them."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def learning_rate(stage: Stage, step: int) -> float:
    """Learning rate of a step: linear warm-up, then cosine decay to `final`."""
    warm = min(1.0, (step + 1) / max(1, stage.warmup))
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / stage.steps)))
    return stage.learning_rate * warm * (stage.final + (1 - stage.final) * cosine)
