"""Real associations between SCTP transports over an in-memory wire whose packets can be inspected and lost."""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiortc.rtcdatachannel import RTCDataChannel, RTCDataChannelParameters
from aiortc.rtcsctptransport import (
    DATA_CHANNEL_ACK,
    DATA_CHANNEL_OPEN,
    WEBRTC_DCEP,
    WEBRTC_STRING,
    DataChunk,
    InitAckChunk,
    InitChunk,
    RTCSctpTransport,
    SackChunk,
    parse_packet,
)

from iwcodec.benchmarks.call.simulation import SimulatedPath, connection_pair
from iwcodec.client.transport.sctp import PACKET, BundlingSctpTransport

pytestmark = pytest.mark.simulated


class Wire:
    """Replaces DTLS: delivers each packet in the next turn of the event loop, unless `lose` returns True for it."""

    state = "connected"

    def __init__(self, role: str) -> None:
        self._role = role
        self.packets: list[bytes] = []
        self.lose: Callable[[bytes], bool] = lambda data: False
        self.other: Wire
        self.receiver: RTCSctpTransport | None = None

    async def _send_data(self, data: bytes) -> None:
        self.packets.append(data)
        if not self.lose(data):
            asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(self.other._deliver(data)))

    async def _deliver(self, data: bytes) -> None:
        if self.receiver is not None:
            await self.receiver._handle_data(data)

    def _register_data_receiver(self, receiver: RTCSctpTransport) -> None:
        self.receiver = receiver

    def _unregister_data_receiver(self, receiver: RTCSctpTransport) -> None:
        self.receiver = None

    def chunks(self) -> list[list[str]]:
        return [[type(chunk).__name__ for chunk in parse_packet(packet)[3]] for packet in self.packets]


@asynccontextmanager
async def associated(
    *kinds: type[RTCSctpTransport],
) -> AsyncIterator[tuple[list[RTCSctpTransport], list[Wire], list[RTCDataChannel]]]:
    """Two transports, of BundlingSctpTransport unless told, and a channel between them that is open."""
    kinds = kinds or (BundlingSctpTransport,) * 2
    wires = [Wire("client"), Wire("server")]
    wires[0].other, wires[1].other = wires[1], wires[0]
    ends = [kind(wire) for kind, wire in zip(kinds, wires, strict=True)]
    parameters = RTCDataChannelParameters(label="x", ordered=False, maxRetransmits=0, negotiated=True, id=1)
    channels = [RTCDataChannel(end, parameters) for end in ends]
    opened = [asyncio.Event() for _ in ends]
    for channel, event in zip(channels, opened, strict=True):
        channel.on("open", event.set)
    for end in ends:
        await end.start(RTCSctpTransport.getCapabilities(), 5000)
    for event in opened:
        await event.wait()
    await turns(5)
    for wire in wires:
        wire.packets.clear()
    for end in ends:
        if isinstance(end, BundlingSctpTransport):
            end.sent.clear()
            end.received.clear()
    yield ends, wires, channels
    for end in ends:
        await end.stop()


async def connect(
    there: SimulatedPath | None = None, back: SimulatedPath | None = None
) -> tuple[list[Any], list[RTCDataChannel]]:
    """Two ends of simulated paths that set up their association, and a channel between them."""
    connections = connection_pair(there or SimulatedPath(), back or SimulatedPath(seed=2))
    channels = [c.createDataChannel("x", negotiated=True, id=2) for c in connections]
    for connection in connections:
        await connection.start()
    return connections, channels


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_association_is_set_up_although_both_answers_are_lost() -> None:
    """A repeated INIT has tag 0 even if the peer's tag is known (RFC 9260, section 8.5.1)."""

    def losing_the_first_answer(send: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
        lost: list[bytes] = []

        async def sending(data: bytes) -> None:
            if not lost and isinstance(parse_packet(data)[3][0], InitAckChunk):
                lost.append(data)
            else:
                await send(data)

        return sending

    connections, channels = await connect()
    for connection in connections:
        wire = connection.sctp.transport
        wire._send_data = losing_the_first_answer(wire._send_data)
    await asyncio.sleep(3)
    assert [channel.readyState for channel in channels] == ["open", "open"]


async def test_set_up_waits_for_the_peer() -> None:
    _, channels = await connect(back=SimulatedPath(seed=2, outages=((1000.0, 1015.0),)))
    await asyncio.sleep(17)
    assert [channel.readyState for channel in channels] == ["open", "open"]


async def test_repeated_init_does_not_change_the_association() -> None:
    async with associated() as (ends, _, channels):
        received: list[bytes] = []
        channels[1].on("message", received.append)
        for n in range(3):
            channels[0].send(bytes([n]))
            await turns(12)
        again = InitChunk()
        again.initiate_tag, again.initial_tsn = ends[0]._local_verification_tag, ends[0]._local_tsn - 50
        again.outbound_streams = again.inbound_streams = 65535
        await ends[1]._receive_chunk(again)
        for n in range(3, 6):
            channels[0].send(bytes([n]))
            await turns(12)
        await asyncio.sleep(0.3)
        assert received == [bytes([n]) for n in range(6)]
        assert not ends[0]._sent_queue


async def test_every_second_packet_is_acknowledged_and_the_last_after_a_delay() -> None:
    async with associated() as (ends, wires, channels):
        for n in range(7):
            channels[0].send(bytes([n]) * 20)
            await turns(12)
        assert wires[1].chunks() == [["SackChunk"]] * 3
        await asyncio.sleep(0.3)
        assert wires[1].chunks() == [["SackChunk"]] * 4
        assert not ends[0]._sent_queue


async def test_acknowledgements_and_messages_share_a_packet() -> None:
    async with associated() as (ends, wires, channels):
        received: list[bytes] = []
        channels[0].on("message", received.append)
        channels[0].send(b"ping")
        await turns(12)
        channels[1].send(b"pong")
        channels[1].send(b"more")
        await turns(12)
        assert wires[1].chunks() == [["SackChunk", "DataChunk", "DataChunk"]]
        assert received == [b"pong", b"more"]
        assert ends[1].sent == {1: 8, "sctp": 32, "acknowledgements": 16, "packets": PACKET}
        assert ends[0].received == ends[1].sent


async def test_two_messages_share_an_acknowledgement_while_both_send() -> None:
    """None takes a packet of its own, and the last is acknowledged even if nothing is sent any more."""
    async with associated() as (ends, wires, channels):
        for n in range(12):
            for channel in channels:
                channel.send(bytes([n]) * 20)
                await turns(12)
        sent = wires[0].chunks() + wires[1].chunks()
        assert all("DataChunk" in chunks for chunks in sent)
        assert 11 <= sum("SackChunk" in chunks for chunks in sent) <= 14
        await asyncio.sleep(0.5)
        assert not ends[0]._sent_queue
        assert not ends[1]._sent_queue


async def test_ordered_data_is_acknowledged_with_the_next_packet() -> None:
    """Its sender may wait for that. Two packets are acknowledged at once, although we are sending ourselves."""
    async with associated() as (ends, wires, channels):
        reliable = reliable_pair(ends)
        await turns(12)
        for channel in (channels[1], channels[0], channels[1], reliable[0], channels[1]):
            channel.send(b"x")
            await turns(12)
        assert wires[1].chunks()[-1] == ["SackChunk", "DataChunk"]
        for n in range(2):
            reliable[0].send(bytes([n]))
            await turns(12)
        assert wires[1].chunks()[-1] == ["SackChunk"]


async def test_gap_is_reported_at_once() -> None:
    async with associated() as (_, wires, channels):
        channels[0].send(b"1")
        channels[0].send(b"2")
        await turns(12)
        wires[0].lose = lambda data: True
        channels[0].send(b"lost")
        await turns(12)
        wires[0].lose = lambda data: False
        wires[1].packets.clear()
        channels[0].send(b"4")
        await turns(12)
        (sack,) = parse_packet(wires[1].packets[0])[3]
        assert isinstance(sack, SackChunk)
        assert sack.gaps == [(2, 2)]


async def test_open_gap_is_reported_three_times() -> None:
    """The sender needs three reports; after them acknowledgements are delayed again."""
    async with associated() as (_, wires, channels):
        wires[0].lose = lambda data: True
        channels[0].send(b"lost")
        await turns(12)
        wires[0].lose = lambda data: False
        wires[1].lose = lambda data: True  # the sender receives no report
        wires[1].packets.clear()
        for n in range(13):
            channels[0].send(bytes([n]))
            await turns(12)
        assert len(wires[1].packets) == 3 + 5


async def test_time_out_doubles_while_nothing_is_acknowledged() -> None:
    """RFC 9260, section 6.3.3, rule E2: up to 4 s; it is reset when everything is acknowledged."""
    connections, channels = await connect(SimulatedPath(outages=((1002.0, 1020.0),)))
    loop = asyncio.get_running_loop()
    await asyncio.sleep(1002.5 - loop.time())
    channels[0].send(b"lost")
    sent: list[float] = []
    while loop.time() < 1025:
        before = connections[0].sctp.sent[2]
        await asyncio.sleep(0.05)
        if connections[0].sctp.sent[2] > before:
            sent.append(loop.time() - 1002.5)
    assert sent[:6] == pytest.approx([0.05, 1, 3, 7, 11, 15], abs=0.11)
    assert connections[0].sctp._rto == 1


@pytest.mark.parametrize("lasts_s", [1.7, 3.0, 5.0, 9.0])
async def test_transmission_resumes_at_once_after_an_outage(lasts_s: float) -> None:
    """It does not wait for the time-out, which has grown to seconds; and no heartbeat is sent afterwards."""
    paths = [SimulatedPath(delay_s=0.05, outages=((1002.0, 1002.0 + lasts_s),), seed=n) for n in (1, 2)]
    _, channels = await connect(*paths)
    received: list[float] = []
    loop = asyncio.get_running_loop()
    channels[1].on("message", lambda message: received.append(loop.time()))
    await asyncio.sleep(1002.1 - loop.time())
    channels[0].send(b"lost")
    await asyncio.sleep(1003 + lasts_s - loop.time())
    quiet = [path.packets for path in paths]
    await asyncio.sleep(3)
    # heartbeat interval, heartbeat, answer, and the data
    assert received[0] - 1002.0 - lasts_s < 0.4 + 3 * 0.05 + 0.05
    assert [path.packets for path in paths] == quiet


async def test_late_acknowledgement_does_not_count_as_an_outage() -> None:
    """With a queue of seconds on the path the heartbeat waits behind the data, so it triggers no retransmission."""
    connections, channels = await connect(SimulatedPath(kbps=4.0))
    await asyncio.sleep(2)
    before = connections[0].sctp.sent[2]
    channels[0].send(bytes(800))  # 1.8 s, longer than the first time-out
    await asyncio.sleep(10)
    assert not connections[0].sctp._sent_queue
    assert connections[0].sctp.sent[2] - before == 2 * 800  # retransmitted by the time-out only


async def test_gap_does_not_prolong_the_time_out() -> None:
    """Chunks acknowledged behind a gap do not measure the round trip when the gap closes."""
    async with associated() as (ends, wires, _):
        channels = reliable_pair(ends)
        channels[0].send(b"1")
        await turns(12)
        wires[0].lose = lambda data: True
        channels[0].send(b"lost")
        await turns(12)
        wires[0].lose = lambda data: False
        channels[0].send(b"3")
        for _ in range(30):
            await asyncio.sleep(0.05)
        assert not ends[0]._sent_queue  # retransmitted after the time-out of 1 s
        assert ends[0]._rto == 1
        assert ends[0]._srtt < 0.3


async def test_bundle_never_exceeds_a_packet() -> None:
    async with associated() as (_, wires, channels):
        received: list[bytes] = []
        channels[1].on("message", received.append)
        sent = [bytes([n]) * 500 for n in range(9)] + [b"x" * 5000]
        for message in sent:
            channels[0].send(message)
        await turns(200)
        await asyncio.sleep(0.25)
        assert received == sent
        assert max(map(len, wires[0].packets)) <= 1189
        assert len([c for p in wires[0].packets for c in parse_packet(p)[3] if isinstance(c, DataChunk)]) > 9


@pytest.mark.parametrize(
    "kinds", [(BundlingSctpTransport, RTCSctpTransport), (RTCSctpTransport, BundlingSctpTransport)]
)
async def test_interoperates_with_standard_transports(
    kinds: tuple[type[RTCSctpTransport], type[RTCSctpTransport]],
) -> None:
    """Messages in both directions, every tenth packet lost: all arrive complete and in order."""
    async with associated(*kinds) as (ends, wires, _):
        channels = reliable_pair(ends)
        for wire in wires:
            wire.lose = lambda data, wire=wire: len(wire.packets) % 10 == 9
        received: list[list[bytes]] = [[], []]
        for channel, into in zip(channels, received, strict=True):
            channel.on("message", into.append)
        sent = [bytes([n]) * (100 + 10 * n) for n in range(60)]
        for message in sent:
            for channel in channels:
                channel.send(message)
            await turns(3)
        for _ in range(80):
            if all(len(into) == len(sent) for into in received):
                break
            await asyncio.sleep(0.1)
        assert received == [sent, sent]


def reliable_pair(ends: list[RTCSctpTransport]) -> list[RTCDataChannel]:
    return [RTCDataChannel(end, RTCDataChannelParameters(label="y", negotiated=True, id=2)) for end in ends]


async def test_lost_retransmission_is_detected_by_later_chunks() -> None:
    """It does not wait for the time-out (RFC 8985, section 6.2)."""
    async with associated() as (ends, wires, _):
        channels = reliable_pair(ends)
        received: list[bytes] = []
        channels[1].on("message", received.append)
        transmissions = 0

        def lose(data: bytes) -> bool:
            nonlocal transmissions
            transmissions += b"lost" in data
            return b"lost" in data and transmissions <= 4

        wires[0].lose = lose
        channels[0].send(b"lost")
        await turns(12)
        for n in range(30):
            channels[0].send(bytes([n]))
            await asyncio.sleep(0.001)
        assert transmissions == 5
        assert received[0] == b"lost"
        assert ends[0]._rto == 1


async def test_retransmission_in_a_queue_is_not_repeated() -> None:
    """On a narrow link many chunks that were sent before the retransmission are acknowledged while it is on its way."""
    connections, channels = await connect(SimulatedPath(kbps=16.0, queue_s=10.0, outages=((1002.0, 1002.01),)))
    received: list[bytes] = []
    channels[1].on("message", received.append)
    transmissions = 0
    wire = connections[0].sctp.transport
    send = wire._send_data

    async def counting(data: bytes) -> None:
        nonlocal transmissions
        transmissions += b"lost" in data
        await send(data)

    wire._send_data = counting
    loop = asyncio.get_running_loop()
    await asyncio.sleep(1002.005 - loop.time())
    channels[0].send(b"lost")
    for n in range(40):
        await asyncio.sleep(0.02)
        channels[0].send(bytes([n]) * 60)
    await asyncio.sleep(10)
    assert (transmissions, len(received)) == (2, 41)


async def test_chunks_behind_a_gap_are_not_retransmitted_after_the_time_out() -> None:
    async with associated() as (ends, wires, _):
        channels = reliable_pair(ends)
        wires[0].lose = lambda data: b"lost" in data
        channels[0].send(b"lost")
        await turns(12)
        wires[0].lose = lambda data: False
        channels[0].send(b"behind")
        await asyncio.sleep(1.3)
        assert not ends[0]._sent_queue
        assert sum(b"lost" in packet for packet in wires[0].packets) == 2
        assert sum(b"behind" in packet for packet in wires[0].packets) == 1


async def test_time_out_shrinks_while_a_gap_is_open() -> None:
    """Chunks acknowledged behind a gap measure the round trip."""
    async with associated() as (ends, wires, _):
        channels = reliable_pair(ends)
        ends[0]._rto = 4.0
        wires[0].lose = lambda data: b"lost" in data
        channels[0].send(b"lost")
        await turns(12)
        channels[0].send(b"behind")
        await turns(12)
        assert ends[0]._sent_queue[0].user_data == b"lost"
        assert ends[0]._rto == 1


async def test_gaps_of_chunks_that_were_never_sent_are_removed() -> None:
    """Iterating over 280 gaps of 65,535 chunks each would take seconds per packet."""
    async with associated() as (ends, wires, channels):
        wires[0].lose = lambda data: True
        for n in range(5):
            channels[0].send(bytes([n]))
            await turns(3)
        report = SackChunk()
        report.cumulative_tsn = ends[0]._last_sacked_tsn
        report.gaps = [(2, 3), *[(1, 65535)] * 200, (5, 65535), *[(6, 65535)] * 80]
        await ends[0]._receive_sack_chunk(report)
        assert report.gaps == [(2, 3), (5, 5)]
        assert [sent._acked for sent in ends[0]._sent_queue] == [False, True, True, False, True]
        report.gaps = [(2, 65535)]
        report.cumulative_tsn = ends[0]._sent_queue[-1].tsn
        await ends[0]._receive_sack_chunk(report)
        assert report.gaps == []
        assert not ends[0]._sent_queue


async def test_all_abandoned_chunks_are_passed_at_once() -> None:
    """Although chunks between them have arrived. Otherwise each round trip passes one gap, and acknowledgements list
    the others."""
    async with associated() as (ends, wires, channels):
        wires[0].lose = lambda data: True
        for n in range(10):
            channels[0].send(bytes([n]))
            await turns(3)
        before = ends[0]._last_sacked_tsn
        for last in (7, 8, 9):  # three reports of three gaps
            report = SackChunk()
            report.cumulative_tsn = before
            report.gaps = [(2, 2), (4, 4), (6, last)]
            await ends[0]._receive_sack_chunk(report)
        assert ends[0]._advanced_peer_ack_tsn == before + 5
        assert [sent.tsn - before for sent in ends[0]._sent_queue] == [6, 7, 8, 9, 10]


@pytest.mark.parametrize("stream", [1, 2], ids=["taken", "free"])
async def test_requests_to_open_channels_are_dropped_and_counted(stream: int):
    """All channels are negotiated. aiortc asserts that none is opened twice, and would close the connection."""
    async with associated() as (ends, _, channels):
        request = struct.pack("!BBHLHH", DATA_CHANNEL_OPEN, 0, 0, 0, 0, 0)
        await ends[0]._send(stream, WEBRTC_DCEP, request)
        await ends[0]._send(1, WEBRTC_DCEP, bytes([DATA_CHANNEL_ACK]))
        await ends[0]._send(1, WEBRTC_STRING, b"\xff\xfe")  # not UTF-8
        got: asyncio.Queue[bytes] = asyncio.Queue()
        channels[1].on("message", got.put_nowait)
        channels[0].send(b"still here")
        assert await got.get() == b"still here"
        assert ends[1].dropped == {"channel request": 2, "malformed": 1}
        assert set(ends[1]._data_channels) == {1}
