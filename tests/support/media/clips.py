"""Small media files generated for tests of anything that reads or writes video."""

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.media.audio.samples import read_samples
from iwcodec.codec.media.types import AUDIO_RATE, Picture, Samples

CLIP_FRAMES, CLIP_FPS = 12, 8
"""Frames, and frames per second, of the clip that the fixture `face_clip` writes."""
RED, GREEN, BLUE, GREY = (230, 30, 20), (20, 200, 40), (30, 40, 210), (128, 128, 128)


def plain(colour: tuple[int, int, int], width: int = 64, height: int = 48) -> Picture:
    """A picture of one RGB colour."""
    return np.broadcast_to(np.array(colour, np.uint8), (height, width, 3)).copy()


def grey_ramp(count: int, width: int = 64, height: int = 48) -> list[Picture]:
    """Pictures that encode their number n: all pixels have the value 20 + 8 n."""
    return [plain((20 + 8 * n,) * 3, width, height) for n in range(count)]


def quarters(width: int = 96, height: int = 64) -> Picture:
    """Red and green above blue and grey."""
    picture = plain(RED, width, height)
    picture[: height // 2, width // 2 :] = GREEN
    picture[height // 2 :, : width // 2] = BLUE
    picture[height // 2 :, width // 2 :] = GREY
    return picture


def corners(picture: Picture) -> list[tuple[int, int, int]]:
    """The nearest of the four colours in each quarter: top left, top right, bottom left, bottom right."""
    height, width = picture.shape[:2]
    colours = []
    for y, x in [(1, 1), (1, 3), (3, 1), (3, 3)]:
        pixel = picture[y * height // 4, x * width // 4].astype(int)
        colours.append(min((RED, GREEN, BLUE, GREY), key=lambda c: np.abs(pixel - c).sum()))
    return colours


def write_clip(
    path: Path,
    pictures: Sequence[Picture],
    times_s: Iterable[float] | None = None,
    fps: int | Fraction = 25,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    sound: NDArray[np.float32] | None = None,
    sound_start_s: float = 0.0,
    rate: int = 44_100,
    prepare: Callable[[Any], None] | None = None,
) -> Path:
    """Write pictures at the given times (default: regular), and mono sound (-1..1), to a file whose suffix names the
    container. `prepare` may change the video stream before the first frame."""
    height, width = pictures[0].shape[:2]
    tick = Fraction(1, 1000) if times_s is not None else 1 / Fraction(fps)
    with av.open(str(path), "w") as out:
        video: Any = out.add_stream(codec, rate=fps)
        video.width, video.height, video.pix_fmt = width, height, pixels
        video.codec_context.time_base = tick
        video.options = {"crf": "4"} if codec == "libx264" else {}
        if prepare is not None:
            prepare(video)
        audio: Any = None
        if sound is not None:
            audio = out.add_stream("aac" if path.suffix in (".mp4", ".mov", ".ts") else "flac", rate=rate)
            audio.layout = "mono"
        stamps = range(len(pictures)) if times_s is None else [round(t * 1000) for t in times_s]
        for stamp, picture in zip(stamps, pictures, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if pixels not in ("rgb24", "bgr0", "gbrp", "pal8"):
                frame = frame.reformat(format=pixels)
            frame.pts, frame.time_base = stamp, tick
            out.mux(video.encode(frame))
        if audio is not None and sound is not None:
            for begin in range(0, len(sound), 1024):
                block = sound[None, begin : begin + 1024]
                piece = av.AudioFrame.from_ndarray(block, format="flt", layout="mono")
                piece.sample_rate, piece.time_base = rate, Fraction(1, rate)
                piece.pts = begin + round(sound_start_s * rate)
                out.mux(audio.encode(piece))
            out.mux(audio.encode(None))
        out.mux(video.encode(None))
    return path


def tone(seconds: float, rate: int = 44_100, hertz: float = 1000.0) -> NDArray[np.float32]:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def all_samples(path: Path, start: float = 0.0, duration_s: float | None = None) -> Samples:
    return np.concatenate(list(read_samples(path, start, duration_s)))


def peak_time(samples: Samples, rate: int = AUDIO_RATE) -> float:
    """When the sound first exceeds half of its greatest level, in seconds."""
    loud = np.abs(samples.astype(float))
    return float(np.argmax(loud > loud.max() / 2)) / rate
