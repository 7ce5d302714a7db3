"""Calls between two links over a simulated network, on a simulated clock."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import numpy as np

from iwcodec.benchmarks.call.simulation import ImmediateExecutor, SimulatedConnection, SimulatedPath, connection_pair
from iwcodec.client.link.link import Link
from iwcodec.client.link.link_state import RenderedFrame
from iwcodec.client.video.video_sender import VideoSender
from support.codec.stub_runtime import NearestSourceFit, StubRuntime, picture

FPS = 25


def level(at_s: float) -> float:
    """Brightness of the camera's picture, which swings slowly; 0..255."""
    return 128 + 60 * float(np.sin(at_s))


class End:
    """One participant."""

    def __init__(self, connection: SimulatedConnection) -> None:
        self.faces = True
        self.sender = VideoSender(StubRuntime(), ImmediateExecutor(), lambda picture: self.faces, NearestSourceFit())
        self.connection = connection
        self.link = Link(connection, self.sender, StubRuntime(), ImmediateExecutor())
        self.shown: list[tuple[float, RenderedFrame]] = []
        self.watching = asyncio.create_task(self.watch())
        self.filming: asyncio.Task[None] | None = None

    async def watch(self) -> None:
        async for shown in self.link.frames():
            self.shown.append((asyncio.get_running_loop().time(), shown))

    def film(self) -> None:
        async def frames() -> None:
            loop = asyncio.get_running_loop()
            start = loop.time()
            for n in range(1_000_000):
                await asyncio.sleep(start + n / FPS - loop.time())
                await self.sender.push(picture(level(loop.time())), loop.time())

        self.filming = asyncio.create_task(frames())

    def between(self, start: float, end: float) -> list[RenderedFrame]:
        return [shown for at, shown in self.shown if start <= at < end]

    async def close(self) -> None:
        if self.filming is not None:
            self.filming.cancel()
        await self.link.close()
        await self.watching
        await self.connection.close()


@asynccontextmanager
async def calling(
    there: SimulatedPath | None = None, back: SimulatedPath | None = None, bundling: tuple[bool, bool] = (True, True)
) -> AsyncIterator[list[End]]:
    """Two ends that film from the start. The first sends over `there`, the second over `back`."""
    ends = [End(c) for c in connection_pair(there or SimulatedPath(), back or SimulatedPath(seed=2), bundling)]
    for end in ends:
        end.film()
        await end.connection.start()
    yield ends
    for end in ends:
        await end.close()


async def until(condition: Callable[[], bool], longest_s: float) -> float:
    """Wait until `condition` holds; returns how long that took, in seconds."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    while not condition():
        assert loop.time() - start < longest_s, "did not happen in time"
        await asyncio.sleep(0.005)
    return loop.time() - start


def worst_error(end: End, frames: list[RenderedFrame]) -> float:
    """Largest difference, in grey levels, between a frame and what the peer's camera captured at that time."""
    return max(abs(float(frame.picture.mean()) - level(frame.due_s - frame.delay_s)) for frame in frames)
