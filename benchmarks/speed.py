"""`iwcodec bench speed`: how long each stage takes on this machine, beside SVT-AV1 in the same run.

Every stage is called as the codec calls it, on the bundled clip's own pictures and motion, alone on the machine if it
is to mean anything. What happens inside the network is taken from ONNX Runtime's profiler.
"""

import itertools
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import av
import numpy as np
import typer
from numpy.typing import NDArray
from rich.table import Table

from ..cli import JSON, console, progress_bar
from ..decoder import Decoder
from ..encoder import Encoder, EncoderSettings, MotionEncoder
from ..errors import CodecError
from ..files import EncodeOptions, frame_input
from ..framing import crop_resize
from ..library import ACTIVE, CAPACITY
from ..media import Picture, sample_clip
from ..models.runtime import DEFAULT_MODEL, OnnxRuntime, Runtime, load_runtime
from ..motion import MotionCoder, Quantiser
from ..motion_tables import load_tables
from ..packets import SourcePacket
from ..refinement import live_fit
from ..sources import SourceDecoder, SourceEncoder
from . import experiment
from .rivals import encode_rival

SOURCES = (1, 3, 8)
CAMERA = (640, 480)
MESSAGE = 4
"""Frames in a motion message, as in a call."""
WARM = 10
"""Calls that are not counted."""
AV1_KBPS = 12.0
PARTS = (
    ("query net", ("query_net",), ()),
    (
        "decoder",
        ("decoder", "/blocks", "/residual", "/entry", "/unfold", "/fuse", "/refine", "/out/", "/nudge", "/up."),
        ("Conv",),
    ),
    ("attention", ("attention",), ("TopK", "Softmax", "MatMul", "FusedMatMul", "Gemm", "Gather", "GatherElements")),
    ("sampling", (), ("GridSample", "Resize")),
)
"""Part of the frame graph, words in the names of its nodes, operators that are its own where a name says nothing. The
first that fits counts; what fits nowhere (layout, arithmetic between the parts) is "other"."""


@dataclass(frozen=True)
class Stage:
    stage: str
    sources: int | None
    p50_ms: float
    p95_ms: float
    p99_ms: float
    per_s: float
    """By the mean."""
    repeats: int


@dataclass(frozen=True)
class Part:
    """Of one rebuilt frame, by the profiler: the sum of its operators' times."""

    part: str
    sources: int
    ms: float
    share: float


@dataclass(frozen=True)
class Soak:
    """Sending and receiving without end: resident memory after the first tenth and at the end."""

    frames: int
    early_mb: float
    late_mb: float
    frames_per_s: float


def command(
    frames: Annotated[int, typer.Option(help="Repeats of every stage.", min=10)] = 100,
    threads: Annotated[int | None, typer.Option(help="Threads of the network; default as in the codec.", min=1)] = None,
    runtime: Annotated[str, typer.Option(help="auto, onnx or torch.")] = "auto",
    model: Annotated[str, typer.Option(help="Name of a shipped model.")] = DEFAULT_MODEL,
    soak: Annotated[int, typer.Option(help="Frames to send and receive while memory is watched.", min=0)] = 0,
    out: Annotated[Path, typer.Option(help="Folder for speed.json.")] = Path("bench"),
    as_json: JSON = False,
) -> None:
    """Milliseconds of every stage of sender and receiver, with 1, 3 and 8 sources in the library."""
    try:
        loaded = load_runtime(model, runtime, threads)
    except (ValueError, ImportError, FileNotFoundError) as error:
        raise CodecError(f"{model} cannot be used with the runtime {runtime}: {error}.") from error
    with progress_bar(as_json) as tell:
        results = run(loaded, frames, threads, soak, tell)
    experiment.save(results, out / "speed.json")
    if as_json:
        print(json.dumps(results, indent=1))
        return
    console.print(stage_table(results))
    for part in results["parts"]:
        if part["sources"] == min(ACTIVE, SOURCES[-1]):
            console.print(f"  inside the network: {part['part']:<10} {part['ms']:6.2f} ms ({part['share']:.0%})")
    for name, value in results["ratios"].items():
        console.print(f"{name}: {value:.2f}")
    console.print(f"memory: {', '.join(f'{name} {value:.0f} MB' for name, value in results['memory_mb'].items())}")
    if results["soak"] is not None:
        console.print(
            "soak: {frames} frames, {early_mb:.0f} MB early, {late_mb:.0f} MB at the end".format(**results["soak"])
        )
    console.print(f"Results: {out / 'speed.json'}")


def run(
    runtime: Runtime, frames: int, threads: int | None, soak: int, tell: Callable[[str, float], None]
) -> dict[str, Any]:
    """All of it, as `speed.json` holds it."""
    memory = {"loaded": resident_mb()}
    pictures = clip_pictures(runtime.info.size, frames + WARM)
    keypoints = [runtime.detect(picture) for picture in pictures]
    stages: list[Stage] = []
    work: list[Callable[[], Iterable[Stage]]] = [
        lambda: sending(runtime, pictures),
        lambda: [motion_decoding(np.stack(keypoints))],
        lambda: source_coding(pictures),
        lambda: [timed("source preparation", runtime.prepare, pictures)],
        lambda: [rebuilding(runtime, pictures, keypoints, count) for count in SOURCES],
        lambda: av1(pictures),
    ]
    for number, task in enumerate(work):
        tell("measuring", number / len(work))
        stages += task()
    parts = [
        part
        for count in sorted({min(count, ACTIVE) for count in SOURCES})
        for part in profile(runtime, threads, pictures, keypoints, count)
    ]
    memory["measured"] = resident_mb()
    soaked = soaking(runtime, pictures, soak, tell) if soak else None
    memory["peak"] = peak_mb()
    return {
        **experiment.surroundings(),
        "what": "speed",
        "model": {"id": runtime.info.model_id, "digest": runtime.info.digest.hex()},
        "runtime": type(runtime).__name__,
        "device": runtime.device,
        "threads": threads or default_threads(),
        "size": runtime.info.size,
        "active": ACTIVE,
        "stages": [asdict(stage) for stage in stages],
        "parts": [asdict(part) for part in parts],
        "ratios": ratios(stages),
        "memory_mb": {name: round(value, 1) for name, value in memory.items()},
        "soak": None if soaked is None else asdict(soaked),
    }


def default_threads() -> int:
    """As OnnxRuntime sets them."""
    return min(4, os.cpu_count() or 1)


def timed(
    name: str, work: Callable[[Any], object], inputs: Iterable[Any], sources: int | None = None, each: int = 1
) -> Stage:
    """The work on each input, which is for `each` frames; the first WARM are not counted."""
    seconds = []
    for given in inputs:
        started = time.perf_counter()
        work(given)
        seconds.append((time.perf_counter() - started) / each)
    return summarised(name, seconds[WARM:], sources)


def summarised(name: str, seconds: Sequence[float], sources: int | None = None) -> Stage:
    """ValueError without any."""
    if not seconds:
        raise ValueError(f"{name} was never measured")
    p50, p95, p99 = (round(float(q) * 1000, 3) for q in np.quantile(seconds, [0.5, 0.95, 0.99]))
    return Stage(name, sources, p50, p95, p99, round(1 / float(np.mean(seconds)), 2), len(seconds))


def clip_pictures(size: int, count: int) -> list[Picture]:
    """The bundled clip's, there and back again as often as needed."""
    video = frame_input(sample_clip(), EncodeOptions(size), lambda name, share: None)
    once = list(video.pictures())
    return list(itertools.islice(itertools.cycle([*once, *once[::-1]]), count))


def camera(size: int) -> Callable[[], Picture]:
    """A camera's YUV picture to the square the detector sees."""
    width, height = CAMERA
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    taken = av.VideoFrame.from_ndarray(noise, format="rgb24").reformat(format="yuv420p")
    crop = frame_input(sample_clip(), EncodeOptions(size), lambda name, share: None).crops[0]
    return lambda: crop_resize(np.asarray(taken.reformat(format="rgb24").to_ndarray(), np.uint8), crop, size)


def motion_decoding(keypoints: NDArray[np.float32]) -> Stage:
    """(n, K, 3), per frame, in messages of MESSAGE frames."""
    quantiser, coder = Quantiser(), MotionCoder(load_tables())
    levels = quantiser.quantise_track(keypoints)
    messages = [coder.encode(levels[n : n + MESSAGE], None) for n in range(len(levels) - MESSAGE + 1)]

    def decode(payload: bytes) -> None:
        quantiser.dequantise(coder.decode(payload, MESSAGE, keypoints.shape[1], None))

    return timed("motion decoding", decode, messages, each=MESSAGE)


def source_coding(pictures: Sequence[Picture]) -> Iterator[Stage]:
    """The sender's includes decoding what it sent; a key picture takes several times as long as those after it."""
    encoder, decoder = SourceEncoder(len(pictures[0])), SourceDecoder(len(pictures[0]))
    units: list[bytes] = []
    yield timed("source coding", lambda picture: units.append(encoder.add(picture)), pictures)
    yield timed("source decoding", decoder.add, units)


def library_of(runtime: Runtime, pictures: Sequence[Picture], count: int) -> Decoder:
    """A receiver with `count` sources, evenly spread over the pictures."""
    encoder, decoder = SourceEncoder(runtime.info.size), Decoder(runtime)
    for slot, n in enumerate(np.linspace(0, len(pictures) - 1, count).astype(int)):
        decoder.add_source(SourcePacket(slot, encoder.add(pictures[n])))
    return decoder


def sending(runtime: Runtime, pictures: Sequence[Picture]) -> Iterator[Stage]:
    """What the sender does for every frame, as in a call, fitted to the nearest of the sources, and its parts."""
    library, fit, coder = library_of(runtime, pictures, ACTIVE), live_fit(), MotionEncoder()
    library.prepare()
    convert, seconds = camera(runtime.info.size), []
    for picture in pictures:
        times = [time.perf_counter()]
        convert()
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
        seconds.append([*np.diff(times), times[-1] - times[0]])
    names = ("camera picture to square RGB", "detector", "keypoint fit", "motion coding", "a frame, sent")
    for name, spent in zip(names, np.transpose(seconds), strict=True):
        yield summarised(name, list(spent[WARM:]))


def rebuilding(runtime: Runtime, pictures: Sequence[Picture], keypoints: Sequence[Any], count: int) -> Stage:
    decoder = library_of(runtime, pictures, count)
    return timed("rebuilding a frame", decoder.reconstruct, keypoints, count)


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


def ratios(stages: Sequence[Stage]) -> dict[str, float]:
    """Of medians."""
    of = {(stage.stage, stage.sources): stage.p50_ms for stage in stages}
    receiver = of["motion decoding", None] + of["rebuilding a frame", 3]
    return {
        "receiver (3 sources) / AV1 decoding": round(receiver / of["AV1 decoding (dav1d)", None], 3),
        "sender (without sources) / SVT-AV1 encoding": round(
            of["a frame, sent", None] / of["SVT-AV1 encoding", None], 3
        ),
    }


def profile(
    runtime: Runtime, threads: int | None, pictures: Sequence[Picture], keypoints: Sequence[Any], count: int
) -> list[Part]:
    """Parts of one rebuilt frame; none for another runtime than ONNX Runtime's."""
    if not isinstance(runtime, OnnxRuntime):
        return []
    with tempfile.TemporaryDirectory() as folder:
        with profiled(Path(folder)) as sessions:
            decoder = library_of(OnnxRuntime(runtime.info.model_id, threads), pictures, count)
            for row in keypoints:
                decoder.reconstruct(row)
        logs = [json.loads(Path(session.end_profiling()).read_text()) for session in sessions]
    spent: Counter[str] = Counter()
    for events in logs:
        # The graphs that run for every frame, however many they are; the others ran for the sources only.
        runs = [event for event in events if event["name"] == "model_run"]
        if len(runs) < len(keypoints):
            continue
        warm = runs[WARM]["ts"]
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time") and event["ts"] >= warm:
                spent[part_of(event["name"], event["args"]["op_name"])] += event["dur"]
    frames, total = len(keypoints) - WARM, spent.total()
    return [Part(part, count, round(t / 1000 / frames, 3), round(t / total, 4)) for part, t in spent.most_common()]


@contextmanager
def profiled(folder: Path) -> Iterator[list[Any]]:
    """Sessions of ONNX Runtime made inside write profiles into the folder; yields the list they are added to."""
    import onnxruntime

    plain = onnxruntime.InferenceSession
    sessions: list[Any] = []

    class Profiled(plain):  # type: ignore[misc, valid-type]
        def __init__(self, model: Any, sess_options: Any = None, *rest: Any, **named: Any) -> None:
            options = sess_options or onnxruntime.SessionOptions()
            options.enable_profiling = True
            options.profile_file_prefix = str(folder / str(len(sessions)))
            super().__init__(model, options, *rest, **named)
            sessions.append(self)

    onnxruntime.InferenceSession = Profiled
    try:
        yield sessions
    finally:
        onnxruntime.InferenceSession = plain


def part_of(name: str, operator: str) -> str:
    """The part a node of the frame graph belongs to, after PARTS."""
    for part, words, _ in PARTS:
        if any(word in name for word in words):
            return part
    for part, _, operators in PARTS:
        if operator in operators:
            return part
    return "other"


def soaking(runtime: Runtime, pictures: Sequence[Picture], frames: int, tell: Callable[[str, float], None]) -> Soak:
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
        raise CodecError("bench speed needs psutil: pip install 'iwcodec[bench]'.") from error
    return float(psutil.Process().memory_info().rss / 2**20)


def peak_mb() -> float:
    """Most memory this process ever had."""
    import psutil

    if sys.platform == "win32":
        return float(psutil.Process().memory_info().peak_wset / 2**20)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def stage_table(results: dict[str, Any]) -> Table:
    table = Table(title=f"{results['runtime']}, threads: {results['threads']}, {results['size']}x{results['size']}")
    for heading in ("", "sources", "p50 ms", "p95 ms", "p99 ms", "a second"):
        table.add_column(heading, justify="left" if not heading else "right")
    for row in results["stages"]:
        figures = (f"{row[key]:.2f}" for key in ("p50_ms", "p95_ms", "p99_ms", "per_s"))
        table.add_row(row["stage"], str(row["sources"] or ""), *figures)
    return table
