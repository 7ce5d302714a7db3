"""Participants of a measured call: a camera that plays a clip, runtimes that save work, senders with planned
sources."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from iwcodec.client.link.link import Link
from iwcodec.client.link.link_state import RenderedFrame
from iwcodec.client.video.video_sender import VideoSender
from iwcodec.codec.file.clip import open_footage
from iwcodec.codec.file.options import EncodeOptions
from iwcodec.codec.media.types import Picture
from iwcodec.models.runtime.types import Keypoints, Runtime, Source

FPS = 25
"""Camera frames per second."""
MAX_FRAMES = 250
"""Frames used of a clip; they are played forwards and backwards, so that there is no cut."""


class Camera:
    """An endless camera that plays a clip forwards and backwards, with each frame's keypoints detected in advance."""

    def __init__(self, pictures: Sequence[Picture], runtime: Runtime) -> None:
        self._pictures = [*pictures, *pictures[-2:0:-1]]
        self.keypoints = {id(picture): runtime.detect(picture) for picture in pictures}

    def frame(self, number: int) -> Picture:
        return self._pictures[number % len(self._pictures)]


def load_camera(clip: Path, runtime: Runtime) -> Camera:
    """A camera that plays the first MAX_FRAMES of a video, cropped to the face."""
    video = open_footage(clip, EncodeOptions(size=runtime.info.size), lambda name, share: None)
    pictures = []
    for picture in video.pictures():
        pictures.append(picture)
        if len(pictures) == MAX_FRAMES:
            break
    return Camera(pictures, runtime)


class PrecomputedDetection:
    """A runtime that returns the precomputed keypoints of the camera's frames instead of detecting them again."""

    def __init__(self, runtime: Runtime, camera: Camera) -> None:
        self.info, self.device = runtime.info, runtime.device
        self._runtime = runtime
        self._camera = camera

    def detect(self, picture: Picture) -> Keypoints:
        known = self._camera.keypoints.get(id(picture))
        return self._runtime.detect(picture) if known is None else known

    def prepare(self, picture: Picture) -> Source:
        return self._runtime.prepare(picture)

    def with_picture(self, source: Source, picture: Picture) -> Source:
        return self._runtime.with_picture(source, picture)

    def reconstruct(self, keypoints: Keypoints, sources: Sequence[Source], suppression: float = 0.0) -> Picture:
        return self._runtime.reconstruct(keypoints, sources, suppression)


class DeferredReconstruction:
    """A runtime that records the arguments of `reconstruct` and returns a placeholder with their index.

    After the call `rebuild` reconstructs only the pictures that are compared.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.info, self.device = runtime.info, runtime.device
        self.detect, self.prepare, self.with_picture = runtime.detect, runtime.prepare, runtime.with_picture
        self._runtime = runtime
        self._recorded: list[tuple[Keypoints, list[Source], float]] = []

    def reconstruct(self, keypoints: Keypoints, sources: Sequence[Source], suppression: float = 0.0) -> Picture:
        self._recorded.append((keypoints, list(sources), suppression))
        return np.array([len(self._recorded) - 1], np.int64).view(np.uint8)

    def rebuild(self, placeholder: Picture) -> Picture:
        """The picture of a placeholder; real pictures (scene snapshots) are returned as they are."""
        if placeholder.ndim == 3:
            return placeholder
        return self._runtime.reconstruct(*self._recorded[int(placeholder.view(np.int64)[0])])


class PlannedSender(VideoSender):
    """A sender that records the capture times of its sources, or takes them from a plan.

    With a plan, the frames of these capture times become sources instead of those the sender would choose, so that
    calls over different paths are compared with equal sources.
    """

    def __init__(self, runtime: Runtime, executor: Executor, plan: Sequence[float] | None = None) -> None:
        super().__init__(runtime, executor)
        self.added_at: list[float] = []
        """Capture times of the sources."""
        self._plan = plan

    async def _judge(self, picture: Picture, keypoints: Keypoints, sources: list[Source], captured_s: float) -> None:
        if self._plan is None:
            await super()._judge(picture, keypoints, sources, captured_s)
        elif any(abs(captured_s - at) < 0.5 / FPS for at in self._plan):
            await self._add_source(picture, captured_s)

    async def _add_source(self, picture: Picture, captured_s: float) -> None:
        self.added_at.append(captured_s)
        await super()._add_source(picture, captured_s)


@dataclass
class End:
    """One participant: camera, sender and link, with the times of captured and displayed frames."""

    sender: PlannedSender
    link: Link
    camera: Camera
    captured: list[tuple[float, int]] = field(default_factory=list)
    """(capture time, frame number of the camera)."""
    shown: list[tuple[float, RenderedFrame]] = field(default_factory=list)
    """(display time, frame received from the other participant)."""

    async def film(self) -> None:
        """Push camera frames to the sender at FPS until cancelled."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        for number in range(1 << 30):
            await asyncio.sleep(max(0.0, start + number / FPS - loop.time()))
            now = loop.time()
            self.captured.append((now, number))
            await self.sender.push(self.camera.frame(number), now)

    async def watch(self) -> None:
        """Collect received frames until the link is closed."""
        loop = asyncio.get_running_loop()
        async for shown in self.link.frames():
            self.shown.append((loop.time(), shown))


def make_end(
    connection: Any,
    runtime: Runtime,
    executor: Executor,
    camera: Camera,
    receiver_runtime: Runtime | None = None,
    plan: Sequence[float] | None = None,
) -> End:
    """A participant on a connection. `receiver_runtime` reconstructs received frames, if another than `runtime`."""
    sender = PlannedSender(runtime, executor, plan)
    return End(sender, Link(connection, sender, receiver_runtime or runtime, executor), camera)
