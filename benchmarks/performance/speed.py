"""`iwcodec bench speed`: how long each stage takes on this machine, beside dense attention and SVT-AV1 in the same run.

Every stage is called as the codec calls it, on pictures and motion of the bundled clip. Run it on an idle machine.
"""

import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from iwcodec.benchmarks import experiment
from iwcodec.benchmarks.performance.frame_profile import profile_frames
from iwcodec.benchmarks.performance.memory import peak_mb, resident_mb
from iwcodec.benchmarks.performance.speed_stages import (
    attentions,
    av1,
    capturing,
    dense_missing,
    library_of,
    motion_decoding,
    receiving,
    sending,
    source_coding,
)
from iwcodec.benchmarks.performance.stages import WARM, Stage, summarised, timed
from iwcodec.benchmarks.performance.threads import pinned
from iwcodec.codec.errors import CodecError
from iwcodec.codec.file.clip import open_footage
from iwcodec.codec.file.options import EncodeOptions, Progress
from iwcodec.codec.media.video import sample_clip
from iwcodec.codec.sources.library import ACTIVE
from iwcodec.codec.terminal import JSON, progress_bar
from iwcodec.models.runtime.load import load_runtime
from iwcodec.models.runtime.types import Runtime
from iwcodec.models.runtime.weights import DEFAULT_MODEL

SOURCES = (1, 3, 8, 16)
"""Sizes of the source library that are measured; up to ACTIVE of its sources enter attention."""


def command(
    frames: Annotated[int, typer.Option(help="Repeats of every stage.", min=10)] = 100,
    threads: Annotated[int | None, typer.Option(help="Threads of every pool; default: as in the codec.", min=1)] = None,
    runtime: Annotated[str, typer.Option(help="auto, onnx, torch or cuda.")] = "auto",
    model: Annotated[str, typer.Option(help="Name of a shipped model.")] = DEFAULT_MODEL,
    dense: Annotated[int, typer.Option(help="Repeats of dense attention, about 1 s each; 0: skip.", min=0)] = 10,
    out: Annotated[Path, typer.Option(help="Folder for speed.json.")] = Path("bench"),
    as_json: JSON = False,
) -> None:
    """Milliseconds of every stage of sender and receiver, with 1, 3, 8 and 16 sources in the library."""
    try:
        loaded = load_runtime(model, runtime, threads)
    except (ValueError, ImportError, FileNotFoundError) as error:
        raise CodecError(f"{model} cannot be used with the runtime {runtime}: {error}.") from error
    with progress_bar(as_json) as progress:
        results = run(loaded, frames, threads, progress, dense)
    experiment.publish(results, out / "speed.json", as_json, *tables(results))


def run(runtime: Runtime, frames: int, threads: int | None, progress: Progress, dense: int = 0) -> dict[str, Any]:
    """All measurements, as in speed.json. Memory is that of the codec with its input pictures."""
    threads = threads or default_threads()
    with pinned(threads):
        return measure(runtime, frames, threads, progress, dense)


def measure(runtime: Runtime, frames: int, threads: int, progress: Progress, dense: int) -> dict[str, Any]:
    """`run`, with the thread pools already pinned to `threads`."""
    memory = {"loaded": resident_mb()}
    video = open_footage(sample_clip(), EncodeOptions(runtime.info.size), lambda name, share: None)
    once = list(video.pictures())
    pictures = list(itertools.islice(itertools.cycle([*once, *once[::-1]]), frames + WARM))
    keypoints = [runtime.detect(picture) for picture in pictures]

    def profiled(count: int) -> Iterable[Stage]:
        spent = profile_frames(
            runtime, threads, lambda other: library_of(other, pictures, count).reconstruct, keypoints
        )
        return [summarised(name, seconds, count) for name, seconds in spent.items()]

    own: list[Callable[[], Iterable[Stage]]] = [
        lambda: capturing(video.read, len(pictures)),
        *(partial(sending, runtime, pictures, video.crops[0], count) for count in SOURCES),
        lambda: [motion_decoding(np.stack(keypoints))],
        lambda: source_coding(pictures),
        lambda: [timed("source preparation", runtime.prepare, pictures)],
        *(partial(receiving, runtime, pictures, keypoints, count) for count in SOURCES),
    ]
    stages = run_in_turn("the codec", own, progress)
    memory["measured"] = resident_mb()
    memory["peak"] = peak_mb()  # what follows is not the codec and needs more
    missing = "left out" if not dense else dense_missing()
    others: list[Callable[[], Iterable[Stage]]] = [
        *(partial(profiled, count) for count in SOURCES),
        lambda: av1(pictures),
        lambda: [] if missing else attentions(runtime.info.model_id, threads, pictures, dense),
    ]
    stages += run_in_turn("profile, and other codecs", others, progress)
    return {
        **experiment.surroundings(),
        "what": "speed",
        "model": {"id": runtime.info.model_id, "digest": runtime.info.digest.hex()},
        "runtime": type(runtime).__name__,
        "device": runtime.device,
        "threads": threads,
        "size": runtime.info.size,
        "active": ACTIVE,
        "stages": [asdict(stage) for stage in stages],
        "dense_missing": missing,
        "memory_mb": {name: round(value, 1) for name, value in memory.items()},
    }


def run_in_turn(name: str, work: Sequence[Callable[[], Iterable[Stage]]], progress: Progress) -> list[Stage]:
    """The stages that each of the measurements yields, in order."""
    stages: list[Stage] = []
    for number, task in enumerate(work):
        progress(name, number / len(work))
        stages += task()
    return stages


def default_threads() -> int:
    """OnnxRuntime's default."""
    return min(4, os.cpu_count() or 1)


def tables(results: dict[str, Any]) -> list[Table]:
    """Everything that was measured."""
    title = f"{results['runtime']}, threads: {results['threads']}, {results['size']}x{results['size']}"
    if results["dense_missing"] is not None:
        title += f"; dense attention: {results['dense_missing']}"
    keys = ("p50_ms", "p95_ms", "p99_ms", "per_s")
    stages = (
        [row["stage"], str(row["sources"] or ""), *(f"{row[key]:.2f}" for key in keys)] for row in results["stages"]
    )
    memory = ((name, f"{value:.0f}") for name, value in results["memory_mb"].items())
    return [
        experiment.text_table(title, ("", "sources", "p50 ms", "p95 ms", "p99 ms", "per s"), stages),
        experiment.text_table("Memory", ("", "MB"), memory),
    ]
