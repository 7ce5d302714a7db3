"""Training: `iwcodec train CONFIG --data FOLDER`, on one CPU, one GPU or many (torchrun).

A config is a TOML file: `model` (a name in config.CONFIGS), optional `[override]` of its settings, and `[[stage]]`s run
in order, each with a resolution, a number of steps and loss weights; `start` names shipped weights to begin with. The
run folder holds the last checkpoint (every few minutes and on Ctrl-C), a log, and a grid of pictures at every
validation; running the same command again resumes. What a step draws, samples and noise, follows from the seed and the
step's number alone: a resumed run takes the very steps that an uninterrupted one takes.
"""

import copy
import json
import math
import multiprocessing
import os
import signal
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from iwcodec.models.network.config import CONFIGS, ModelConfig
from iwcodec.models.network.detector import fit
from iwcodec.models.network.network import ImplicitWarp, Sources
from iwcodec.models.runtime.torch import load_state, load_weights
from iwcodec.models.runtime.weights import WEIGHTS
from iwcodec.models.training import alignment, data, fitting, losses
from iwcodec.models.training.data import PreparedClip, SamplePlan, Samples, find_clips, prepare
from iwcodec.models.training.discriminator import PatchDiscriminator, discriminator_loss, feature_matching_loss
from iwcodec.models.training.evaluate import Score, evaluate, load_clip, means, picture_grid, summary
from iwcodec.models.training.losses import LossWeights
from iwcodec.models.training.perceptual import PerceptualLoss

EMA = 0.997
CHECKPOINT_SECONDS = 240
MAX_VALIDATED = 32
"""Clips, evenly spaced among those of val: public sets have thousands."""
DROP_CHANCE = 0.1
"""Semantic dropout: share of samples that lose the cells of a facial region in every source."""
DROP_RADIUS = 0.25
RULING_PACE = 10.0
MAX_ERROR = 40.0
"""Grey levels that count for a cell where the flow leads nowhere."""
STRENGTH_NOISE = 4.0
"""Strengths are quantised so many times as coarsely as places."""
STOPS = (signal.SIGINT, signal.SIGTERM)
PATIENCE = timedelta(hours=2)
"""What processes wait for each other: one may have more clips to prepare, and the first validates alone."""


@dataclass(frozen=True)
class Stage:
    name: str
    steps: int
    plan: SamplePlan
    learning_rate: float = 5e-4
    warmup: int = 100
    final: float = 0.1
    """Learning rate at the end of the stage, as a share (cosine)."""
    betas: tuple[float, float] = (0.9, 0.99)
    shrink: int = 1
    """Pictures are pooled by this before everything but the detector, which always sees what the loader gives."""
    weights: LossWeights = field(default_factory=LossWeights)
    motion_only: bool = False
    """Only the detector and the motion basis learn, on how far keypoints miss the motion: no picture is made, which is
    many times quicker, and everything else rests on it. `noise` is then added to the fitted keypoints."""
    perceptual_side: int = 0
    """Pixels a side of the random square that the perceptual loss looks at; 0 is the whole picture."""
    only: str = ""
    """How the names of the parameters begin that learn, for example `decoder.up` or `basis_net`. The others keep still,
    and there are only the losses of the picture; of the motion, where `motion_only` says so."""
    fitted: float = 0.0
    """Share of the driving frames rebuilt from fitted keypoints, as a sender with time to spare sends them."""
    noise: float = 0.0
    """Largest error of driving places, as a quantiser makes it, when pictures are made."""
    keep_norms: bool = False
    """Batch norms use, and keep, what they have seen so far: a few large pictures are a poor sample of all."""
    validate_every: int = 500

    @property
    def wants_motion(self) -> bool:
        """Whether keypoints must be fitted to the flow."""
        return bool(self.fitted or self.weights.prior or self.weights.fit or self.weights.aligned)


@dataclass(frozen=True)
class TrainConfig:
    model: ModelConfig
    stages: tuple[Stage, ...]
    start: str | None = None
    """Name of a shipped model, or of one in another folder (with its path), whose weights the run starts from."""
    seed: int = 1
    cache_size: int = 256


def load_config(file: Path) -> TrainConfig:
    """Read a TOML config. Raises ValueError with the reason when it is wrong."""
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
    raw = dict(raw)
    plan = SamplePlan(**raw.pop("plan"))
    weights = LossWeights(**raw.pop("weights", {}))
    if "betas" in raw:
        raw["betas"] = tuple(raw["betas"])
    return Stage(plan=plan, weights=weights, **raw)


class Objective(nn.Module):
    """Network and losses as one module, so that DDP sees one forward."""

    def __init__(self, network: ImplicitWarp, perceptual: PerceptualLoss | None) -> None:
        super().__init__()
        self.network = network
        self.perceptual = perceptual

    def forward(self, batch: dict[str, Tensor], stage: Stage) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """-> losses by name, unweighted; rebuilt pictures (those of motion-only stages: the targets) and their targets
        (B * D, 3, H, W)."""
        if stage.motion_only:
            return self.of_motion(batch, stage)
        if stage.only:
            return self.of_pictures(batch, stage)
        network = self.network
        driving, sources = batch["driving"], batch["sources"]
        each, target = driving.shape[1], driving.flatten(0, 1)
        keypoints, of_sources, found = self.located(batch, stage)
        if stage.shrink > 1:
            target = F.avg_pool2d(target, stage.shrink)
            sources = F.avg_pool2d(sources.flatten(0, 1), stage.shrink).unflatten(0, sources.shape[:2])
        encoded = network.encode_sources(sources, of_sources)
        order, shift, error = leading_first(batch)
        repeated = Sources(*(arranged(part.repeat_interleave(each, 0), order) for part in encoded))
        side = network.side(target)
        fitted = keypoints
        if stage.wants_motion:
            known = Known(repeated.basis, repeated.keypoints, keypoints, shift, error, repeated.pictures[:, 0], target)
            fitted, losses_of_motion = self.solved(known, stage)
            found |= losses_of_motion
        out = network.generate(
            self.as_sent(keypoints, fitted, stage),
            repeated,
            dense=side <= 16,
            dropped=drop_region(repeated.keypoints, side) if self.training else None,
            want_logits=bool(stage.weights.match),
        )
        fine = min(side, data.GRID)
        taught_fine = losses.teach(shift, error, fine)
        found |= {
            "l1": (out.picture - target).abs().mean(),
            "base": (out.base - target).abs().mean(),
            "decibels": losses.decibel_loss(out.picture, target),
            "place": losses.place_loss(out.warp, taught_fine, fine),
            "choice": losses.choice_loss(out.warp, taught_fine, fine),
        }
        if out.coarse_logits is not None:
            taught = losses.teach(shift, error, side // 2)
            found["match"] = losses.match_loss(out.coarse_logits, taught, side // 2)
        if self.perceptual is not None and stage.weights.perceptual:
            found["perceptual"] = self.perceptual(*same_square(stage.perceptual_side, out.picture, target))
        return found, out.picture, target

    def of_motion(self, batch: dict[str, Tensor], stage: Stage) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """As `forward`, where no picture is made."""
        network, sources = self.network, batch["sources"]
        target, each = batch["driving"].flatten(0, 1), batch["driving"].shape[1]
        keypoints, of_sources, found = self.located(batch, stage)
        basis = network.motion_basis(sources.flatten(0, 1), of_sources.flatten(0, 1)).unflatten(0, sources.shape[:2])
        order, shift, error = leading_first(batch)
        basis, of_sources = (arranged(part.repeat_interleave(each, 0), order) for part in (basis, of_sources))
        first = arranged(sources.repeat_interleave(each, 0), order)[:, 0]
        known = Known(basis, of_sources, keypoints, shift, error, first, target)
        return found | self.solved(known, stage)[1], target, target

    def located(self, batch: dict[str, Tensor], stage: Stage) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """-> keypoints of the driving frames (B * D, K, 3) and of the sources (B, S, K, 3), what they cost."""
        network, sources, weights = self.network, batch["sources"], stage.weights
        target, each, groups = batch["driving"].flatten(0, 1), batch["driving"].shape[1], len(sources)
        size = network.config.detector_size
        keypoints, heat = network.detector.locate(torch.cat([fit(target, size), fit(sources.flatten(0, 1), size)]))
        of_driving, of_sources = keypoints.split([groups * each, groups * sources.shape[1]])
        found = {}
        if weights.landmark:
            known = [batch["driving_landmarks"].flatten(0, 1), batch["source_landmarks"].flatten(0, 1)]
            found["landmark"] = losses.landmark_loss(keypoints, heat, torch.cat(known))
        if weights.equivariance:
            moved, affine = self.moved(batch["driving"][:, 0])
            of_moved = network.detect(moved)
            found["equivariance"] = losses.equivariance_loss(of_moved, of_driving[::each], affine)
        return of_driving, of_sources.unflatten(0, sources.shape[:2]), found

    def solved(self, known: "Known", stage: Stage) -> tuple[Tensor, dict[str, Tensor]]:
        """-> keypoints as senders find them (B, K, 3), and what is missed by them and by the detected ones."""
        weights, noise = stage.weights, stage.noise if stage.motion_only else 0.0
        equations = fitting.equations(known.basis, known.shift, known.error)
        fitted = fitting.fit_keypoints(equations, known.detected, known.of_sources)
        sent = fitted + quantisation_noise(fitted, noise)
        found = {"fit": losses.miss_loss(fitting.missed(equations, sent, known.of_sources), equations.weights)}
        if weights.prior:
            missed = fitting.missed(equations, known.detected, known.of_sources)
            found["prior"] = losses.miss_loss(missed, equations.trusted)
        if stage.motion_only and not weights.aligned:
            return fitted, found
        basis, of_source = known.basis[:, 0], known.of_sources[:, 0]
        source, driving = alignment.grey(known.first), alignment.grey(known.driving)
        aligned = alignment.align(basis, of_source, source, driving, fitted)
        sent = aligned + quantisation_noise(aligned, noise)
        warped = alignment.warp(source, alignment.backward(basis, sent - of_source))
        found["aligned"] = losses.decibel_loss(warped / 255, driving / 255)
        return aligned, found

    def of_pictures(self, batch: dict[str, Tensor], stage: Stage) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """As `forward`, where nothing learns that is before the picture."""
        network, sources = self.network, batch["sources"]
        each, target = batch["driving"].shape[1], batch["driving"].flatten(0, 1)
        of_sources = network.detect(sources.flatten(0, 1)).unflatten(0, sources.shape[:2])
        encoded = network.encode_sources(sources, of_sources)
        detected = network.detect(target)
        order, shift, error = leading_first(batch)
        repeated = Sources(*(arranged(part.repeat_interleave(each, 0), order) for part in encoded))
        known = Known(repeated.basis, repeated.keypoints, detected, shift, error, repeated.pictures[:, 0], target)
        fitted, _ = self.solved(known, stage)
        picture = network.generate(self.as_sent(detected, fitted, stage), repeated).picture
        found = {"l1": (picture - target).abs().mean()}
        if self.perceptual is not None and stage.weights.perceptual:
            found["perceptual"] = self.perceptual(*same_square(stage.perceptual_side, picture, target))
        return found, picture, target

    def as_sent(self, detected: Tensor, fitted: Tensor, stage: Stage) -> Tensor:
        """Driving keypoints (B, K, 3) that pictures are made from."""
        chosen = torch.rand(len(detected), 1, 1, device=detected.device) < stage.fitted
        sent = torch.where(chosen, fitted.detach(), detected)
        return sent + quantisation_noise(sent, stage.noise)

    def moved(self, target: Tensor) -> tuple[Tensor, Tensor]:
        affine = losses.random_affine(target.shape[0], target)
        size = self.network.config.detector_size
        field = F.affine_grid(affine, [target.shape[0], 3, size, size], align_corners=False)
        return F.grid_sample(target, field, padding_mode="reflection", align_corners=False), affine


def leading_first(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """The order of the sources (B * D, S), the one first from which flow leaves the least error, as senders choose; and
    the batch's shifts and errors in that order."""
    shift, error = batch["shift"].flatten(0, 1), batch["error"].flatten(0, 1)
    order = error.clamp(max=MAX_ERROR).mean((2, 3)).argsort(1)
    return order, arranged(shift, order), arranged(error, order)


def arranged(of_sources: Tensor, order: Tensor) -> Tensor:
    """(B, S, ...) in another order (B, S)."""
    return of_sources[torch.arange(len(order), device=order.device)[:, None], order]


def quantisation_noise(keypoints: Tensor, most: float) -> Tensor:
    """Errors of keypoints (B, K, 3), those of places up to `most`."""
    return (torch.rand_like(keypoints) * 2 - 1) * keypoints.new_tensor([1, 1, STRENGTH_NOISE]) * most


class Known(NamedTuple):
    """Of driving frames and their sources, the first of which leads, what keypoints are found by."""

    basis: Tensor  # (B, S, b, 3 K)
    of_sources: Tensor  # (B, S, K, 3)
    detected: Tensor  # (B, K, 3)
    shift: Tensor  # (B, S, G, G, 2)
    error: Tensor  # (B, S, G, G)
    first: Tensor  # (B, 3, H, W)
    driving: Tensor  # (B, 3, H, W)


def same_square(side: int, *pictures: Tensor) -> list[Tensor]:
    """A square at one random place of all pictures (B, 3, H, W); they themselves where `side` is 0."""
    height, width = pictures[0].shape[-2:]
    if not side:
        return list(pictures)
    top, left = (int(torch.randint(room - side + 1, ())) for room in (height, width))
    return [picture[..., top : top + side, left : left + side] for picture in pictures]


def drop_region(keypoints: Tensor, side: int) -> Tensor:
    """Semantic dropout (paper, section 3.2): hide what lies around one keypoint in every source of a few samples."""
    from iwcodec.models.network.geometry import cell_centres, squared_distances

    batch, count, total, _ = keypoints.shape
    centre = torch.randint(total, (batch, 1, 1, 1), device=keypoints.device).expand(-1, count, 1, 3)
    place = keypoints.detach().gather(2, centre).flatten(0, 1)
    distance = squared_distances(cell_centres(side, keypoints), place)[:, 0].unflatten(0, (batch, count))
    chosen = torch.rand(batch, 1, 1, device=keypoints.device) < DROP_CHANCE
    return (distance < DROP_RADIUS**2) & chosen


class Run:
    """A training run: what a checkpoint holds, and the loop."""

    def __init__(self, config: TrainConfig, folder: Path, device: str) -> None:
        torch.manual_seed(config.seed)
        self.config, self.folder, self.device = config, folder, torch.device(device)
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.network = ImplicitWarp(config.model).to(self.device)
        if config.start is not None:
            named = Path(config.start)
            self.begin_with(load_weights(named.name, WEIGHTS / named.parent)[1], config.start)
        self.network = self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster on CPUs
        self.average = copy.deepcopy(self.network).requires_grad_(False).eval()
        wants_features = any(stage.weights.perceptual for stage in config.stages)
        self.objective = Objective(self.network, PerceptualLoss().to(self.device) if wants_features else None)
        self.discriminator: PatchDiscriminator | None = None
        if any(stage.weights.adversarial for stage in config.stages):
            self.discriminator = PatchDiscriminator().to(self.device)
        self.optimizer = torch.optim.Adam(parameter_groups(self.network))
        self.critic_optimizer = (
            torch.optim.Adam(self.discriminator.parameters(), 2e-4, (0.5, 0.999)) if self.discriminator else None
        )
        self.stage, self.step = 0, 0
        self.asked: list[int] = []
        """Signals to stop that came in the middle of a step."""
        self.losses: dict[str, float] = {}
        """Running means of the stage, unweighted."""
        self.scores: list[Score] = []
        """Of the last validation."""
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "checkpoint.pt").exists():
            self.load(folder / "checkpoint.pt")

    @property
    def sample_seed(self) -> int:
        """Of a stage and a process."""
        return self.config.seed + 1000 * self.stage + 31 * self.rank

    def load(self, file: Path) -> None:
        """Raises ValueError where the checkpoint is damaged, or of another network."""
        state = load_state(file, self.device)
        if ModelConfig.from_dict(state["model"]) != self.config.model:
            raise ValueError(f"{file} is of another network than this config's: use another run folder")
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.discriminator is not None and self.critic_optimizer is not None and "discriminator" in state:
            self.discriminator.load_state_dict(state["discriminator"])
            self.critic_optimizer.load_state_dict(state["critic_optimizer"])
        self.stage, self.step = state["stage"], state["step"]

    def begin_with(self, weights: dict[str, Tensor], name: str) -> None:
        """What is new in the network since those weights were made, or of another shape, starts from nothing."""
        own = self.network.state_dict()
        unknown = weights.keys() - own.keys()
        if unknown:
            raise ValueError(f"{name} has weights of other parts: {', '.join(sorted(unknown))}")
        self.network.load_state_dict(own | {k: v for k, v in weights.items() if v.shape == own[k].shape})

    def save(self) -> None:
        if self.rank:
            return
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "stage": self.stage,
            "step": self.step,
            "model": self.config.model.to_dict(),
        }
        if self.discriminator is not None and self.critic_optimizer is not None:
            state["discriminator"] = self.discriminator.state_dict()
            state["critic_optimizer"] = self.critic_optimizer.state_dict()
        partial = self.folder / "checkpoint.partial"
        torch.save(state, partial)
        partial.replace(self.folder / "checkpoint.pt")

    def log(self, text: str) -> None:
        if self.rank:
            return
        print(text, file=sys.stderr, flush=True)
        with (self.folder / "log.txt").open("a") as file:
            file.write(text + "\n")

    def choose_learners(self, stage: Stage) -> None:
        """Only these parameters get gradients. Raises ValueError where there are none."""
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(name.startswith(stage.only))
        if not any(parameter.requires_grad for parameter in self.network.parameters()):
            raise ValueError(f"no parameter of {self.config.model.name} begins with {stage.only!r}")

    def train_step(self, objective: nn.Module, batch: dict[str, Tensor], stage: Stage) -> dict[str, float]:
        """One optimiser step -> unweighted losses."""
        weights = stage.weights
        # By the step, on every device and in every process alike: no state of a generator is to be kept.
        torch.manual_seed(self.sample_seed * 10**7 + self.step)
        rate = learning_rate(stage, self.step)
        for group in self.optimizer.param_groups:
            group["lr"], group["betas"] = rate * group["scale"], stage.betas
        self.network.eval()
        for name, module in self.network.named_modules():
            if name.startswith(stage.only):
                module.train()
        if stage.keep_norms:
            keep_norms(self.network)
        found, rebuilt, target = objective(batch, stage)
        if self.discriminator is not None and weights.adversarial:
            self.discriminator.requires_grad_(False)
            score, features = self.discriminator(rebuilt)
            found["adversarial"] = -score.mean()
            found["feature_matching"] = feature_matching_loss(self.discriminator(target)[1], features)
            self.discriminator.requires_grad_(True)
        total = torch.stack([getattr(weights, name) * value for name, value in found.items()]).sum()
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        if torch.isfinite(norm):
            self.optimizer.step()
        if self.discriminator is not None and self.critic_optimizer is not None and weights.adversarial:
            found["critic"] = self.critic_step(target, rebuilt.detach())
        self.update_average()
        return {name: float(value.detach()) for name, value in found.items()} | {"total": float(total.detach())}

    def critic_step(self, real: Tensor, fake: Tensor) -> Tensor:
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
        """Moving average of the weights, which is what gets validated and shipped; quicker while young."""
        keep = min(EMA, (1 + self.step) / (10 + self.step)) if self.stage == 0 else EMA
        for slow, fast in zip(self.average.parameters(), self.network.parameters(), strict=True):
            slow.lerp_(fast, 1 - keep)
        for kept, seen in zip(self.average.buffers(), self.network.buffers(), strict=True):
            kept.copy_(seen)


def parameter_groups(network: ImplicitWarp) -> list[dict[str, Any]]:
    """The few numbers that rule the attention (the geometric prior's, temperature, focus) are logarithms with a long
    way to go; an optimiser that moves everything at one pace leaves them where they started."""
    ruling = [p for name, p in network.named_parameters() if name.startswith(("prior.", "log_"))]
    others = [p for name, p in network.named_parameters() if not name.startswith(("prior.", "log_"))]
    return [{"params": others, "scale": 1.0}, {"params": ruling, "scale": RULING_PACE}]


def keep_norms(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def learning_rate(stage: Stage, step: int) -> float:
    """Linear warm-up, then cosine to `final`."""
    warm = min(1.0, (step + 1) / max(1, stage.warmup))
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / stage.steps)))
    return stage.learning_rate * warm * (stage.final + (1 - stage.final) * cosine)


@dataclass(frozen=True)
class TrainReport:
    """What a call of `train` did."""

    checkpoint: str
    finished: bool
    """Otherwise it was stopped, and the same command goes on."""
    stage: int
    """Of those done, and of the one it was stopped in; from 1."""
    steps: int
    """Optimiser steps of this call."""
    seconds: float
    losses: dict[str, float]
    """Running means of the last stage that was trained, unweighted; those of this process."""
    validation: dict[str, dict[str, float | None]]
    """Of the last validation, by number of sources: means over the clips, dB (see evaluate.Score)."""


def train(
    config: TrainConfig, folder: Path, cache: Path, out: Path, device: str = "cpu", workers: int = 1
) -> TrainReport:
    """Run the stages that are not done yet, as one of several processes where torchrun started them: then each has its
    share of the clips, the first alone writes, and with `device` cuda each has the GPU of its number (LOCAL_RANK).

    Raises ValueError where there is nothing to train on, or no such device."""
    for number in STOPS:  # a run started in the background ignores Ctrl-C otherwise
        signal.signal(number, signal.default_int_handler)
    began, steps = time.monotonic(), 0
    device = own_device(device)
    distributed = "RANK" in os.environ
    if distributed:
        dist.init_process_group("nccl" if torch.device(device).type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        run = Run(config, out, device)
        clips = own_share(find_clips(folder, size=config.cache_size))
        prepared = prepare_all(clips, cache, config.cache_size, run)
        validation = load_validation(folder, config.model.size) if run.rank == 0 else {}
        try:
            while run.stage < len(config.stages):
                steps -= run.step
                try:
                    run_stage(run, config.stages[run.stage], prepared, validation, workers)
                finally:
                    steps += run.step
                run.stage, run.step = run.stage + 1, 0
                run.save()
        except KeyboardInterrupt:
            run.save()
            run.log(f"stopped at stage {run.stage + 1}, step {run.step}; run the same command to go on")
    finally:
        if distributed:
            dist.destroy_process_group()
    return TrainReport(
        checkpoint=str(out / "checkpoint.pt"),
        finished=run.stage == len(config.stages),
        stage=min(run.stage + 1, len(config.stages)),
        steps=steps,
        seconds=round(time.monotonic() - began, 1),
        losses=run.losses,
        validation=means(run.scores),
    )


def own_device(device: str) -> str:
    """The device of this process: of several on one machine, each has the GPU of its number. Raises ValueError."""
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise ValueError(f"there is no device {device!r}: cpu or cuda") from error
    if kind != "cuda":
        return device
    if not torch.cuda.is_available():
        raise ValueError("PyTorch finds no CUDA device here: train with --device cpu")
    if "LOCAL_RANK" not in os.environ:
        return device
    own, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if own >= there:
        raise ValueError(f"process {own + 1} of this machine has no GPU of its own, there are {there}")
    torch.cuda.set_device(own)
    return f"cuda:{own}"


def own_share(clips: list[data.Clip]) -> list[data.Clip]:
    """Of several processes each prepares, and trains on, its own clips. Raises ValueError where there are too few."""
    if not dist.is_initialized():
        return clips
    count = dist.get_world_size()
    if len(clips) < count:
        raise ValueError(f"{len(clips)} clips cannot be shared out among {count} processes")
    return clips[dist.get_rank() :: count]


@contextmanager
def unbroken(run: Run) -> Iterator[None]:
    """Ctrl-C waits for the end of what is inside: half a step is neither to be saved nor to be gone on from. Of several
    processes all stop as soon as one was asked to, after the same step: none is left waiting for another."""
    before = {number: signal.signal(number, lambda number, _: run.asked.append(number)) for number in STOPS}
    try:
        yield
        stop = torch.tensor(float(bool(run.asked)), device=run.device)
        if dist.is_initialized():
            dist.all_reduce(stop, dist.ReduceOp.MAX)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if stop:
        raise KeyboardInterrupt


def starting_processes() -> str:
    """How: a process forked once OpenMP has run, as it has after the first stage, may hang for ever."""
    return "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


def ignore_interrupts(_: int) -> None:
    """A terminal's Ctrl-C reaches the processes that load, too: the step that is waited for needs them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def prepare_all(clips: list[data.Clip], cache: Path, size: int, run: Run) -> list[PreparedClip]:
    prepared = []
    for number, clip in enumerate(clips):
        ready = prepare(clip, cache, size)
        if ready is not None:
            prepared.append(ready)
        if number % 50 == 49:
            run.log(f"prepared {number + 1} of {len(clips)} clips")
    if not prepared:
        raise ValueError("every clip is too short: at least 8 frames are needed")
    return prepared


def load_validation(folder: Path, size: int) -> dict[str, Any]:
    """A few frames (n, size, size, 3) of val clips by name, of at most MAX_VALIDATED; empty where there are none."""
    try:
        found = find_clips(folder, "val", size)
    except ValueError:
        return {}
    every = math.ceil(len(found) / MAX_VALIDATED)
    loaded = {clip.name: load_clip(clip, size, 9) for clip in found[::every]}
    return {name: pictures for name, pictures in loaded.items() if len(pictures) >= data.SHORTEST}


def run_stage(run: Run, stage: Stage, clips: list[PreparedClip], validation: dict[str, Any], workers: int) -> None:
    samples = Samples(clips, stage.plan, run.sample_seed, run.step)
    loader = DataLoader(
        samples,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=3 if workers else None,
        multiprocessing_context=starting_processes() if workers else None,
        worker_init_fn=ignore_interrupts if workers else None,
    )
    stream: Iterator[dict[str, Tensor]] = iter(loader)
    run.choose_learners(stage)
    if run.objective.perceptual is not None and stage.weights.perceptual:
        run.log(f"{stage.name}: perceptual loss on the features of {run.objective.perceptual.source}")
    objective: nn.Module = run.objective
    if dist.is_initialized():
        objective = DistributedDataParallel(run.objective, find_unused_parameters=True)
    per_step = stage.plan.groups * stage.plan.driving
    started, first, saved = time.monotonic(), run.step, time.monotonic()
    run.losses = {}
    while run.step < stage.steps:
        with unbroken(run):
            batch = {key: value.to(run.device, non_blocking=True) for key, value in next(stream).items()}
            found = run.train_step(objective, batch, stage)
            run.step += 1
        keep = min(0.98, 1 - 1 / (run.step - first))
        run.losses = {k: keep * run.losses.get(k, v) + (1 - keep) * v for k, v in found.items()}
        if run.step % 50 == 0:
            rate = (run.step - first) / (time.monotonic() - started)
            left = (stage.steps - run.step) / rate
            parts = " ".join(f"{k} {v:.4f}" for k, v in run.losses.items())
            run.log(
                f"{stage.name} {run.step}/{stage.steps} {parts} | {rate * per_step:.1f} samples/s, "
                f"{left / 60:.0f} min left"
            )
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            run.save()
            saved = time.monotonic()
        if validation and (run.step % stage.validate_every == 0 or run.step == stage.steps):
            validate(run, stage, validation)


def validate(run: Run, stage: Stage, clips: dict[str, Any]) -> None:
    size = stage.plan.size // stage.shrink
    shrunk = {name: np.stack([data.square(p, stage.plan.size) for p in pictures]) for name, pictures in clips.items()}
    scores = run.scores = evaluate(run.average, shrunk, (1, 3), size)
    run.log(f"val {stage.name} {run.step} at {size}: {summary(scores)}")
    record = {"stage": stage.name, "step": run.step, "size": size, "scores": [vars(s) for s in scores]}
    with (run.folder / "val.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")
    some = dict(list(shrunk.items())[:: max(1, len(shrunk) // 6)])
    picture_grid(run.average, some, size, run.folder / f"grid-{stage.name}-{run.step:06d}.png")
