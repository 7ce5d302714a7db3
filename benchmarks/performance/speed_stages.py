"""The stages that `bench speed` measures: sender, receiver, and what they are compared with."""

import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec

import av
import numpy as np
from numpy.typing import NDArray

from iwcodec.benchmarks.performance.stages import MESSAGE_FRAMES, WARM, Stage, summarised, timed
from iwcodec.benchmarks.quality.rivals import encode_rival
from iwcodec.codec.bitstream.packets import MotionPacket, SourcePacket
from iwcodec.codec.decoder import Decoder
from iwcodec.codec.extras import install
from iwcodec.codec.fit.keypoint_fit import live_fit
from iwcodec.codec.media.crop.face_detector import DETECT_EVERY, FaceDetector
from iwcodec.codec.media.crop.square import Crop, crop_resize
from iwcodec.codec.media.types import Picture
from iwcodec.codec.media.video import read_video, sample_clip
from iwcodec.codec.motion.encoder import MotionEncoder
from iwcodec.codec.motion.predictive_coder import PredictiveCoder
from iwcodec.codec.motion.predictive_tables import load_tables
from iwcodec.codec.motion.types import Quantiser
from iwcodec.codec.sources.av1 import SourceDecoder, SourceEncoder
from iwcodec.codec.sources.regions import Compositor
from iwcodec.codec.sources.variant_policy import VariantPolicy
from iwcodec.models.runtime.types import Keypoints, Runtime

DENSE_SOURCES = (1, 3, 8)
"""Sources with all their cells in attention, for the comparison with dense attention (2 GB of memory for eight)."""
CAMERA = (640, 480)
"""Width and height of a camera picture, in pixels."""
AV1_KBPS = 12.0
"""Rate at which SVT-AV1 is timed."""


def capturing(pictures: Callable[[], Iterator[Picture]], count: int) -> Iterator[Stage]:
    """File decoding with crop, and face detection per detection.

    A call detects the face on every DETECT_EVERY-th frame, in parallel with everything else. Camera capture is part
    of `sending`.
    """
    played = itertools.chain.from_iterable(pictures() for _ in itertools.count())
    yield timed("capture from a file", lambda _: next(played), range(count))
    frames = itertools.chain.from_iterable(read_video(sample_clip()) for _ in itertools.count())
    detector = FaceDetector()
    camera_pictures = (frame.picture for frame in itertools.islice(frames, count))
    yield timed(f"face search, one frame in {DETECT_EVERY}", detector.detect, camera_pictures)


def camera() -> av.VideoFrame:
    """A YUV picture of CAMERA size."""
    width, height = CAMERA
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return av.VideoFrame.from_ndarray(noise, format="rgb24").reformat(format="yuv420p")


def sending(runtime: Runtime, pictures: Sequence[Picture], crop: Crop, count: int) -> Iterator[Stage]:
    """All that the sender does per frame in a call (keypoints fitted to the nearest source), and each part of it."""
    library, fit, coder = library_of(runtime, pictures, count), live_fit(), MotionEncoder()
    library.prepare()
    regions = VariantPolicy(Compositor(runtime), library.library)
    captured, seconds = camera(), []
    for picture in pictures:
        times = [time.perf_counter()]
        rgb = np.asarray(captured.to_ndarray(format="rgb24"), np.uint8)
        times.append(time.perf_counter())
        crop_resize(rgb, crop, runtime.info.size)
        times.append(time.perf_counter())
        detected = runtime.detect(picture)
        times.append(time.perf_counter())
        fitted = fit.frame(picture, detected, library.library.candidates(detected))
        gram = None if fitted.gram is None else fitted.gram()
        times.append(time.perf_counter())
        assert fitted.source is not None
        regions.choose(picture, fitted.keypoints, fitted.source)
        times.append(time.perf_counter())
        frame = coder.push(fitted.keypoints, library.library.slot(fitted.source), gram)
        if frame % MESSAGE_FRAMES == MESSAGE_FRAMES - 1:
            coder.pack(frame - MESSAGE_FRAMES + 1, MESSAGE_FRAMES)
        times.append(time.perf_counter())
        seconds.append([times[2] - times[0], *np.diff(times), times[-1] - times[0]])
    names = (
        "capture",
        "capture: colour conversion",
        "capture: crop",
        "detector",
        "keypoint fit",
        "eyes and mouth",
        "motion coding",
    )
    for name, spent in zip((*names, "a frame, sent"), np.transpose(seconds), strict=True):
        yield summarised(name, spent[WARM:], count)


def source_coding(pictures: Sequence[Picture]) -> Iterator[Stage]:
    """Source coding includes the sender's decoding of what it sent. A key picture takes several times longer."""
    encoder, decoder = SourceEncoder(len(pictures[0])), SourceDecoder(len(pictures[0]))
    units: list[bytes] = []
    yield timed("source coding", lambda picture: units.append(encoder.add(picture)), pictures)
    yield timed("source decoding", decoder.add, units)


def motion_decoding(keypoints: NDArray[np.float32]) -> Stage:
    """Decode keypoints (n, K, 3) in messages of MESSAGE_FRAMES frames; time per frame."""
    quantiser, coder = Quantiser(), PredictiveCoder(load_tables())
    levels = quantiser.quantise_track(keypoints)
    messages = [coder.encode(levels[n : n + MESSAGE_FRAMES], None) for n in range(len(levels) - MESSAGE_FRAMES + 1)]

    def decode(payload: bytes) -> None:
        quantiser.dequantise(coder.decode(payload, MESSAGE_FRAMES, keypoints.shape[1], None))

    return timed("motion decoding", decode, messages, frames=MESSAGE_FRAMES)


def library_of(runtime: Runtime, pictures: Sequence[Picture], count: int) -> Decoder:
    """A receiver with `count` sources, evenly spaced over the pictures."""
    encoder, decoder = SourceEncoder(runtime.info.size), Decoder(runtime)
    for slot, n in enumerate(np.linspace(0, len(pictures) - 1, count).astype(int)):
        decoder.add_source(SourcePacket(slot, encoder.add(pictures[n])))
    return decoder


def messages(keypoints: Sequence[Keypoints]) -> Iterator[MotionPacket]:
    """Motion packets of these frames, as a sender makes them."""
    coder = MotionEncoder()
    for first in range(0, len(keypoints), MESSAGE_FRAMES):
        some = keypoints[first : first + MESSAGE_FRAMES]
        for row in some:
            coder.push(row)
        yield coder.pack(first, len(some))


def receiving(
    runtime: Runtime, pictures: Sequence[Picture], keypoints: Sequence[Keypoints], count: int
) -> Iterator[Stage]:
    """All that a receiver does per frame, from motion messages to pictures.

    The first frame of a message includes decoding the whole message.
    """
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


def av1(pictures: Sequence[Picture]) -> Iterator[Stage]:
    """SVT-AV1 with the settings of `bench rd`, and dav1d including conversion to RGB; one thread each."""
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
    """Why dense attention cannot be measured on this machine; None if it can."""
    missing = [name for name in ("torch", "onnx") if find_spec(name) is None]
    return f"needs {' and '.join(missing)}: {install('train')}" if missing else None


def attentions(
    model: str, threads: int, pictures: Sequence[Picture], repeats: int, counts: Sequence[int] = DENSE_SOURCES
) -> Iterator[Stage]:
    """Attention alone over all cells of `counts` sources: dense, and hierarchical as in the receiver, alternating.

    Both are graphs on ONNX Runtime's CPU provider with the same threads; the first call of each is not counted.
    """
    import torch

    from iwcodec.benchmarks.performance.attention.cases import make_case, onnx_attention
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
