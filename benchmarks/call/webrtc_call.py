"""Calls between two real WebRTC connections (ICE, DTLS, UDP) in this process: delay, and time to join."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any
from unittest import mock

import numpy as np
from aiortc import RTCPeerConnection
from OpenSSL import SSL

from iwcodec.benchmarks.call.participants import (
    Camera,
    End,
    PlannedSender,
    PrecomputedDetection,
    SingleSourceSender,
    make_end,
)
from iwcodec.benchmarks.call.simulated_call import SETTLED_S
from iwcodec.benchmarks.call.simulation import ImmediateExecutor, ShapedSocket, SimulatedPath, simulate
from iwcodec.client.link.link import Link
from iwcodec.client.link.link_state import LinkState
from iwcodec.client.transport.connection import make_connection
from iwcodec.client.transport.sctp import IP_UDP, BundlingSctpTransport
from iwcodec.models.runtime.types import Runtime


async def connect(a: RTCPeerConnection, b: RTCPeerConnection, prepare: Callable[[], None], signalling_s: float) -> None:
    """Exchange offer and answer, each delayed by `signalling_s`; `prepare` is called when both sides have sockets."""
    await a.setLocalDescription(await a.createOffer())
    await asyncio.sleep(signalling_s)
    await b.setRemoteDescription(a.localDescription)
    await b.setLocalDescription(await b.createAnswer())
    prepare()
    await asyncio.sleep(signalling_s)
    await a.setRemoteDescription(b.localDescription)


async def loopback(runtime: Runtime, camera: Camera, duration_s: float) -> dict[str, Any]:
    """One side films, the other displays, in real time.

    Delay is from a frame's capture until its picture is on the display.
    """
    connections = [make_connection([]) for _ in range(2)]
    datagrams = [0, 0]
    started = time.monotonic()
    with ThreadPoolExecutor(4) as executor:
        a, b = (make_end(connection, runtime, executor, camera) for connection in connections)
        tasks = [asyncio.create_task(task) for task in (a.film(), b.watch())]
        await connect(connections[0], connections[1], lambda: None, 0.0)
        while b.link.state != LinkState.LIVE:
            await asyncio.sleep(0.01)
        transports: list[Any] = [connection.sctp for connection in connections]
        for n, transport in enumerate(transports):
            count_datagrams(transport, datagrams, n)
        before = [sum(transport.sent.values()) for transport in transports]
        captured_ms: dict[int, int] = {}
        for _ in range(round(duration_s)):
            await asyncio.sleep(1)
            captured_ms.update(a.link.outgoing.motion.captured)
        counted = [sum(t.sent.values()) - start for t, start in zip(transports, before, strict=True)]
        for end in (a, b):
            await end.link.close()
        for connection in connections:
            await connection.close()
        for task in tasks:
            task.cancel()
    assert a.sender._epoch_s is not None
    settled = [(at, shown) for at, shown in b.shown if shown.number in captured_ms and at > started + SETTLED_S]
    delays = [1000 * (at - a.sender._epoch_s) - captured_ms[shown.number] for at, shown in settled]
    return {
        "frames": len(delays),
        "delay_ms": {name: float(np.percentile(delays, s)) for name, s in (("p50", 50), ("p95", 95), ("p99", 99))},
        "estimated_delay_ms_p50": 1000 * float(np.median([shown.delay_s for _, shown in settled])),
        "frames_shown_per_s": len(delays) / (settled[-1][0] - settled[0][0]),
        "reconstruction_ms_p50": 1000 * float(np.median(b.link.incoming.render_s)),
        "bytes_counted_to_bytes_in_datagrams": [c / d for c, d in zip(counted, datagrams, strict=True)],
    }


def count_datagrams(transport: BundlingSctpTransport, into: list[int], n: int) -> None:
    """Add the size of every datagram that a connection sends from now on, UDP and IP included, to `into[n]`."""
    ice = transport.transport.transport
    send = ice._send

    async def counting(data: bytes) -> None:
        into[n] += len(data) + IP_UDP
        await send(data)

    ice._send = counting


async def join_shaped(
    runtime: Runtime,
    camera: Camera,
    kbps: float,
    delay_s: float,
    executor: Executor,
    make_sender: Callable[[Runtime, Executor], PlannedSender] = PlannedSender,
) -> dict[str, float]:
    """Seconds from creating a newcomer's connection until its channels open and until it has the first picture.

    The other side has been filming for 2 s. Signalling is delayed like the path.
    """
    paths = [SimulatedPath(kbps=kbps, delay_s=delay_s, seed=seed) for seed in (1, 2)]
    now = asyncio.get_running_loop().time
    there = make_sender(runtime, executor)
    filming = End(there, None, camera)  # type: ignore[arg-type]
    task = asyncio.create_task(filming.film())
    await asyncio.sleep(2.0)
    started = now()
    connections = [make_connection([]) for _ in range(2)]
    sender = make_sender(runtime, executor)
    newcomer = End(sender, Link(connections[0], sender, runtime, executor), camera)
    link = Link(connections[1], there, runtime, executor)
    tasks = [task, asyncio.create_task(newcomer.film()), asyncio.create_task(newcomer.watch())]

    def shape() -> None:
        for connection, path in zip(connections, paths, strict=True):
            assert connection.sctp is not None
            for protocol in connection.sctp.transport.transport._connection._protocols:
                shaped: Any = ShapedSocket(protocol.transport, path)
                protocol.transport = shaped

    await connect(connections[0], connections[1], shape, delay_s)
    while newcomer.link.state in (LinkState.CONNECTING, LinkState.RECONNECTING):
        await asyncio.sleep(0.01)
    opened = now()
    while not newcomer.shown and now() - started < 30:
        await asyncio.sleep(0.01)
    shown = newcomer.shown[0][0] if newcomer.shown else float("nan")
    for each in (newcomer.link, link):
        await each.close()
    for connection in connections:
        await connection.close()
    for task in tasks:
        task.cancel()
    return {"channels_open_s": opened - started, "first_picture_s": shown - started}


async def join_in_real_time(runtime: Runtime, camera: Camera, kbps: float, delay_s: float) -> dict[str, float]:
    """`join_shaped` in real time, computation included."""
    with ThreadPoolExecutor(4) as executor:
        return await join_shaped(runtime, camera, kbps, delay_s, executor)


def join_simulated(runtime: Runtime, camera: Camera, kbps: float, delay_s: float) -> dict[str, float]:
    """`join_shaped` on the simulated clock, without the time of computation.

    Datagrams are real and arrive by the simulated clock. OpenSSL has its own clock; its retransmission timer is
    disabled, because nothing is lost.
    """
    with mock.patch.object(SSL.Connection, "DTLSv1_get_timeout", return_value=None):
        return simulate(
            join_shaped(
                PrecomputedDetection(runtime, camera), camera, kbps, delay_s, ImmediateExecutor(), SingleSourceSender
            )
        )
