"""A measured call between two clients on this machine, over real WebRTC and a real server.

The second client plays the clip from its middle. If the clip has no sound, a short test tone every second takes its
place, so that the delay of the sound, and its offset from the picture, can be measured.
"""

import asyncio
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np

from iwcodec import __version__
from iwcodec.client.audio.capture import ClipSound
from iwcodec.client.audio.jitter_buffer import BLOCK
from iwcodec.client.audio.sender import AudioSender
from iwcodec.client.audio.speaker import Speaker
from iwcodec.client.demo.measurement import Side
from iwcodec.client.demo.pictures import write_contact_sheet, write_side_by_side
from iwcodec.client.demo.server import local_server
from iwcodec.client.room.signalling import Signalling
from iwcodec.client.session import make_call
from iwcodec.client.video.capture import CapturedFrame, Clip, LiveCrop, Pictures
from iwcodec.codec.errors import CodecError
from iwcodec.codec.media.types import AUDIO_RATE
from iwcodec.codec.media.video import sample_clip
from iwcodec.codec.terminal import progress_bar
from iwcodec.models.runtime.load import load_runtime
from iwcodec.models.runtime.types import Runtime

NAMES: Final = ("Ada", "Bob")
FIRST_PICTURE_TIMEOUT_S: Final = 30.0
"""Maximum time from joining to the first picture on both sides."""
MIN_FRAMES_PER_S: Final = 2.0
"""Frames per second below which the demonstration has failed."""
TONE_S: Final = 0.12
"""Duration of a test tone."""
TONE_PERIOD_S: Final = 1.0

Progress = Callable[[str, float], Any]
"""Called with the name of the stage and its completed share, 0..1."""


def run_demo(
    out: Path, clip: Path | None, seconds: float, audio: bool, quiet: bool
) -> tuple[dict[str, Any], list[Side]]:
    """Hold a call of `seconds` and write its video, contact sheet and statistics to the folder `out`.

    Returns the statistics, and both sides. `quiet`: without a progress bar. Raises CodecError.
    """
    path = clip or sample_clip()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CodecError(f"{out} cannot be created: {error.strerror}.") from error
    with local_server() as address, progress_bar(quiet) as progress:
        sides = asyncio.run(hold_call(f"{address}/r/demo", path, seconds, audio, progress))
    statistics: dict[str, Any] = {**describe(path, seconds), "sides": {side.name: side.statistics() for side in sides}}
    write_side_by_side(out / "side_by_side.mp4", sides, seconds)
    write_contact_sheet(out / "contact_sheet.png", sides, seconds)
    (out / "statistics.json").write_text(json.dumps(statistics, indent=2) + "\n")
    check_speed(sides)
    return statistics, sides


def check_speed(sides: list[Side]) -> None:
    """Raise CodecError if a side saw next to nothing: then this machine is too slow for both."""
    for side in sides:
        rate = side.statistics()["frames_per_s"]
        if rate < MIN_FRAMES_PER_S:
            raise CodecError(
                f"{side.name} saw {rate:.1f} frames/s: this machine is too slow for two clients at once. Close other "
                "programs, and try again."
            )


async def hold_call(url: str, path: Path, seconds: float, audio: bool, progress: Progress) -> list[Side]:
    """Run both clients until both see each other, then for `seconds`. Raises CodecError if no pictures arrive."""
    # One thread per network call: both sides share this machine's cores.
    runtime = load_runtime(threads=1)
    with ThreadPoolExecutor(2 * len(NAMES), "network") as executor:
        sides, closers = [], []
        calls: list[asyncio.Task[None]] = []
        tasks: list[asyncio.Task[None]] = []
        for index, name in enumerate(NAMES):
            side, pictures, side_closers = set_up(url, name, index, path, runtime, executor, audio)
            sides.append(side)
            closers += side_closers
            calls.append(asyncio.create_task(side.call.run()))
            tasks.append(asyncio.create_task(side.call.send_video(pictures)))
        for side, other in (sides, sides[::-1]):
            if other.audio_sender is not None:
                tasks.append(asyncio.create_task(send_tones(other.audio_sender, side.tones_s, path)))
        try:
            await first_pictures(sides, calls, progress)
            began_s = time.monotonic()
            for side in sides:
                side.began_s = began_s
            while (elapsed_s := time.monotonic() - began_s) < seconds:
                progress("talking", elapsed_s / seconds)
                for side in sides:
                    side.sample()
                await asyncio.sleep(min(1.0, seconds - elapsed_s))
            for side in sides:
                side.sample()
        finally:
            for side in sides:
                await side.call.leave()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*calls, *tasks, return_exceptions=True)
            for close in closers:
                close()
    return sides


def set_up(
    url: str, name: str, index: int, path: Path, runtime: Runtime, executor: ThreadPoolExecutor, audio: bool
) -> tuple[Side, Pictures, list[Callable[[], None]]]:
    """Create a side, its camera, and the functions that close its devices."""
    audio_sender, speaker = (AudioSender(), Speaker()) if audio else (None, None)
    call, _ = make_call(Signalling(url, name), runtime, executor, executor, audio_sender, speaker)
    side = Side(name, call, speaker, audio_sender, time.monotonic())
    call.frame_listeners.append(side.see)
    clip = Clip(path)
    clip = Clip(path, offset_s=index * clip.duration_s / len(NAMES))
    crop = LiveCrop(runtime.info.size, clip.fps)
    pictures = Pictures(cropped(clip.frames(), side.sent, crop), lambda picture: picture)
    closers: list[Callable[[], None]] = [pictures.close]
    if audio_sender is not None and speaker is not None:
        speaker.listeners.append(side.hear)
        speaker.start()
        closers.append(speaker.stop)
        if clip.has_sound:
            closers.append(ClipSound(clip, audio_sender.push).close)
    return side, pictures, closers


def cropped(frames: Iterator[CapturedFrame], sent: list[CapturedFrame], crop: LiveCrop) -> Iterator[CapturedFrame]:
    """Crop the frames, and append them to `sent`."""
    for frame in frames:
        result = CapturedFrame(crop(frame.picture), frame.captured_s)
        sent.append(result)
        yield result


async def first_pictures(sides: list[Side], calls: list[asyncio.Task[None]], progress: Progress) -> None:
    """Wait until both sides see each other. Raises CodecError after FIRST_PICTURE_TIMEOUT_S, or when a call fails."""
    deadline = time.monotonic() + FIRST_PICTURE_TIMEOUT_S
    while not all(side.seen for side in sides):
        progress("joining", 1 - (deadline - time.monotonic()) / FIRST_PICTURE_TIMEOUT_S)
        for task in calls:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error
        if time.monotonic() > deadline:
            states = ", ".join(f"{side.name}: {p.state}" for side in sides for p in side.call.participants.values())
            raise CodecError(
                f"No pictures arrived within {FIRST_PICTURE_TIMEOUT_S:.0f} s ({states or 'the clients did not meet'})."
            )
        await asyncio.sleep(0.05)


async def send_tones(audio_sender: AudioSender, tones_s: list[float], path: Path) -> None:
    """Send an 800 Hz tone at the start of every second, unless the clip has sound; append their times to `tones_s`."""
    if Clip(path).has_sound:
        return
    start, count = time.monotonic(), 0
    while True:
        captured_s = start + count * BLOCK / AUDIO_RATE
        if count * BLOCK % round(TONE_PERIOD_S * AUDIO_RATE) == 0:
            tones_s.append(captured_s)
        times = (np.arange(count * BLOCK, (count + 1) * BLOCK) / AUDIO_RATE) % TONE_PERIOD_S
        tone = np.where(times < TONE_S, 9000 * np.sin(2 * np.pi * 800 * times), 0).astype(np.int16)
        count += 1
        await asyncio.sleep(max(0.0, start + count * BLOCK / AUDIO_RATE - time.monotonic()))
        audio_sender.push(tone, captured_s)


def describe(path: Path, seconds: float) -> dict[str, Any]:
    """Version, clip, duration and machine, for the statistics."""
    return {
        "iwcodec": __version__,
        "clip": path.name,
        "seconds": seconds,
        "machine": {"cpu": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()},
    }
