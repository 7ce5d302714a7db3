"""`iwcodec bench speed`: how long each stage takes on this machine, beside dense attention and SVT-AV1 in the same run.

Every stage is called as the codec calls it, on the bundled clip's own pictures and motion, alone on the machine if it
is to mean anything.
"""

import itertools
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import av
import numpy as np
import typer
from numpy.typing import NDArray
from rich.table import Table

from iwcodec.benchmarks import experiment
from iwcodec.benchmarks.performance.stages import WARM, Split, Stage, pinned, pools, split, summarised, timed
from iwcodec.benchmarks.quality.rivals import encode_rival
from iwcodec.codec.bitstream.packets import MotionPacket, SourcePacket
from iwcodec.codec.cli import JSON, console, progress_bar
from iwcodec.codec.decoder import Decoder
from iwcodec.codec.encoder import Encoder, EncoderSettings
from iwcodec.codec.errors import CodecError
from iwcodec.codec.extras import install
from iwcodec.codec.file.clip import EncodeOptions, Progress, frame_input
from iwcodec.codec.fit.keypoint_fit import live_fit
from iwcodec.codec.media.crop_tracking import Crop, crop_resize
from iwcodec.codec.media.face_detector import DETECT_EVERY, FaceDetector
from iwcodec.codec.media.types import Picture
from iwcodec.codec.media.video import read_video, sample_clip
from iwcodec.codec.motion.encoder import MotionEncoder
from iwcodec.codec.motion.predictive_coder import MotionCoder
from iwcodec.codec.motion.predictive_tables import load_tables
from iwcodec.codec.motion.types import Quantiser
from iwcodec.codec.sources.av1 import SourceDecoder, SourceEncoder
from iwcodec.codec.sources.library import ACTIVE, CAPACITY
from iwcodec.models.runtime.load import load_runtime
from iwcodec.models.runtime.types import Keypoints, Runtime
from iwcodec.models.runtime.weights import DEFAULT_MODEL

SOURCES = (1, 3, 8, 16)
"""In the library; up to ACTIVE of them enter attention."""
DENSE_SOURCES = (1, 3, 8)
"""That enter attention whole, where it is compared with dense attention; which needs 2 GB for eight."""
CAMERA = (640, 480)
MESSAGE = 4
"""Frames in a motion message, as in a call."""
AV1_KBPS = 12.0


@dataclass(frozen=True)
class Soak:
    """Sending and receiving without end: resident memory after the first tenth and at the end."""

    frames: int
    early_mb: float
    late_mb: float
    frames_per_s: float


def command(
    frames: Annotated[int, typer.Option(help="Repeats of every stage.", min=10)] = 100,
    threads: Annotated[int | None, typer.Option(help="Threads of every pool; default as in the codec.", min=1)] = None,
    runtime: Annotated[str, typer.Option(help="auto, onnx or torch.")] = "auto",
    model: Annotated[str, typer.Option(help="Name of a shipped model.")] = DEFAULT_MODEL,
    soak: Annotated[int, typer.Option(help="Frames to send and receive while memory is watched.", min=0)] = 0,
    dense: Annotated[int, typer.Option(help="Repeats of dense attention, a second each; 0: none.", min=0)] = 10,
    out: Annotated[Path, typer.Option(help="Folder for speed.json.")] = Path("bench"),
    as_json: JSON = False,
) -> None:
    """Milliseconds of every stage of sender and receiver, with 1, 3, 8 and 16 sources in the library."""
    try:
        loaded = load_runtime(model, runtime, threads)
    except (ValueError, ImportError, FileNotFoundError) as error:
        raise CodecError(f"{model} cannot be used with the runtime {runtime}: {error}.") from error
    with progress_bar(as_json) as tell:
        results = run(loaded, frames, threads, soak, tell, dense)
    experiment.save(results, out / "speed.json")
    if as_json:
        print(json.dumps(results, indent=1))
        return
    show(results)
    console.print(f"Results: {out / 'speed.json'}")


def run(
    runtime: Runtime,
    frames: int,
    threads: int | None,
    soak: int,
    tell: Progress,
    dense: int = 0,
) -> dict[str, Any]:
    """All of it, as `speed.json` holds it. Memory is of the codec alone, with the pictures it is given."""
    threads = threads or default_threads()
    with pinned(threads):
        return measured(runtime, frames, threads, soak, tell, dense)


def measured(runtime: Runtime, frames: int, threads: int, soak: int, tell: Progress, dense: int) -> dict[str, Any]:
    memory = {"loaded": resident_mb()}
    video = frame_input(sample_clip(), EncodeOptions(runtime.info.size), lambda name, share: None)
    once = list(video.pictures())
    pictures = list(itertools.islice(itertools.cycle([*once, *once[::-1]]), frames + WARM))
    keypoints = [runtime.detect(picture) for picture in pictures]
    splits: dict[int, Split | None] = {}

    def inside(count: int) -> Iterable[Stage]:
        splits[count] = split(runtime, threads, lambda other: library_of(other, pictures, count).reconstruct, keypoints)
        return split_stages(splits[count], count)

    own: list[Callable[[], Iterable[Stage]]] = [
        lambda: capturing(video.pictures, len(pictures)),
        *(partial(sending, runtime, pictures, video.crops[0], count) for count in SOURCES),
        lambda: [motion_decoding(np.stack(keypoints))],
        lambda: source_coding(pictures),
        lambda: [timed("source preparation", runtime.prepare, pictures)],
        *(partial(receiving, runtime, pictures, keypoints, count) for count in SOURCES),
    ]
    stages = measured_in_turn("the codec", own, tell)
    memory["measured"] = resident_mb()
    soaked = soaking(runtime, pictures, soak, tell) if soak else None
    memory["peak"] = peak_mb()  # what follows needs more, and is no part of the codec
    missing = "left out" if not dense else dense_missing()
    others: list[Callable[[], Iterable[Stage]]] = [
        *(partial(inside, count) for count in SOURCES),
        lambda: av1(pictures),
        lambda: [] if missing else attentions(runtime.info.model_id, threads, pictures, dense),
    ]
    threads_of = pools(runtime, threads)
    stages += measured_in_turn("inside, and beside it", others, tell)
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
        "parts": [part for count, found in splits.items() if found for part in parts(found, count)],
        "sums": [sum_of(found, stages, count) for count, found in splits.items() if found],
        "ratios": ratios(stages),
        "dense_missing": missing,
        "memory_mb": {name: round(value, 1) for name, value in memory.items()},
        "soak": None if soaked is None else asdict(soaked),
    }


def measured_in_turn(what: str, work: Sequence[Callable[[], Iterable[Stage]]], tell: Progress) -> list[Stage]:
    stages: list[Stage] = []
    for number, task in enumerate(work):
        tell(what, number / len(work))
        stages += task()
    return stages


def default_threads() -> int:
    """As OnnxRuntime sets them."""
    return min(4, os.cpu_count() or 1)


# Sender.


def capturing(pictures: Callable[[], Iterator[Picture]], count: int) -> Iterator[Stage]:
    """What comes before a square picture, but for the camera's (`sending`). The face is looked for on every
    DETECT_EVERY-th frame, in a call beside everything else; here per look."""
    played = itertools.chain.from_iterable(pictures() for _ in itertools.count())
    yield timed("capture from a file", lambda _: next(played), range(count))
    seen = itertools.chain.from_iterable(read_video(sample_clip()) for _ in itertools.count())
    detector = FaceDetector()
    looks = (frame.picture for frame in itertools.islice(seen, count))
    yield timed(f"face search, one frame in {DETECT_EVERY}", detector.detect, looks)


def camera() -> av.VideoFrame:
    """A camera's YUV picture."""
    width, height = CAMERA
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return av.VideoFrame.from_ndarray(noise, format="rgb24").reformat(format="yuv420p")


def sending(runtime: Runtime, pictures: Sequence[Picture], crop: Crop, count: int) -> Iterator[Stage]:
    """What the sender does for every frame, as in a call, fitted to the nearest of the sources, and its parts."""
    library, fit, coder = library_of(runtime, pictures, count), live_fit(), MotionEncoder()
    library.prepare()
    taken, seconds = camera(), []
    for picture in pictures:
        times = [time.perf_counter()]
        rgb = np.asarray(taken.to_ndarray(format="rgb24"), np.uint8)
        times.append(time.perf_counter())
        crop_resize(rgb, crop, runtime.info.size)
        times.append(time.perf_counter())
        detected = runtime.detect(picture)
        times.append(time.perf_counter())
        fitted = fit.frame(picture, detected, library.library.candidates(detected))
        gram = None if fitted.gram is None else fitted.gram()
        times.append(time.perf_counter())
        frame = coder.push(fitted.keypoints, library.library.slot(fitted.source), gram)
        if frame % MESSAGE == MESSAGE - 1:
            coder.pack(frame - MESSAGE + 1, MESSAGE)
        times.append(time.perf_counter())
        seconds.append([times[2] - times[0], *np.diff(times), times[-1] - times[0]])
    names = ("capture", "capture: colour conversion", "capture: crop", "detector", "keypoint fit", "motion coding")
    for name, spent in zip((*names, "a frame, sent"), np.transpose(seconds), strict=True):
        yield summarised(name, spent[WARM:], count)


def source_coding(pictures: Sequence[Picture]) -> Iterator[Stage]:
    """The sender's includes decoding what it sent; a key picture takes several times as long as those after it."""
    encoder, decoder = SourceEncoder(len(pictures[0])), SourceDecoder(len(pictures[0]))
    units: list[bytes] = []
    yield timed("source coding", lambda picture: units.append(encoder.add(picture)), pictures)
    yield timed("source decoding", decoder.add, units)


# Receiver.


def motion_decoding(keypoints: NDArray[np.float32]) -> Stage:
    """(n, K, 3), per frame, in messages of MESSAGE frames."""
    quantiser, coder = Quantiser(), MotionCoder(load_tables())
    levels = quantiser.quantise_track(keypoints)
    messages = [coder.encode(levels[n : n + MESSAGE], None) for n in range(len(levels) - MESSAGE + 1)]

    def decode(payload: bytes) -> None:
        quantiser.dequantise(coder.decode(payload, MESSAGE, keypoints.shape[1], None))

    return timed("motion decoding", decode, messages, each=MESSAGE)


def library_of(runtime: Runtime, pictures: Sequence[Picture], count: int) -> Decoder:
    """A receiver with `count` sources, evenly spread over the pictures."""
    encoder, decoder = SourceEncoder(runtime.info.size), Decoder(runtime)
    for slot, n in enumerate(np.linspace(0, len(pictures) - 1, count).astype(int)):
        decoder.add_source(SourcePacket(slot, encoder.add(pictures[n])))
    return decoder


def messages(keypoints: Sequence[Keypoints]) -> Iterator[MotionPacket]:
    """The motion of these frames as it is sent."""
    coder = MotionEncoder()
    for first in range(0, len(keypoints), MESSAGE):
        some = keypoints[first : first + MESSAGE]
        for row in some:
            coder.push(row)
        yield coder.pack(first, len(some))


def receiving(
    runtime: Runtime, pictures: Sequence[Picture], keypoints: Sequence[Keypoints], count: int
) -> Iterator[Stage]:
    """Everything a receiver does for every frame, from motion messages to pictures; the first of a message waits for
    the decoding of all of it."""
    decoder, seconds = library_of(runtime, pictures, count), []
    for packet in messages(keypoints):
        started = time.perf_counter()
        motions = decoder.motion(packet)
        decoding = time.perf_counter() - started
        for motion in motions:
            started = time.perf_counter()
            decoder.reconstruct(motion.keypoints)
            rebuilding = time.perf_counter() - started
            seconds.append((rebuilding, rebuilding + decoding))
            decoding = 0.0
    for name, spent in zip(("rebuilding a frame", "a frame, received"), np.transpose(seconds), strict=True):
        yield summarised(name, spent[WARM:], count)


def split_stages(found: Split | None, count: int) -> Iterator[Stage]:
    for name, seconds in (found.stages if found else {}).items():
        yield summarised(name, seconds, count)


def parts(found: Split, count: int) -> Iterator[dict[str, Any]]:
    """Of one rebuilt frame, on average: milliseconds and share of each stage, and of what is in none."""
    total = found.frames.mean()
    for part, seconds in {**found.stages, "rest": found.rest()}.items():
        ms, share = float(seconds.mean()) * 1e3, float(seconds.mean() / total)
        yield {"part": part, "sources": count, "ms": round(ms, 3), "share": round(share, 4)}


def sum_of(found: Split, stages: Sequence[Stage], count: int) -> dict[str, Any]:
    """Means: the stages together, the frames in which they were measured, and frames that nothing was measured in."""
    plain = next(stage for stage in stages if (stage.stage, stage.sources) == ("rebuilding a frame", count))
    watched = float(found.frames.mean())
    return {
        "sources": count,
        "stages_ms": round((watched - float(found.rest().mean())) * 1e3, 3),
        "watched_ms": round(watched * 1e3, 3),
        "unwatched_ms": round(1e3 / plain.per_s, 3),
    }


# What it is compared with.


def av1(pictures: Sequence[Picture]) -> Iterator[Stage]:
    """SVT-AV1 as `bench rd` sets it, dav1d, one thread each; the decoder's time includes conversion to RGB."""
    result = encode_rival("svtav1", pictures, 25, AV1_KBPS)
    yield summarised("SVT-AV1 encoding", result.frame_seconds[WARM:])
    seconds = []
    decoded = result.pictures()
    while True:
        started = time.perf_counter()
        if next(decoded, None) is None:
            break
        seconds.append(time.perf_counter() - started)
    yield summarised("AV1 decoding (dav1d)", seconds[WARM:])


def dense_missing() -> str | None:
    """Why dense attention cannot be measured here."""
    missing = [name for name in ("torch", "onnx") if find_spec(name) is None]
    return f"needs {' and '.join(missing)}: {install('train')}" if missing else None


def attentions(
    model: str, threads: int, pictures: Sequence[Picture], repeats: int, counts: Sequence[int] = DENSE_SOURCES
) -> Iterator[Stage]:
    """Attention alone, over all cells of so many sources, dense and as the receiver has it, in turn: two graphs on ONNX
    Runtime's CPU provider, with the same threads. The first call of each is not counted."""
    import torch

    from iwcodec.benchmarks.performance.attention import make_case, onnx_attention
    from iwcodec.models.runtime.torch import load_network

    network = load_network(model).requires_grad_(False)
    ways = {name: onnx_attention(network, threads, dense) for name, dense in (("dense", True), ("sparse", False))}
    for count in counts:
        with torch.inference_mode():
            chosen = [pictures[n] for n in np.linspace(0, len(pictures) - 1, count).astype(int)]
            case = make_case(network, chosen, pictures[len(pictures) // 2])
        seconds: dict[str, list[float]] = defaultdict(list)
        for _ in range(repeats + 1):
            for name, (attend, kept) in ways.items():
                started = time.perf_counter()
                attend(case, kept)
                seconds[name].append(time.perf_counter() - started)
        yield from (summarised(f"{name} attention alone", spent[1:], count) for name, spent in seconds.items())


def ratios(stages: Sequence[Stage]) -> dict[str, float]:
    """Of medians."""
    of = {(stage.stage, stage.sources): stage.p50_ms for stage in stages}
    found = {}
    for count in SOURCES:
        sources = f"{count} source{'s' * (count > 1)}"
        receiver = of["motion decoding", None] + of["rebuilding a frame", count]
        found[f"receiver ({sources}) / AV1 decoding"] = receiver / of["AV1 decoding (dav1d)", None]
        found[f"sender ({sources}) / SVT-AV1 encoding"] = of["a frame, sent", count] / of["SVT-AV1 encoding", None]
    found["source coding / SVT-AV1 encoding"] = of["source coding", None] / of["SVT-AV1 encoding", None]
    for count in DENSE_SOURCES:
        if ("dense attention alone", count) in of:
            dense = of["dense attention alone", count]
            found[f"dense attention / ours (all of {count})"] = dense / of["sparse attention alone", count]
            if count > ACTIVE:
                used = of["sparse attention alone", ACTIVE]
                found[f"dense attention / ours (all of {count} / the {ACTIVE} in use)"] = dense / used
    return {name: round(ratio, 3) for name, ratio in found.items()}


# Memory.


def soaking(runtime: Runtime, pictures: Sequence[Picture], frames: int, tell: Progress) -> Soak:
    """A sender and a receiver side by side; the library fills up and evicts."""
    encoder = Encoder(runtime, EncoderSettings(message_frames=MESSAGE, capacity=CAPACITY))
    decoder = Decoder(runtime)
    early, shown, started = 0.0, 0, time.perf_counter()
    for n, picture in zip(range(frames), itertools.cycle(pictures), strict=False):
        for packet in encoder.push(picture):
            shown += sum(1 for _ in decoder.push(packet))
        if n == frames // 10:
            early = resident_mb()
        if n % 50 == 0:
            tell("soaking", n / frames)
    seconds = time.perf_counter() - started
    return Soak(frames, round(early, 1), round(resident_mb(), 1), round(shown / seconds, 2))


def resident_mb() -> float:
    try:
        import psutil
    except ImportError as error:
        raise CodecError(f"bench speed needs psutil: {install('bench')}.") from error
    return float(psutil.Process().memory_info().rss / 2**20)


def peak_mb() -> float:
    """Most memory this process ever had."""
    import psutil

    if sys.platform == "win32":
        return float(psutil.Process().memory_info().peak_wset / 2**20)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def show(results: dict[str, Any]) -> None:
    console.print(stage_table(results))
    for part in results["parts"]:
        if part["sources"] == ACTIVE:
            console.print(f"  inside a rebuilt frame: {part['part']:<17} {part['ms']:6.2f} ms ({part['share']:.0%})")
    for total in results["sums"]:
        console.print(
            "  {sources} sources: stages {stages_ms:.2f} ms of {watched_ms:.2f}; unwatched {unwatched_ms:.2f}".format(
                **total
            )
        )
    for name, value in results["ratios"].items():
        console.print(f"{name}: {value:.2f}")
    if results["dense_missing"] is not None:
        console.print(f"dense attention: {results['dense_missing']}")
    console.print(f"threads: {', '.join(f'{name} {count}' for name, count in results['pools'].items())}")
    console.print(f"memory: {', '.join(f'{name} {value:.0f} MB' for name, value in results['memory_mb'].items())}")
    if results["soak"] is not None:
        console.print(
            "soak: {frames} frames, {early_mb:.0f} MB early, {late_mb:.0f} MB at the end".format(**results["soak"])
        )


def stage_table(results: dict[str, Any]) -> Table:
    table = Table(title=f"{results['runtime']}, threads: {results['threads']}, {results['size']}x{results['size']}")
    for heading in ("", "sources", "p50 ms", "p95 ms", "p99 ms", "per s"):
        table.add_column(heading, justify="left" if not heading else "right")
    for row in results["stages"]:
        figures = (f"{row[key]:.2f}" for key in ("p50_ms", "p95_ms", "p99_ms", "per_s"))
        table.add_row(row["stage"], str(row["sources"] or ""), *figures)
    return table
