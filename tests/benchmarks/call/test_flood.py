"""The abuse that `bench flood` causes, on a small scale."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest

for needed in ("fastapi", "psutil", "uvicorn"):
    pytest.importorskip(needed)
from iwcodec.benchmarks.call import flood
from iwcodec.benchmarks.call.simulation import ImmediateExecutor, SimulatedPath, connection_pair
from iwcodec.client.link.link import Link
from iwcodec.client.link.link_state import LinkState
from iwcodec.client.video.video_sender import VideoSender
from iwcodec.server.store.memory import MemoryStore
from support.calls.links import FPS, End, until
from support.codec.stub_runtime import NearestSourceFit, StubRuntime
from support.server.signalling import make_hub, running


@pytest.mark.simulated
async def test_a_flooder_is_valid_and_bounded():
    """The victim decodes what its budget allows, and drops the rest."""
    ours, theirs = connection_pair(SimulatedPath(), SimulatedPath(seed=2))
    victim, flooder = End(theirs), flood.Flooder(ours, StubRuntime.info)
    for connection in (ours, theirs):
        await connection.start()
    await until(lambda: victim.link.stats().dropped.get("flood", 0) > 3, 5)
    assert victim.link.incoming.motion.acknowledged
    assert not victim.link.stats().dropped.get("malformed")
    assert flooder.sent < 5 * flood.MESSAGES_PER_S
    await flooder.close()
    await victim.close()
    await ours.close()


NETWORK_S = 0.03


class OneCore(Executor):
    """Runs a job at a time, each for NETWORK_S of the simulated clock."""

    def __init__(self) -> None:
        self._free_s = 0.0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        loop, future = asyncio.get_running_loop(), Future[Any]()
        self._free_s = max(self._free_s, loop.time()) + NETWORK_S

        def work() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except Exception as error:
                future.set_exception(error)

        loop.call_at(self._free_s, work)
        return future


@pytest.mark.simulated
@pytest.mark.parametrize("kind", flood.KINDS)
async def test_the_honest_keep_their_frames(kind: str, monkeypatch: pytest.MonkeyPatch):
    """On a machine that shows Bob's 25 frames/s and has a quarter of a core left, whatever Eve sends."""
    monkeypatch.setattr(flood, "UNITS", 6)
    bobs, to_bob = connection_pair(SimulatedPath(), SimulatedPath(seed=2))
    eves, to_eve = connection_pair(SimulatedPath(seed=3), SimulatedPath(seed=4))
    bob, network = End(bobs), OneCore()
    camera_off = VideoSender(StubRuntime(), ImmediateExecutor(), lambda picture: True, NearestSourceFit())
    camera_off.pause(True)
    links = [
        Link(connection, camera_off, StubRuntime(), network, ImmediateExecutor()) for connection in (to_bob, to_eve)
    ]
    bob.film()
    for connection in (bobs, to_bob):
        await connection.start()
    await asyncio.sleep(8)
    assert links[0].stats().frames_per_s == pytest.approx(FPS, abs=1)
    eve = flood.Flooder(eves, StubRuntime.info, kind)
    for connection in (eves, to_eve):
        await connection.start()
    shown: list[float] = []
    for _ in range(6):
        await asyncio.sleep(2)
        shown.append(links[0].stats().frames_per_s)
    assert sum(shown) / len(shown) > 20, shown
    assert sum(shown[2:]) / len(shown[2:]) > FPS - 1, shown
    assert links[1].state is LinkState.IGNORED
    await eve.close()
    for link in links:
        await link.close()
    await bob.close()
    for connection in (eves, to_bob, to_eve):
        await connection.close()


async def test_the_server_closes_slow_connections_and_large_bodies(monkeypatch: pytest.MonkeyPatch):
    counts: Counter[str] = Counter()
    async with running(make_hub(MemoryStore())) as address:
        port = int(address.rpartition(":")[2])
        await flood.post_body("127.0.0.1", port, 50_000_000, counts)
        assert counts["body bytes"] < 10_000_000  # what fits into the buffers of the system
        slow = [asyncio.create_task(flood.hold_slowly("127.0.0.1", port, counts)) for _ in range(3)]
        while counts["slow connections"] < 3:
            await asyncio.sleep(0.01)
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)


def test_figures_are_of_their_part():
    samples = [{"at_s": float(n), "memory_mb": 10.0 + n, "handles": 5, "cpu_s": n / 10} for n in range(20)]
    clients = [flood.Client(None) for _ in flood.NAMES]
    for client in clients:
        client.reports = [
            {
                "at_s": float(n),
                "frames_per_s": float(n),
                "delay_ms": 100.0,
                "memory_mb": 50.0,
                "sound_packets": 16 * n,
                "cpu_s": n / 4,
            }
            for n in range(20)
        ]
    before = flood.figures(samples, clients, 0.0, 10.0)
    assert before["server"] == {"memory_mb": 19.0, "handles": 5, "cores": 0.1}
    assert before["Ada"] == {
        "frames_per_s": 7.5,
        "sound_packets_per_s": 16.0,
        "delay_ms": 100,
        "memory_mb": 50.0,
        "cores": 0.25,
    }
    during = flood.figures(samples, clients, 10.0, 20.0)
    attacks = {"valid": {"body bytes": 4}, "garbage": {"body bytes": 5}}
    result = {"parts": {"before": before, "valid": during, "garbage": during}, "attacks": attacks}
    assert flood.table(result).row_count == 3 + 5 + 3 + 1
    assert flood.rows(result)[-1] == ("attack: body bytes", "", "4", "5")


def test_the_published_table_is_that_of_the_results_file():
    """After `iwcodec bench flood --out benchmarks/results/flood.json` copy the lines that this shows."""
    folder = Path(flood.__file__).parents[1]
    result = json.loads((folder / "results" / "flood.json").read_text())
    section = (folder / "RESULTS.md").read_text().partition("## Under attack")[2].partition("\n## ")[0]
    published = [line for line in section.splitlines() if line.startswith("| ")]
    assert published == ["| | before | valid | garbage |", *(f"| {' | '.join(row)} |" for row in flood.rows(result))]
