"""Training: `iwcodec train CONFIG --data FOLDER`, on one CPU, one GPU or many (torchrun).

The configuration (config.py) lists stages, which run in order. The run folder holds the last checkpoint (written every
few minutes and on SIGINT or SIGTERM), a log, and a grid of pictures for every validation. Running the same command
again resumes. Samples and noise of a step depend only on the seed and the step number, so a resumed run takes exactly
the steps of an uninterrupted one.
"""

import json
import math
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from iwcodec.models.training.config import Stage, TrainConfig
from iwcodec.models.training.data.clips import Clip, find_clips
from iwcodec.models.training.data.frames import square
from iwcodec.models.training.data.prepare import SHORTEST, PreparedClip, prepare
from iwcodec.models.training.data.samples import Samples
from iwcodec.models.training.evaluate import evaluate, load_clip, means, picture_grid, summary
from iwcodec.models.training.run import Run

CHECKPOINT_SECONDS = 240
"""Time between two checkpoints."""
MAX_VALIDATED = 32
"""Largest number of validation clips, evenly spaced in the validation split; public data sets have thousands."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Signals that stop a run after the current step, with a checkpoint."""
PROCESS_TIMEOUT = timedelta(hours=2)
"""Time for which processes wait for each other. One may have more clips to prepare, and the first validates alone."""


@dataclass(frozen=True)
class TrainReport:
    """Result of a call of `train`."""

    checkpoint: str
    finished: bool
    """False if the run was stopped; the same command resumes it."""
    stage: int
    """Number, from 1, of the last stage or of the stage in which the run was stopped."""
    steps: int
    """Optimiser steps taken in this call."""
    seconds: float
    losses: dict[str, float]
    """Running means of the losses of the last trained stage in this process, unweighted."""
    validation: dict[str, dict[str, float | None]]
    """Means over the clips of the last validation by number of sources; see evaluate.Score."""


def train(
    config: TrainConfig, folder: Path, cache: Path, out: Path, device: str = "cpu", workers: int = 1
) -> TrainReport:
    """Run the remaining stages on the clips in `folder`, with decoded clips in `cache` and the run in `out`.

    Under torchrun each process trains on its share of the clips, only the first process writes, and with `device` cuda
    each process uses the GPU of its LOCAL_RANK. Raises ValueError if there are no clips or no such device."""
    for number in STOP_SIGNALS:  # otherwise a run in the background ignores SIGINT
        signal.signal(number, signal.default_int_handler)
    began, steps = time.monotonic(), 0
    device = process_device(device)
    distributed = "RANK" in os.environ
    if distributed:
        dist.init_process_group("nccl" if torch.device(device).type == "cuda" else "gloo", timeout=PROCESS_TIMEOUT)
    try:
        run = Run(config, out, device)
        clips = process_clips(find_clips(folder, size=config.cache_size))
        prepared = prepare_all(clips, cache, config.cache_size, run)
        validation = load_validation(folder, config.model.size) if run.rank == 0 and not config.baseline else {}
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
            run.log(f"stopped at stage {run.stage + 1}, step {run.step}; run the same command to resume")
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


def process_device(device: str) -> str:
    """Return the device of this process; under torchrun, the GPU of its LOCAL_RANK.

    Raises ValueError if the device does not exist."""
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
    rank, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if rank >= gpus:
        raise ValueError(f"process {rank + 1} of this machine has no GPU of its own, there are {gpus}")
    torch.cuda.set_device(rank)
    return f"cuda:{rank}"


def process_clips(clips: list[Clip]) -> list[Clip]:
    """Return the clips that this process prepares and trains on. Raises ValueError if there are fewer clips than
    processes."""
    if not dist.is_initialized():
        return clips
    count = dist.get_world_size()
    if len(clips) < count:
        raise ValueError(f"{len(clips)} clips cannot be divided among {count} processes")
    return clips[dist.get_rank() :: count]


@contextmanager
def defer_signals(run: Run) -> Iterator[None]:
    """Defer SIGINT and SIGTERM until the end of the context, so that no step is interrupted half-way, then raise
    KeyboardInterrupt. If one of several processes received a signal, all of them raise after the same step, so that
    none waits for another."""
    before = {
        number: signal.signal(number, lambda number, _: run.stop_signals.append(number)) for number in STOP_SIGNALS
    }
    try:
        yield
        stop = torch.tensor(float(bool(run.stop_signals)), device=run.device)
        if dist.is_initialized():
            dist.all_reduce(stop, dist.ReduceOp.MAX)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if stop:
        raise KeyboardInterrupt


def start_method() -> str:
    """Return the multiprocessing start method. A process forked after OpenMP has run may hang, so `fork` is not
    used."""
    return "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


def ignore_interrupts(_: int) -> None:
    """Ignore a terminal's Ctrl-C in loader processes: the step in progress still needs them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def prepare_all(clips: list[Clip], cache: Path, size: int, run: Run) -> list[PreparedClip]:
    """Decode the clips into the cache. Raises ValueError if none is long enough."""
    prepared = []
    for number, clip in enumerate(clips):
        ready = prepare(clip, cache, size)
        if ready is not None:
            prepared.append(ready)
        if number % 50 == 49:
            run.log(f"prepared {number + 1} of {len(clips)} clips")
    if not prepared:
        raise ValueError(f"every clip is too short: at least {SHORTEST} frames are needed")
    return prepared


def load_validation(folder: Path, size: int) -> dict[str, Any]:
    """Load frames (n, size, size, 3) of at most MAX_VALIDATED validation clips, by name; empty if there are none."""
    try:
        clips = find_clips(folder, "val", size)
    except ValueError:
        return {}
    every = math.ceil(len(clips) / MAX_VALIDATED)
    loaded = {clip.name: load_clip(clip, size, 9) for clip in clips[::every]}
    return {name: pictures for name, pictures in loaded.items() if len(pictures) >= SHORTEST}


def run_stage(run: Run, stage: Stage, clips: list[PreparedClip], validation: dict[str, Any], workers: int) -> None:
    """Run one stage from the current step to its end."""
    samples = Samples(clips, stage.plan, run.sample_seed, run.step)
    loader = DataLoader(
        samples,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=3 if workers else None,
        multiprocessing_context=start_method() if workers else None,
        worker_init_fn=ignore_interrupts if workers else None,
    )
    stream: Iterator[dict[str, Tensor]] = iter(loader)
    run.set_trainable(stage)
    if run.objective.perceptual is not None and stage.weights.perceptual:
        run.log(f"{stage.name}: perceptual loss on the features of {run.objective.perceptual.source}")
    objective: nn.Module = run.objective
    if dist.is_initialized():
        objective = DistributedDataParallel(run.objective, find_unused_parameters=True)
    per_step = stage.plan.groups * stage.plan.driving
    started, first, saved = time.monotonic(), run.step, time.monotonic()
    run.losses = {}
    while run.step < stage.steps:
        with defer_signals(run):
            batch = {key: value.to(run.device, non_blocking=True) for key, value in next(stream).items()}
            step_losses = run.train_step(objective, batch, stage)
            run.step += 1
        keep = min(0.98, 1 - 1 / (run.step - first))
        run.losses = {k: keep * run.losses.get(k, v) + (1 - keep) * v for k, v in step_losses.items()}
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
    """Evaluate the averaged network; append the scores to `val.jsonl` and write a grid of pictures."""
    size = stage.plan.size // stage.shrink
    scaled = {name: np.stack([square(p, stage.plan.size) for p in pictures]) for name, pictures in clips.items()}
    scores = run.scores = evaluate(run.average, scaled, (1, 3), size)
    run.log(f"val {stage.name} {run.step} at {size}: {summary(scores)}")
    record = {"stage": stage.name, "step": run.step, "size": size, "scores": [vars(s) for s in scores]}
    with (run.folder / "val.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")
    some = dict(list(scaled.items())[:: max(1, len(scaled) // 6)])
    picture_grid(run.average, some, size, run.folder / f"grid-{stage.name}-{run.step:06d}.png")
