"""Capture of pictures from cameras, or from a video file that is played in a loop.

A source runs in a thread of its own and delivers its newest frame to the event loop. Times are time.monotonic() at the
capture of a picture or of the first sample. Cameras are opened through FFmpeg's devices (PyAV).
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

from iwcodec.client.audio.jitter_buffer import BLOCK
from iwcodec.codec.errors import CodecError, MediaError
from iwcodec.codec.media.audio.samples import read_samples
from iwcodec.codec.media.crop.face_detector import DETECT_EVERY, FaceDetector
from iwcodec.codec.media.crop.square import Crop, crop_resize, parse_crop
from iwcodec.codec.media.crop.tracking import CropTracker
from iwcodec.codec.media.types import AUDIO_RATE, Picture, Samples
from iwcodec.codec.media.video import probe, read_video

MAX_FPS: Final = 30.0
"""Frames that a camera delivers faster than this are dropped."""
CLOSE_S: Final = 1.0
"""Longest wait for a source's thread to end."""
MAX_LATE_S: Final = 0.2
"""A frame of a file that is later than this is dropped, as a camera would."""

_FORMATS: Final = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}
_CAMERA_OPTIONS: Final = {"video_size": "640x480", "framerate": "30"}


@dataclass(frozen=True)
class Device:
    """A camera or microphone. The user selects it by number or name; FFmpeg or PortAudio opens it by `handle`."""

    number: int
    name: str
    handle: str


@dataclass(frozen=True)
class CapturedFrame:
    """A camera frame, uint8 RGB (height, width, 3), and its capture time."""

    picture: Picture
    captured_s: float


def list_cameras() -> list[Device]:
    """All cameras; none if they cannot be listed."""
    format = _FORMATS.get(sys.platform, "v4l2")
    try:
        found = [d for d in av.enumerate_input_devices(format) if "video" in d.media_types or not d.media_types]
    except (av.FFmpegError, ValueError, OSError):
        found = []
    if sys.platform == "linux":
        found = [device for device in found if os.path.exists(device.name)]
    return [Device(n, d.description or d.name, _handle(d.name, d.description)) for n, d in enumerate(found)]


def _handle(name: str, description: str) -> str:
    """The name that FFmpeg opens: /dev/video0 on Linux, `0:none` (no sound) on macOS, `video=NAME` on Windows."""
    if sys.platform == "darwin":
        return f"{name}:none"
    return f"video={description or name}" if sys.platform == "win32" else name


def choose(devices: list[Device], selector: str | None, kind: str) -> Device:
    """The device with this number, name, or part of a name; None: the first one. Raises CodecError, which lists the
    devices, if there is none."""
    if not devices:
        raise CodecError(f"There is no {kind} on this machine.")
    if selector is None:
        return devices[0]
    for device in devices:
        if selector in (str(device.number), device.name):
            return device
    for device in devices:
        if selector.casefold() in device.name.casefold():
            return device
    names = ", ".join(f"{device.number} {device.name}" for device in devices)
    raise CodecError(f"There is no {kind} {selector!r}; there are: {names}.")


def camera_frames(device: Device) -> Iterator[CapturedFrame]:
    """Frames of a camera as they arrive. Raises MediaError if it cannot be opened or stops."""
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
                yield CapturedFrame(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8), now)
        except (av.FFmpegError, OSError) as error:
            raise MediaError(f"The camera {device.name} went away.") from error
    raise MediaError(f"The camera {device.name} stopped.")


def _open_camera(device: Device, format: str) -> Any:
    try:
        return av.open(device.handle, format=format, options=_CAMERA_OPTIONS, container_options={})
    except (av.FFmpegError, OSError):
        # Not every camera has that size and rate: use its default.
        return av.open(device.handle, format=format)


class Clip:
    """A video file that plays in a loop from its creation on, pictures and sound on one clock."""

    def __init__(self, path: Path, offset_s: float = 0.0) -> None:
        """Starts `offset_s` seconds into the file. Raises MediaError if it is not a video."""
        info = probe(path)
        self.path = path
        self.has_sound = info.audio is not None
        self.fps = float(info.fps)
        self.duration_s = info.duration_s or self._measure_duration()
        self.started_s = time.monotonic() - offset_s

    def _measure_duration(self) -> float:
        return max(frame.time_s for frame in read_video(self.path)) + 1 / self.fps

    def frames(self) -> Iterator[CapturedFrame]:
        """Frames at the file's own rate, without end. Waits until each is due and drops late ones."""
        for start_s in self._loops():
            for frame in read_video(self.path):
                due = start_s + frame.time_s
                now = time.monotonic()
                if now > due + MAX_LATE_S:
                    continue
                time.sleep(max(0.0, due - now))
                yield CapturedFrame(frame.picture, due)

    def blocks(self) -> Iterator[tuple[Samples, float]]:
        """Its sound in blocks of 20 ms, without end: (samples, time of the first). Waits until a block's last sample is
        due."""
        for start_s in self._loops():
            position = 0
            for block in _split(read_samples(self.path, duration_s=self.duration_s), BLOCK):
                captured_s = start_s + position / AUDIO_RATE
                position += len(block)
                time.sleep(max(0.0, captured_s + len(block) / AUDIO_RATE - time.monotonic()))
                yield block, captured_s

    def _loops(self) -> Iterator[float]:
        """Start time of each pass through the file. Passes that have ended already are skipped."""
        start_s = self.started_s
        while True:
            yield start_s
            start_s += self.duration_s
            behind = time.monotonic() - start_s
            if behind > 0:
                start_s += behind // self.duration_s * self.duration_s
            time.sleep(max(0.0, start_s - time.monotonic()))


def _split(blocks: Iterator[Samples], count: int) -> Iterator[Samples]:
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
    """Crops each frame to the square that is sent. The face is detected in every DETECT_EVERY-th frame; the crop stays
    in place until the face has moved away, then follows slowly (media/crop/tracking.py)."""

    def __init__(self, size: int, fps: float, mode: str = "face") -> None:
        """`size`: side of the result, pixels. `mode`: face, none (a square from the middle), or X,Y,SIDE."""
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
        crop = self._fixed or self._track(picture)
        return crop_resize(picture, crop, self._size)

    def _track(self, picture: Picture) -> Crop:
        is_due = self._detector is not None and self._count % DETECT_EVERY == 0
        self._count += 1
        return self._tracker.update(self._detector.detect(picture) if is_due and self._detector else None)


class Pictures:
    """Square pictures of a source, for the event loop: `async for frame in pictures`. A slow consumer gets the newest
    one. Ends when closed. Raises MediaError if the source fails."""

    def __init__(self, frames: Iterator[CapturedFrame], crop: Callable[[Picture], Picture]) -> None:
        """Starts a thread at once. Needs a running event loop."""
        self._loop = asyncio.get_running_loop()
        self._newest: CapturedFrame | None = None
        self._error: CodecError | None = None
        self._ended = False
        self._ready = asyncio.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(frames, crop), name="camera", daemon=True)
        self._thread.start()

    def __aiter__(self) -> AsyncIterator[CapturedFrame]:
        return self

    async def __anext__(self) -> CapturedFrame:
        while self._newest is None:
            if self._ended:
                raise self._error or StopAsyncIteration
            self._ready.clear()
            await self._ready.wait()
        frame, self._newest = self._newest, None
        return frame

    def close(self) -> None:
        """Stop with the next frame."""
        self._closed.set()
        self._thread.join(CLOSE_S)

    def _run(self, frames: Iterator[CapturedFrame], crop: Callable[[Picture], Picture]) -> None:
        last = 0.0
        try:
            for frame in frames:
                if self._closed.is_set():
                    break
                if frame.captured_s - last < 0.9 / MAX_FPS:
                    continue
                last = frame.captured_s
                self._post(self._put, CapturedFrame(crop(frame.picture), frame.captured_s))
            self._post(self._end, None)
        except CodecError as error:
            self._post(self._end, error)
        except Exception as error:  # a driver may raise anything: show it to the user
            self._post(self._end, MediaError(f"The camera failed: {error}"))

    def _put(self, frame: CapturedFrame) -> None:
        self._newest = frame
        self._ready.set()

    def _end(self, error: CodecError | None) -> None:
        self._ended, self._error = True, error
        self._ready.set()

    def _post(self, callback: Callable[[Any], None], value: Any) -> None:
        with suppress(RuntimeError):  # the loop was closed meanwhile
            self._loop.call_soon_threadsafe(callback, value)
