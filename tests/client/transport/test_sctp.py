"""Real associations between SCTP transports, over a wire in memory whose packets can be looked at and lost."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

pytest.importorskip("aiortc")

from aiortc import RTCCertificate, RTCPeerConnection
from aiortc.rtcdatachannel import RTCDataChannel, RTCDataChannelParameters
from aiortc.rtcsctptransport import DataChunk, InitAckChunk, InitChunk, RTCSctpTransport, SackChunk, parse_packet
from cryptography.hazmat.primitives import serialization

from iwcodec.benchmarks.call import simulation
from iwcodec.client.transport.sctp import IP_UDP, PACKET, BundlingSctpTransport, _Certificate, make_connection


class Wire:
    """What stands in for DTLS: packets go to the other end in the next turn, unless `lose` says so."""

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


async def associate(*kinds: type[RTCSctpTransport]) -> tuple[list[RTCSctpTransport], list[Wire], list[RTCDataChannel]]:
    wires = [Wire("client"), Wire("server")]
    wires[0].other, wires[1].other = wires[1], wires[0]
    ends = [kind(wire) for kind, wire in zip(kinds, wires, strict=True)]  # type: ignore[arg-type]
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
    return ends, wires, channels


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def run(case: Callable[[], object]) -> None:
    asyncio.run(asyncio.wait_for(case(), 20))  # type: ignore[arg-type]


def test_both_answers_to_the_first_packets_are_lost():
    """By then each end knows the other's tag; what it repeats has none all the same (RFC 9260, section 8.5.1)."""

    async def work() -> None:
        connections = simulation.connection_pair(simulation.Path(), simulation.Path(seed=2))
        channels = [c.createDataChannel("x", negotiated=True, id=1) for c in connections]
        for connection in connections:
            wire: Any = connection.sctp.transport
            wire._send_data = losing_the_first_answer(wire._send_data)
        for connection in connections:
            await connection.start()
        await asyncio.sleep(3)
        assert [channel.readyState for channel in channels] == ["open", "open"]

    def losing_the_first_answer(send: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
        lost: list[bytes] = []

        async def sending(data: bytes) -> None:
            if not lost and isinstance(parse_packet(data)[3][0], InitAckChunk):
                lost.append(data)
            else:
                await send(data)

        return sending

    simulation.simulate(work())


def test_setting_up_does_not_end_before_the_other_end_is_there():
    async def work() -> None:
        back = simulation.Path(seed=2, outages=((1000.0, 1015.0),))
        connections = simulation.connection_pair(simulation.Path(), back)
        channels = [c.createDataChannel("x", negotiated=True, id=1) for c in connections]
        for connection in connections:
            await connection.start()
        await asyncio.sleep(17)
        assert [channel.readyState for channel in channels] == ["open", "open"]

    simulation.simulate(work())


def test_a_first_packet_that_comes_again_changes_nothing():
    async def case() -> None:
        ends, _, channels = await associate(BundlingSctpTransport, BundlingSctpTransport)
        got: list[bytes] = []
        channels[1].on("message", got.append)
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
        assert got == [bytes([n]) for n in range(6)]
        assert not ends[0]._sent_queue
        for end in ends:
            await end.stop()

    run(case)


def test_every_second_packet_is_acknowledged_and_the_last_after_a_delay():
    async def case() -> None:
        ends, wires, channels = await associate(BundlingSctpTransport, BundlingSctpTransport)
        for n in range(7):
            channels[0].send(bytes([n]) * 20)
            await turns(12)
        assert wires[1].chunks() == [["SackChunk"]] * 3
        await asyncio.sleep(0.3)
        assert wires[1].chunks() == [["SackChunk"]] * 4
        assert not ends[0]._sent_queue
        for end in ends:
            await end.stop()

    run(case)


def test_acknowledgements_go_with_data_and_messages_share_a_packet():
    async def case() -> None:
        ends, wires, channels = await associate(BundlingSctpTransport, BundlingSctpTransport)
        got: list[bytes] = []
        channels[0].on("message", got.append)
        channels[0].send(b"ping")
        await turns(12)
        channels[1].send(b"pong")
        channels[1].send(b"more")
        await turns(12)
        assert wires[1].chunks() == [["SackChunk", "DataChunk", "DataChunk"]]
        assert got == [b"pong", b"more"]
        assert ends[1].sent == {1: 8, "sctp": 32, "acknowledgements": 16, "packets": PACKET}  # type: ignore[attr-defined]
        assert ends[0].received == ends[1].sent  # type: ignore[attr-defined]
        for end in ends:
            await end.stop()

    run(case)


def test_a_gap_is_reported_at_once():
    async def case() -> None:
        ends, wires, channels = await associate(BundlingSctpTransport, BundlingSctpTransport)
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
        for end in ends:
            await end.stop()

    run(case)


def test_a_gap_that_stays_open_is_not_reported_for_ever():
    """Three reports are what the sender needs; after them acknowledgements are delayed again."""

    async def case() -> None:
        ends, wires, channels = await associate(BundlingSctpTransport, BundlingSctpTransport)
        wires[0].lose = lambda data: True
        channels[0].send(b"lost")
        await turns(12)
        wires[0].lose = lambda data: False
        wires[1].lose = lambda data: True  # the sender does not learn of it
        wires[1].packets.clear()
        for n in range(13):
            channels[0].send(bytes([n]))
            await turns(12)
        assert len(wires[1].packets) == 3 + 5
        for end in ends:
            await end.stop()

    run(case)


def test_the_time_out_grows_while_nothing_is_acknowledged():
    """RFC 9260, section 6.3.3, rule E2: doubled each time, but to no more than 4 s; and back when all has arrived."""

    async def work() -> tuple[list[float], float]:
        there = simulation.Path(outages=((1002.0, 1020.0),))
        connections = simulation.connection_pair(there, simulation.Path(seed=2))
        channels = [c.createDataChannel("x", negotiated=True, id=2) for c in connections]
        for connection in connections:
            await connection.start()
        loop = asyncio.get_running_loop()
        await asyncio.sleep(1002.5 - loop.time())
        channels[0].send(b"lost")
        sent: list[float] = []
        while loop.time() < 1025:
            before = connections[0].sctp.sent[2]
            await asyncio.sleep(0.05)
            if connections[0].sctp.sent[2] > before:
                sent.append(loop.time() - 1002.5)
        return sent, connections[0].sctp._rto

    sent, last_s = simulation.simulate(work())
    assert sent[:6] == pytest.approx([0.05, 1, 3, 7, 11, 15], abs=0.11)
    assert last_s == 1


@pytest.mark.parametrize("lasts_s", [1.7, 3.0, 5.0, 9.0])
def test_after_an_outage_what_waits_goes_on_at_once(lasts_s: float):
    """Not when the time-out comes, which has grown to seconds; and nobody is asked anything after that."""

    async def work() -> tuple[float, list[int]]:
        ends = [simulation.Path(delay_s=0.05, outages=((1002.0, 1002.0 + lasts_s),), seed=n) for n in (1, 2)]
        connections = simulation.connection_pair(*ends)
        channels = [c.createDataChannel("x", negotiated=True, id=2) for c in connections]
        got: list[float] = []
        loop = asyncio.get_running_loop()
        channels[1].on("message", lambda message: got.append(loop.time()))
        for connection in connections:
            await connection.start()
        await asyncio.sleep(1002.1 - loop.time())
        channels[0].send(b"lost")
        await asyncio.sleep(1003 + lasts_s - loop.time())
        quiet = [path.packets for path in ends]
        await asyncio.sleep(3)
        return got[0] - 1002.0 - lasts_s, [path.packets - before for path, before in zip(ends, quiet, strict=True)]

    after_s, asked = simulation.simulate(work())
    assert after_s < 0.4 + 3 * 0.05 + 0.05  # a question, its answer, and the way there
    assert asked == [0, 0]


def test_a_late_acknowledgement_is_no_outage():
    """A queue of seconds on the way: the answer comes behind it, and nothing is sent again for it."""

    async def work() -> int:
        there = simulation.Path(kbps=4.0)
        connections = simulation.connection_pair(there, simulation.Path(seed=2))
        channels = [c.createDataChannel("x", negotiated=True, id=2) for c in connections]
        for connection in connections:
            await connection.start()
        await asyncio.sleep(2)
        before = connections[0].sctp.sent[2]
        channels[0].send(bytes(800))  # 1.8 s, longer than the first time-out
        await asyncio.sleep(10)
        assert not connections[0].sctp._sent_queue
        return connections[0].sctp.sent[2] - before

    assert simulation.simulate(work()) == 2 * 800  # by the time-out alone


def test_a_gap_does_not_prolong_the_time_out():
    """What was acknowledged long ago, behind a gap, is no measure of the round trip when the gap closes."""

    async def case() -> None:
        ends, wires, _ = await associate(BundlingSctpTransport, BundlingSctpTransport)
        reliable = RTCDataChannelParameters(label="y", negotiated=True, id=2)
        channels = [RTCDataChannel(end, reliable) for end in ends]
        channels[0].send(b"1")
        await turns(12)
        wires[0].lose = lambda data: True
        channels[0].send(b"lost")
        await turns(12)
        wires[0].lose = lambda data: False
        channels[0].send(b"3")
        for _ in range(30):
            await asyncio.sleep(0.05)
        assert not ends[0]._sent_queue  # sent again after the time-out of a second
        assert ends[0]._rto == 1
        assert ends[0]._srtt is not None
        assert ends[0]._srtt < 0.3
        for end in ends:
            await end.stop()

    run(case)


def test_a_bundle_never_exceeds_a_packet():
    async def case() -> None:
        ends, wires, channels = await associate(BundlingSctpTransport, BundlingSctpTransport)
        got: list[bytes] = []
        channels[1].on("message", got.append)
        sent = [bytes([n]) * 500 for n in range(9)] + [b"x" * 5000]
        for message in sent:
            channels[0].send(message)
        await turns(200)
        await asyncio.sleep(0.25)
        assert got == sent
        assert max(map(len, wires[0].packets)) <= 1189
        assert len([c for p in wires[0].packets for c in parse_packet(p)[3] if isinstance(c, DataChunk)]) > 9
        for end in ends:
            await end.stop()

    run(case)


@pytest.mark.parametrize(
    "kinds", [(BundlingSctpTransport, RTCSctpTransport), (RTCSctpTransport, BundlingSctpTransport)]
)
def test_standard_transports_understand(kinds: tuple[type[RTCSctpTransport], type[RTCSctpTransport]]):
    """Many messages both ways with every tenth packet lost: the reliable ones arrive whole and in order."""

    async def case() -> None:
        ends, wires, _ = await associate(*kinds)
        reliable = RTCDataChannelParameters(label="y", negotiated=True, id=2)
        channels = [RTCDataChannel(end, reliable) for end in ends]
        for wire in wires:
            wire.lose = lambda data, wire=wire: len(wire.packets) % 10 == 9  # type: ignore[misc]
        got: list[list[bytes]] = [[], []]
        for channel, into in zip(channels, got, strict=True):
            channel.on("message", into.append)
        sent = [bytes([n]) * (100 + 10 * n) for n in range(60)]
        for message in sent:
            for channel in channels:
                channel.send(message)
            await turns(3)
        for _ in range(80):
            if all(len(into) == len(sent) for into in got):
                break
            await asyncio.sleep(0.1)
        assert got == [sent, sent]
        for end in ends:
            await end.stop()

    run(case)


async def connect(a: RTCPeerConnection, b: RTCPeerConnection) -> list[RTCDataChannel]:
    """Over real ICE and DTLS; one open channel each."""
    channels = [c.createDataChannel("x", negotiated=True, id=1) for c in (a, b)]
    await a.setLocalDescription(await a.createOffer())
    await b.setRemoteDescription(a.localDescription)
    await b.setLocalDescription(await b.createAnswer())
    await a.setRemoteDescription(b.localDescription)
    while not all(channel.readyState == "open" for channel in channels):
        await asyncio.sleep(0.01)
    return channels


@pytest.mark.parametrize(("answers", "aes"), [(make_connection, False), (lambda _: RTCPeerConnection(), True)])
def test_the_cipher_with_the_shortest_records_is_preferred_and_every_byte_counted(answers, aes):
    async def case() -> None:
        ours, theirs = make_connection([]), answers([])  # who answers begins the handshake, and is asked for its taste
        mine, _ = await connect(ours, theirs)
        name = ours.sctp.transport._ssl.get_cipher_name()
        assert ("AES" in name, "CHACHA20" in name) == (aes, not aes)
        datagrams: list[int] = []
        ice = ours.sctp.transport.transport
        send = ice._send

        async def counting(data: bytes) -> None:
            datagrams.append(len(data) + IP_UDP)
            await send(data)

        ice._send = counting
        before = sum(ours.sctp.sent.values())
        for n in range(5):
            mine.send(bytes(7 * n + 1))
            await asyncio.sleep(0.02)
        assert len(datagrams) >= 5
        # Chunks are padded to four bytes and counted whole.
        assert sum(ours.sctp.sent.values()) - before == sum(datagrams)
        await ours.close()
        await theirs.close()

    run(case)


def test_peer_connections_of_both_kinds_connect():
    """Over real ICE and DTLS, against a peer connection as aiortc makes it."""

    async def case() -> None:
        ours, theirs = make_connection([]), RTCPeerConnection()
        channels = await connect(ours, theirs)
        got: asyncio.Queue[bytes] = asyncio.Queue()
        for channel in channels:
            channel.on("message", got.put_nowait)
        channels[0].send(b"to")
        assert await got.get() == b"to"
        channels[1].send(b"fro")
        assert await got.get() == b"fro"
        assert isinstance(ours.sctp, BundlingSctpTransport)
        assert type(theirs.sctp) is RTCSctpTransport
        await ours.close()
        await theirs.close()

    run(case)


def reliable_pair(ends: list[RTCSctpTransport]) -> list[RTCDataChannel]:
    return [RTCDataChannel(end, RTCDataChannelParameters(label="y", negotiated=True, id=2)) for end in ends]


def test_a_lost_repetition_is_sent_again_as_soon_as_what_was_sent_after_it_has_come():
    """Without the time-out, behind which everything else would wait (RFC 8985, section 6.2)."""

    async def case() -> None:
        ends, wires, _ = await associate(BundlingSctpTransport, BundlingSctpTransport)
        channels = reliable_pair(ends)
        got: list[bytes] = []
        channels[1].on("message", got.append)
        tried = 0

        def lose(data: bytes) -> bool:
            nonlocal tried
            tried += b"lost" in data
            return b"lost" in data and tried <= 4

        wires[0].lose = lose
        channels[0].send(b"lost")
        await turns(12)
        for n in range(30):
            channels[0].send(bytes([n]))
            await turns(12)
        assert tried == 5
        assert got[0] == b"lost"
        assert ends[0]._rto == 1
        for end in ends:
            await end.stop()

    run(case)


def test_a_repetition_that_waits_in_a_queue_is_not_sent_again():
    """On a narrow link much is acknowledged, all of it sent before the repetition, while that is on its way."""

    async def work() -> tuple[int, int]:
        there = simulation.Path(kbps=16.0, queue_s=10.0, outages=((1002.0, 1002.01),))
        connections = simulation.connection_pair(there, simulation.Path(seed=2))
        channels = [c.createDataChannel("x", negotiated=True, id=2) for c in connections]
        got: list[bytes] = []
        channels[1].on("message", got.append)
        tried = 0
        wire: Any = connections[0].sctp.transport
        send = wire._send_data

        async def counting(data: bytes) -> None:
            nonlocal tried
            tried += b"lost" in data
            await send(data)

        wire._send_data = counting
        for connection in connections:
            await connection.start()
        loop = asyncio.get_running_loop()
        await asyncio.sleep(1002.005 - loop.time())
        channels[0].send(b"lost")
        for n in range(40):
            await asyncio.sleep(0.02)
            channels[0].send(bytes([n]) * 60)
        await asyncio.sleep(10)
        return tried, len(got)

    assert simulation.simulate(work()) == (2, 41)


def test_what_has_come_behind_a_gap_is_not_sent_again_after_the_time_out():
    async def case() -> None:
        ends, wires, _ = await associate(BundlingSctpTransport, BundlingSctpTransport)
        channels = reliable_pair(ends)
        wires[0].lose = lambda data: b"lost" in data
        channels[0].send(b"lost")
        await turns(12)
        wires[0].lose = lambda data: False
        channels[0].send(b"came")
        await asyncio.sleep(1.3)
        assert not ends[0]._sent_queue
        assert sum(b"lost" in packet for packet in wires[0].packets) == 2
        assert sum(b"came" in packet for packet in wires[0].packets) == 1
        for end in ends:
            await end.stop()

    run(case)


def test_the_time_out_shrinks_while_a_gap_is_open():
    """What is acknowledged behind a gap has measured the round trip: no reason to wait as after an outage."""

    async def case() -> None:
        ends, wires, _ = await associate(BundlingSctpTransport, BundlingSctpTransport)
        channels = reliable_pair(ends)
        ends[0]._rto = 4.0
        wires[0].lose = lambda data: b"lost" in data
        channels[0].send(b"lost")
        await turns(12)
        channels[0].send(b"came")
        await turns(12)
        assert ends[0]._sent_queue[0].user_data == b"lost"
        assert ends[0]._rto == 1
        for end in ends:
            await end.stop()

    run(case)


def test_reports_of_what_was_never_sent_are_cut():
    """Counting through 280 gaps of 65,535 chunks each would take seconds a packet."""

    async def case() -> None:
        ends, wires, channels = await associate(BundlingSctpTransport, BundlingSctpTransport)
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
        for end in ends:
            await end.stop()

    run(case)


def test_certificates_are_small_and_each_is_another() -> None:
    """Both cross the link before anything else may."""
    made = [_Certificate.generateCertificate() for _ in range(2)]
    sizes = [len(one._cert.public_bytes(serialization.Encoding.DER)) for one in made]
    usual = RTCCertificate.generateCertificate()._cert.public_bytes(serialization.Encoding.DER)
    assert max(sizes) < len(usual) - 60
    assert made[0].getFingerprints() != made[1].getFingerprints()
    assert [fingerprint.algorithm for fingerprint in made[0].getFingerprints()] == ["sha-256"]
    now = datetime.now(tz=UTC)
    assert all(one._cert.not_valid_before_utc < now < one.expires for one in made)
