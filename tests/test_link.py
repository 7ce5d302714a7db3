"""Two links over real SCTP on simulated paths and a simulated clock (benchmarks/simulation.py)."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest

pytest.importorskip("aiortc")

from iwcodec.benchmarks.simulation import AtOnce, Path, SimulatedConnection, connection_pair, simulate
from iwcodec.client.feed import Feed
from iwcodec.client.link import FROZEN_S, Link, LinkState, Shown
from stub_runtime import StubRuntime, picture

FPS = 25


def level(at_s: float) -> float:
    """The brightness of the camera's picture: swings slowly."""
    return 128 + 60 * float(np.sin(at_s))


class End:
    """One participant."""

    def __init__(self, connection: SimulatedConnection) -> None:
        self.faces = True
        self.feed = Feed(StubRuntime(), AtOnce(), lambda picture: self.faces)
        self.connection = connection
        self.link = Link(connection, self.feed, StubRuntime(), AtOnce())  # type: ignore[arg-type]
        self.shown: list[tuple[float, Shown]] = []
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
                await self.feed.push(picture(level(loop.time())), loop.time())

        self.filming = asyncio.create_task(frames())

    def between(self, start: float, end: float) -> list[Shown]:
        return [shown for at, shown in self.shown if start <= at < end]

    async def close(self) -> None:
        if self.filming is not None:
            self.filming.cancel()
        await self.link.close()
        await self.watching
        await self.connection.close()


def call(
    case: Callable[[End, End], Coroutine[Any, Any, None]],
    there: Path | None = None,
    back: Path | None = None,
    bundling: tuple[bool, bool] = (True, True),
) -> list[End]:
    """Both film from the start; the first one sends over `there`."""

    async def work() -> list[End]:
        ends = [End(c) for c in connection_pair(there or Path(), back or Path(seed=2), bundling)]
        for end in ends:
            end.film()
            await end.connection.start()
        await case(*ends)
        for end in ends:
            await end.close()
        return ends

    return simulate(work())


async def until(condition: Callable[[], bool], longest_s: float) -> float:
    """Wait for something; returns how long it took."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    while not condition():
        assert loop.time() - start < longest_s, "did not happen in time"
        await asyncio.sleep(0.005)
    return loop.time() - start


def worst_error(end: End, shown: list[Shown]) -> float:
    """Grey levels between what is shown and what the other's camera saw then."""
    return max(abs(float(item.picture.mean()) - level(item.due_s - item.delay_s)) for item in shown)


def test_a_call():
    async def case(a: End, b: End) -> None:
        assert a.link.state == LinkState.CONNECTING
        await until(lambda: a.link.state == LinkState.LIVE and b.link.state == LinkState.LIVE, 1.5)
        await asyncio.sleep(20)
        for end in (a, b):
            stats = end.link.stats()
            assert stats.frames_per_s == pytest.approx(FPS, abs=1.5)
            assert stats.loss == 0
            assert sum(stats.dropped.values()) == 0
            assert 90 < stats.delay_ms < 150
            assert stats.sent_kbps["total"] < 12
            assert stats.received_kbps["total"] == pytest.approx(stats.sent_kbps["total"], rel=0.2)
            assert end.link.playout_delay_s() == pytest.approx(0.085, abs=0.02)
            late = end.between(end.shown[-1][0] - 10, 1e9)
            assert [s.number for s in late] == list(range(late[0].number, late[-1].number + 1))
            assert worst_error(end, late) < 4
            assert all(at == pytest.approx(shown.due_s, abs=0.002) for at, shown in end.shown)
            assert end.feed.preview is not None

    call(case)


def test_closing():
    async def case(a: End, b: End) -> None:
        await until(lambda: a.link.state == LinkState.LIVE, 2)
        await a.link.close()
        await asyncio.wait_for(a.watching, 1)
        assert a.link.state == LinkState.CLOSED
        await until(lambda: b.link.state == LinkState.FROZEN, FROZEN_S + 1)

    call(case)
