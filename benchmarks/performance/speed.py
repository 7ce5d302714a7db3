"""`iwcodec bench speed`: how long each stage takes on this machine, beside dense attention and SVT-AV1 in the same run.

Every stage is called as the codec calls it, on pictures and motion of the bundled clip. Run it on an idle machine.
"""

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from iwcodec.benchmarks import experiment
from iwcodec.benchmarks.performance.frame_profile import Profile, profile_frames
from iwcodec.benchmarks.performance.memory import peak_mb, resident_mb
from iwcodec.benchmarks.performance.speed_stages import (
    DENSE_SOURCES,
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
from iwcodec.benchmarks.performance.threads import pinned, pools
from iwcodec.codec.cli import JSON, progress_bar
from iwcodec.codec.errors import CodecError
from iwcodec.codec.file.clip import open_footage
from iwcodec.codec.file.options import EncodeOptions, Progress
from iwcodec.codec.media.video import sample_clip
from iwcodec.codec.sources.library import ACTIVE
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
    profiles: dict[int, Profile | None] = {}

    def profiled(count: int) -> Iterable[Stage]:
        profile = profile_frames(
            runtime, threads, lambda other: library_of(other, pictures, count).reconstruct, keypoints
        )
        profiles[count] = profile
        return profiled_stages(profile, count)

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
    threads_of = pools(runtime, threads)
    stages += run_in_turn("profile, and other codecs", others, progress)
    return {
        **experiment.surroundings(),
        "what": "speed",
        "model": {"id": runtime.info.model_id, "digest": runtime.info.digest.hex()},
        "runtime": type(runtime).__name__,
        "device": runtime.device,
        "threads": threads,
        "pools": threads_of,
        "size": runtime.info.size,
        "active": ACTIVE,
        "stages": [asdict(stage) for stage in stages],
        "parts": [part for count, profile in profiles.items() if profile for part in parts(profile, count)],
        "sums": [sum_of(profile, stages, count) for count, profile in profiles.items() if profile],
        "ratios": ratios(stages),
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


def profiled_stages(profile: Profile | None, count: int) -> Iterator[Stage]:
    """The stages of a profile with `count` sources; none without a profile."""
    for name, seconds in (profile.stages if profile else {}).items():
        yield summarised(name, seconds, count)


def parts(profile: Profile, count: int) -> Iterator[dict[str, Any]]:
    """Mean milliseconds per frame and share of each profiled stage, and of the rest."""
    total = profile.frames.mean()
    for part, seconds in {**profile.stages, "rest": profile.rest()}.items():
        ms, share = float(seconds.mean()) * 1e3, float(seconds.mean() / total)
        yield {"part": part, "sources": count, "ms": round(ms, 3), "share": round(share, 4)}


def sum_of(profile: Profile, stages: Sequence[Stage], count: int) -> dict[str, Any]:
    """Means in ms: the sum of the stages, the profiled frames, and frames without the profiler."""
    unprofiled = next(stage for stage in stages if (stage.stage, stage.sources) == ("rebuilding a frame", count))
    profiled_s = float(profile.frames.mean())
    return {
        "sources": count,
        "stages_ms": round((profiled_s - float(profile.rest().mean())) * 1e3, 3),
        "watched_ms": round(profiled_s * 1e3, 3),
        "unwatched_ms": round(1e3 / unprofiled.per_s, 3),
    }


def ratios(stages: Sequence[Stage]) -> dict[str, float]:
    """Ratios of median times, by description."""
    of = {(stage.stage, stage.sources): stage.p50_ms for stage in stages}
    result = {}
    for count in SOURCES:
        sources = f"{count} source{'s' * (count > 1)}"
        receiver = of["motion decoding", None] + of["rebuilding a frame", count]
        result[f"receiver ({sources}) / AV1 decoding"] = receiver / of["AV1 decoding (dav1d)", None]
        result[f"sender ({sources}) / SVT-AV1 encoding"] = of["a frame, sent", count] / of["SVT-AV1 encoding", None]
    result["source coding / SVT-AV1 encoding"] = of["source coding", None] / of["SVT-AV1 encoding", None]
    for count in DENSE_SOURCES:
        if ("dense attention alone", count) in of:
            dense = of["dense attention alone", count]
            result[f"dense attention / ours (all of {count})"] = dense / of["sparse attention alone", count]
            if count > ACTIVE:
                used = of["sparse attention alone", ACTIVE]
                result[f"dense attention / ours (all of {count} / the {ACTIVE} in use)"] = dense / used
    return {name: round(ratio, 3) for name, ratio in result.items()}


def tables(results: dict[str, Any]) -> list[Table]:
    """Everything that was measured."""
    title = f"{results['runtime']}, threads: {results['threads']}, {results['size']}x{results['size']}"
    quantiles, means = ("p50_ms", "p95_ms", "p99_ms", "per_s"), ("stages_ms", "watched_ms", "unwatched_ms")
    stages = (
        [row["stage"], str(row["sources"] or ""), *(f"{row[key]:.2f}" for key in quantiles)]
        for row in results["stages"]
    )
    inside = ((row["part"], str(row["sources"]), f"{row['ms']:.2f}", f"{row['share']:.0%}") for row in results["parts"])
    sums = ([str(row["sources"]), *(f"{row[key]:.2f}" for key in means)] for row in results["sums"])
    factors = [(name, f"{ratio:.2f}") for name, ratio in results["ratios"].items()]
    if results["dense_missing"] is not None:
        factors.append(("dense attention", results["dense_missing"]))
    threads = ((name, str(count)) for name, count in results["pools"].items())
    memory = ((name, f"{value:.0f}") for name, value in results["memory_mb"].items())
    return [
        experiment.text_table(title, ("", "sources", "p50 ms", "p95 ms", "p99 ms", "per s"), stages),
        experiment.text_table("Reconstruction of a frame", ("", "sources", "ms", "share"), inside),
        experiment.text_table("Means, ms", ("sources", "sum of stages", "profiled frame", "unprofiled frame"), sums),
        experiment.text_table("Ratios of medians", ("", "times"), factors),
        experiment.text_table("Threads", ("", "number"), threads),
        experiment.text_table("Memory", ("", "MB"), memory),
    ]
