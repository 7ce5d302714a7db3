"""Handshakes with real ICE and OpenSSL, over simulated paths and on a simulated clock."""

import asyncio
from typing import Any
from unittest import mock

import pytest
from aiortc import RTCPeerConnection
from OpenSSL import SSL

from iwcodec.benchmarks.call.simulation import SimulatedPath, simulate
from iwcodec.client.transport.connection import make_connection
from iwcodec.client.transport.dtls import IGNORED_PACKETS_PER_S, PACKET_BURST, REPEAT_S, RepeatingDtlsTransport
from iwcodec.client.transport.sctp import IP_UDP

pytestmark = pytest.mark.simulated


class ShapedSocket:
    """A datagram transport whose outgoing packets pass through a simulated path."""

    def __init__(self, socket: Any, path: SimulatedPath) -> None:
        self._socket = socket
        self._path = path

    def sendto(self, data: bytes, address: Any) -> None:
        self._path.send(
            len(data) + IP_UDP, lambda: None if self._socket.is_closing() else self._socket.sendto(data, address)
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


async def connect(paths: list[SimulatedPath], wait_s: float) -> list[RTCPeerConnection]:
    """Two ends that send over `paths`, `wait_s` after both have the other's SDP."""
    ends = [make_connection([]) for _ in paths]
    for end in ends:
        end.createDataChannel("x", negotiated=True, id=1)
    a, b = ends
    await a.setLocalDescription(await a.createOffer())
    await b.setRemoteDescription(a.localDescription)
    await b.setLocalDescription(await b.createAnswer())
    for end, path in zip(ends, paths, strict=True):
        ice: Any = end.sctp.transport.transport._connection
        for protocol in ice._protocols:
            protocol.transport = ShapedSocket(protocol.transport, path)
    await a.setRemoteDescription(b.localDescription)
    await asyncio.sleep(wait_s)
    return ends


async def close(ends: list[RTCPeerConnection]) -> None:
    for end in ends:
        await end.close()


def test_lost_flights_are_retransmitted() -> None:
    """OpenSSL's own retransmission is disabled, because its clock is not simulated."""

    async def case(seed: int) -> None:
        ends = await connect([SimulatedPath(loss=0.3, seed=2 * seed + way) for way in (0, 1)], 20.0)
        assert [end.sctp.transport.state for end in ends] == ["connected"] * 2
        assert [end.sctp.state for end in ends] == ["connected"] * 2
        await close(ends)

    with mock.patch.object(SSL.Connection, "DTLSv1_get_timeout", return_value=None):
        for seed in range(12):
            simulate(case(seed))


def test_nothing_is_retransmitted_without_loss() -> None:
    async def case(repeats: bool) -> list[int]:
        paths = [SimulatedPath(seed=3), SimulatedPath(seed=4)]
        with mock.patch.object(
            RepeatingDtlsTransport, "_repeat", RepeatingDtlsTransport._repeat if repeats else nothing
        ):
            ends = await connect(paths, 3 * REPEAT_S)
        counts = [path.packets for path in paths]
        await close(ends)
        return counts

    def nothing(transport: RepeatingDtlsTransport) -> None:
        pass

    with mock.patch.object(SSL.Connection, "DTLSv1_get_timeout", return_value=None):
        assert simulate(case(True)) == simulate(case(False))


async def test_packets_are_decrypted_within_a_budget() -> None:
    """Each costs time, also one that is not encrypted as it should be; more than a call has are dropped before that."""
    ends = await connect([SimulatedPath(seed=5), SimulatedPath(seed=6)], 2.0)
    transport: Any = ends[0].sctp.transport
    queue = transport.transport._connection._queue
    with mock.patch.object(transport._ssl, "recv", side_effect=SSL.Error) as decrypted:
        for _ in range(5000):
            queue.put_nowait((b"\x17" + bytes(60), 1))
        await asyncio.sleep(0.5)
    assert PACKET_BURST / 2 < decrypted.call_count <= PACKET_BURST
    assert transport.dropped["flood"] == 5000 - decrypted.call_count
    assert transport.state == "connected"
    assert queue.empty()
    transport.is_ignored = True
    with mock.patch.object(transport._ssl, "recv", side_effect=SSL.Error) as decrypted:
        for _ in range(30):
            queue.put_nowait((b"\x17" + bytes(60), 1))
            queue.put_nowait((b"\x17" + bytes(60), 1))
            await asyncio.sleep(0.1)
    assert decrypted.call_count == 60  # 20 a second
    with mock.patch.object(transport._ssl, "recv", side_effect=SSL.Error) as decrypted:
        for _ in range(300):
            queue.put_nowait((b"\x17" + bytes(60), 1))
            await asyncio.sleep(0.01)
    assert decrypted.call_count <= IGNORED_PACKETS_PER_S * 4
    await close(ends)
