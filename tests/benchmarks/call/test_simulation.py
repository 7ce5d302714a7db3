import asyncio

import pytest

from iwcodec.benchmarks.call.simulation import ImmediateExecutor, SimulatedPath, connection_pair, simulate


def arrivals(path: SimulatedPath, packets: int, interval_s: float, size: int = 125) -> list[tuple[float, float]]:
    """Send packets; returns when each that arrives was sent and arrived, in order of arrival."""

    async def work() -> list[tuple[float, float]]:
        loop, out = asyncio.get_running_loop(), []
        for _ in range(packets):
            sent = loop.time()
            path.send(size, lambda sent=sent: out.append((sent, loop.time())))
            await asyncio.sleep(interval_s)
        await asyncio.sleep(10)
        return out

    return simulate(work())


def test_time_passes_without_waiting() -> None:
    async def work() -> float:
        loop = asyncio.get_running_loop()
        start = loop.time()
        await asyncio.sleep(10_000)
        assert await loop.run_in_executor(ImmediateExecutor(), lambda: 7) == 7
        return loop.time() - start

    assert simulate(work()) == pytest.approx(10_000)


def test_waiting_for_nothing_is_an_error() -> None:
    async def work() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="never happen"):
        simulate(work())


def test_delay() -> None:
    got = arrivals(SimulatedPath(delay_s=0.05), 10, 0.1)
    assert [b - a for a, b in got] == pytest.approx([0.0501] * 10, abs=1e-4)


def test_rate_and_queue() -> None:
    """10 kbit a second offered to a link of 5: the queue fills up, then half of the packets are lost."""
    got = arrivals(SimulatedPath(kbps=5.0, delay_s=0.0, queue_s=1.0), 200, 0.1)
    assert len(got) == pytest.approx(105, abs=3)
    assert max(b - a for a, b in got) == pytest.approx(1.2, abs=0.1)


def test_loss_duplicates_and_outages() -> None:
    assert len(arrivals(SimulatedPath(loss=0.3), 1000, 0.01)) == pytest.approx(700, abs=40)
    assert len(arrivals(SimulatedPath(duplicates=0.3), 1000, 0.01)) == pytest.approx(1300, abs=40)
    assert len(arrivals(SimulatedPath(outages=((1002.0, 1004.0),)), 100, 0.1)) == pytest.approx(80, abs=1)


def test_order() -> None:
    sent = [a for a, _ in arrivals(SimulatedPath(jitter_s=0.05), 200, 0.01)]
    assert sent == sorted(sent)
    sent = [a for a, _ in arrivals(SimulatedPath(reordered=0.2), 200, 0.01)]
    assert sent != sorted(sent)


def test_the_same_every_time() -> None:
    first, second = (arrivals(SimulatedPath(loss=0.2, jitter_s=0.1, seed=3), 100, 0.01) for _ in range(2))
    assert first == second


@pytest.mark.simulated
async def test_packets_are_counted_as_on_the_wire() -> None:
    """An association over a path: a message of 10 bytes is a packet of 85 + 10 + 2 of padding."""
    there = SimulatedPath()
    connections = connection_pair(there, SimulatedPath())
    channels = [connection.createDataChannel("x", negotiated=True, id=1) for connection in connections]
    for connection in connections:
        await connection.start()
    while channels[0].readyState != "open":
        await asyncio.sleep(0.01)
    await asyncio.sleep(1)
    packets, size = there.packets, there.bytes
    channels[0].send(bytes(10))
    await asyncio.sleep(0.1)
    assert (there.packets - packets, there.bytes - size) == (1, 97)
    assert there.bytes == sum(connections[0].sctp.sent.values())
    for connection in connections:
        await connection.close()
