"""A call between two real WebRTC connections (ICE, DTLS, UDP) in this process, for its delay."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from aiortc import RTCPeerConnection

from iwcodec.benchmarks.call.participants import Camera, make_end
from iwcodec.benchmarks.call.simulated_call import SETTLED_S
from iwcodec.client.link.link_state import LinkState
from iwcodec.client.transport.connection import make_connection
from iwcodec.client.transport.sctp import IP_UDP, BundlingSctpTransport
from iwcodec.models.runtime.types import Runtime


async def connect(a: RTCPeerConnection, b: RTCPeerConnection) -> None:
    """Exchange offer and answer."""
    await a.setLocalDescription(await a.createOffer())
    await b.setRemoteDescription(a.localDescription)
    await b.setLocalDescription(await b.createAnswer())
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
        await connect(*connections)
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
