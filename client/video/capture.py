"""Pictures and sound on their way in: cameras, microphones, and video files, looped, in their place.

Each source runs on a thread of its own and hands over what is newest; times are time.monotonic() of the instant at
which a picture or the first sample was taken. Cameras are opened through FFmpeg's devices (PyAV), microphones through
PortAudio (sounddevice), which is there to play the others anyway.
"""

import asyncio
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import av
import numpy as np

from iwcodec.client.audio.jitter_buffer import load_sounddevice
from iwcodec.codec.errors import CodecError, MediaError
from iwcodec.codec.media.audio import read_samples
from iwcodec.codec.media.crop_tracking import Crop, CropTracker, crop_resize, parse_crop
from iwcodec.codec.media.face_detector import DETECT_EVERY, FaceDetector
from iwcodec.codec.media.types import AUDIO_RATE, Picture, Samples
from iwcodec.codec.media.video import probe, read_video

MAX_FPS: Final = 30.0
BLOCK: Final = AUDIO_RATE * 20 // 1000
CLOSE_S: Final = 1.0
"""Longest wait for a source's thread to end."""
MAX_LATE_S: Final = 0.2
"""A frame of a file that could not be delivered for so long is left out, as a camera would."""

_FORMATS: Final = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}
_PICTURE: Final = {"video_size": "640x480", "framerate": "30"}


@dataclass(frozen=True)
class Device:
    """A camera or microphone: what the user may call it (number, name) and what opens it."""

    number: int
    name: str
    handle: str


@dataclass(frozen=True)
class Taken:
    """A frame as the camera gives it, uint8 RGB (H, W, 3), and when."""

    picture: Picture
    captured_s: float


# ---------------------------------------------------------------------------------------------- devices


def list_cameras() -> list[Device]:
    """Empty where there is none, or where they cannot be listed."""
    format = _FORMATS.get(sys.platform, "v4l2")
    try:
        found = [d for d in av.enumerate_input_devices(format) if "video" in d.media_types or not d.media_types]
    except (av.FFmpegError, ValueError, OSError):
        found = []
    if sys.platform == "linux":
        found = [device for device in found if os.path.exists(device.name)]
    return [Device(n, d.description or d.name, _handle(d.name, d.description)) for n, d in enumerate(found)]


def _handle(name: str, description: str) -> str:
    """What FFmpeg opens: /dev/video0 on Linux, `0:none` (no sound) on macOS, `video=NAME` on Windows."""
    if sys.platform == "darwin":
        return f"{name}:none"
    return f"video={description or name}" if sys.platform == "win32" else name


def list_microphones() -> list[Device]:
    """Raises CodecError where PortAudio is not there."""
    inputs = [d for d in load_sounddevice().query_devices() if d["max_input_channels"] > 0]
    return [Device(n, str(d["name"]), str(d["index"])) for n, d in enumerate(inputs)]


def choose(devices: list[Device], wanted: str | None, kind: str) -> Device:
    """By number, or by a part of the name, or the first. Raises CodecError, which names those there are."""
    if not devices:
        raise CodecError(f"There is no {kind} on this machine.")
    if wanted is None:
        return devices[0]
    for device in devices:
        if wanted in (str(device.number), device.name):
            return device
    for device in devices:
        if wanted.casefold() in device.name.casefold():
            return device
    names = ", ".join(f"{device.number} {device.name}" for device in devices)
    raise CodecError(f"There is no {kind} {wanted!r}; there are: {names}.")


# ---------------------------------------------------------------------------------------------- pictures


def camera_frames(device: Device) -> Iterator[Taken]:
    """Frames of a camera as they come. Raises MediaError where it cannot be opened or goes away."""
    format = _FORMATS.get(sys.platform, "v4l2")
    try:
        container = _open_camera(device, format)
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MediaError(f"The camera {device.name} cannot be used ({reason}); is another program using it?") from error
    with container:
        try:
            for frame in container.decode(video=0):
                now = time.monotonic()
                yield Taken(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8), now)
        except (av.FFmpegError, OSError) as error:
            raise MediaError(f"The camera {device.name} went away.") from error
    raise MediaError(f"The camera {device.name} stopped.")


def _open_camera(device: Device, format: str) -> Any:
    try:
        return av.open(device.handle, format=format, options=_PICTURE, container_options={})
    except (av.FFmpegError, OSError):
        # Not every camera has that size and rate: take what it has.
        return av.open(device.handle, format=format)


class Clip:
    """A video file that plays over and over from the moment it is made, pictures and sound on one clock."""

    def __init__(self, path: Path, into_s: float = 0.0) -> None:
        """Begins `into_s` seconds into the file. Raises MediaError for what is no video."""
        info = probe(path)
        self.path = path
        self.sound = info.audio is not None
        self.fps = float(info.fps)
        self.duration_s = info.duration_s or self._measured()
        self.started_s = time.monotonic() - into_s

    def _measured(self) -> float:
        return max(frame.time_s for frame in read_video(self.path)) + 1 / self.fps

    def frames(self) -> Iterator[Taken]:
        """At the file's own rate, for ever; waits until each is due and leaves out what is late."""
        for start_s in self._rounds():
            for frame in read_video(self.path):
                due = start_s + frame.time_s
                now = time.monotonic()
                if now > due + MAX_LATE_S:
                    continue
                time.sleep(max(0.0, due - now))
                yield Taken(frame.picture, due)

    def blocks(self) -> Iterator[tuple[Samples, float]]:
        """Its sound in blocks of 20 ms, each when its last sample is due, and the instant of the first."""
        for start_s in self._rounds():
            position = 0
            for block in _regular(read_samples(self.path, duration_s=self.duration_s), BLOCK):
                taken = start_s + position / AUDIO_RATE
                position += len(block)
                time.sleep(max(0.0, taken + len(block) / AUDIO_RATE - time.monotonic()))
                yield block, taken

    def _rounds(self) -> Iterator[float]:
        """When each round through the file begins. One that cannot be kept up with at all is skipped."""
        start_s = self.started_s
        while True:
            yield start_s
            start_s += self.duration_s
            behind = time.monotonic() - start_s
            if behind > 0:
                start_s += behind // self.duration_s * self.duration_s
            time.sleep(max(0.0, start_s - time.monotonic()))


def _regular(blocks: Iterator[Samples], count: int) -> Iterator[Samples]:
    waiting = np.zeros(0, np.int16)
    for block in blocks:
        waiting = np.concatenate([waiting, block])
        whole = len(waiting) // count * count
        for begin in range(0, whole, count):
            yield waiting[begin : begin + count]
        waiting = waiting[whole:]
    if len(waiting):
        yield waiting


class LiveCrop:
    """The square of each frame that is sent: as for files, but without knowing what comes. The face is looked for now
    and then; the crop stands still until it has left its place, and then travels slowly (crop_tracking.py)."""

    def __init__(self, size: int, fps: float, mode: str = "face") -> None:
        """`mode`: face, none, or X,Y,SIDE."""
        self._size, self._fps, self._mode = size, fps, mode
        self._detector = FaceDetector() if mode == "face" else None
        self._shape: tuple[int, int] | None = None
        self._fixed: Crop | None = None
        self._count = 0

    def __call__(self, picture: Picture) -> Picture:
        height, width = picture.shape[:2]
        if (height, width) != self._shape:
            self._shape, self._count = (height, width), 0
            self._fixed = parse_crop(self._mode, width, height)
            self._tracker = CropTracker(width, height, self._fps)
        crop = self._fixed or self._followed(picture)
        return crop_resize(picture, crop, self._size)

    def _followed(self, picture: Picture) -> Crop:
        look = self._detector is not None and self._count % DETECT_EVERY == 0
        self._count += 1
        return self._tracker.update(self._detector.detect(picture) if look and self._detector else None)


class Pictures:
    """Square pictures of a source, for the event loop: `async for taken in pictures`. The newest wins; ends when
    closed. Raises MediaError where the source fails."""

    def __init__(self, frames: Iterator[Taken], crop: Callable[[Picture], Picture]) -> None:
        """Starts at once; needs a running event loop."""
        self._loop = asyncio.get_running_loop()
        self._newest: Taken | None = None
        self._error: CodecError | None = None
        self._ended = False
        self._ready = asyncio.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(frames, crop), name="camera", daemon=True)
        self._thread.start()

    def __aiter__(self) -> AsyncIterator[Taken]:
        return self

    async def __anext__(self) -> Taken:
        while self._newest is None:
            if self._ended:
                raise self._error or StopAsyncIteration
            self._ready.clear()
            await self._ready.wait()
        taken, self._newest = self._newest, None
        return taken

    def close(self) -> None:
        """Takes effect with the next frame."""
        self._closed.set()
        self._thread.join(CLOSE_S)

    def _run(self, frames: Iterator[Taken], crop: Callable[[Picture], Picture]) -> None:
        last = 0.0
        try:
            for taken in frames:
                if self._closed.is_set():
                    break
                if taken.captured_s - last < 0.9 / MAX_FPS:
                    continue
                last = taken.captured_s
                self._tell(self._put, Taken(crop(taken.picture), taken.captured_s))
            self._tell(self._end, None)
        except CodecError as error:
            self._tell(self._end, error)
        except Exception as error:  # whatever a camera makes of itself: the user must be told
            self._tell(self._end, MediaError(f"The camera failed: {error}"))

    def _put(self, taken: Taken) -> None:
        self._newest = taken
        self._ready.set()

    def _end(self, error: CodecError | None) -> None:
        self._ended, self._error = True, error
        self._ready.set()

    def _tell(self, what: Callable[[Any], None], value: Any) -> None:
        with suppress(RuntimeError):  # the loop has been closed meanwhile
            self._loop.call_soon_threadsafe(what, value)


# ------------------------------------------------------------------------------------------------ sound

Listener = Callable[[Samples, float], None]


class ClipSound:
    """The sound of a looped file, pushed to `listener` on the event loop until closed."""

    def __init__(self, clip: Clip, listener: Listener) -> None:
        self._closed = threading.Event()
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, args=(clip, loop, listener), name="sound", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._thread.join(CLOSE_S)

    def _run(self, clip: Clip, loop: asyncio.AbstractEventLoop, listener: Listener) -> None:
        for block, taken_s in clip.blocks():
            if self._closed.is_set():
                return
            with suppress(RuntimeError):  # the loop has been closed meanwhile
                loop.call_soon_threadsafe(listener, block, taken_s)


class MicrophoneSound:
    """A microphone, pushed to `listener` on the event loop until closed. Raises CodecError where it cannot be used."""

    def __init__(self, device: Device | None, listener: Listener) -> None:
        """None: the system's default."""
        sounddevice = load_sounddevice()
        loop = asyncio.get_running_loop()

        def take(samples: Any, count: int, times: Any, _: Any) -> None:
            age = times.currentTime - times.inputBufferAdcTime
            taken_s = time.monotonic() - (age if 0 <= age < 1 else count / AUDIO_RATE)
            with suppress(RuntimeError):  # the loop has been closed meanwhile
                loop.call_soon_threadsafe(listener, np.array(samples[:, 0], np.int16), taken_s)

        number = None if device is None else int(device.handle)
        try:
            self._stream = sounddevice.InputStream(
                AUDIO_RATE, BLOCK, device=number, channels=1, dtype="int16", latency="low", callback=take
            )
            self._stream.start()
        except Exception as error:  # PortAudioError, which cannot be named where the import failed
            raise CodecError(f"The microphone cannot be used: {error}.") from error

    def close(self) -> None:
        self._stream.stop()
        self._stream.close()
