"""Negotiation and recovery of one peer connection: glare, failures, malformed signals."""

import asyncio
import random
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from aiortc import RTCPeerConnection, RTCSessionDescription

from iwcodec.client.link.link import Link
from iwcodec.client.link.link_state import LinkState
from iwcodec.client.link.messages import SOURCE_CHANNEL
from iwcodec.client.room import peer as p
from iwcodec.client.room.protocol import RemoteCandidate, RemoteDescription
from iwcodec.client.transport import sctp
from iwcodec.client.transport.connection import make_connection as make_real_connection
from iwcodec.client.video.video_sender import VideoSender
from support.calls.broken_wire import nothing, silence
from support.calls.double import DoubleLink, DoubleVideoSender, make_connection
from support.codec.stub_runtime import NearestSourceFit, StubRuntime, picture

pytestmark = pytest.mark.realtime

PICTURE = np.full((64, 64, 3), 128, np.uint8)


class Wire:
    """Signalling double: relays to the other peer unless `cut`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.other: p.Peer | None = None
        self.cut = False
        self.sent: list[Any] = []

    async def send_description(self, to: str, kind: str, sdp: str, call: str) -> None:
        self.relay(RemoteDescription(self.name, kind, sdp, call))

    def relay(self, signal: Any) -> None:
        self.sent.append(signal)
        if not self.cut and self.other is not None:
            self.other.receive(signal)


class Video:
    """Media double without audio."""

    def __init__(self) -> None:
        self.video_sender = DoubleVideoSender()

    def attach(self, connection: RTCPeerConnection, link: Any) -> Any:
        if link is None:
            return DoubleLink(connection, self.video_sender)
        link.replace_connection(connection)
        return link

    def accept(self, connection: RTCPeerConnection) -> None:
        pass

    async def push(self) -> None:
        await self.video_sender.push(PICTURE, 0.0)


class RealVideo:
    """Real links over real connections; the brightness of the pictures varies."""

    def __init__(self) -> None:
        self.executor = ThreadPoolExecutor(1)
        self.video_sender = VideoSender(StubRuntime(), self.executor, lambda picture: True, NearestSourceFit())

    def attach(self, connection: RTCPeerConnection, link: Any) -> Any:
        if link is None:
            return Link(connection, self.video_sender, StubRuntime(), self.executor)
        link.replace_connection(connection)
        return link

    def accept(self, connection: RTCPeerConnection) -> None:
        pass

    async def push(self) -> None:
        now = time.monotonic()
        await self.video_sender.push(picture(128 + 40 * np.sin(now)), now)


class Pair:
    def __init__(
        self,
        offers: tuple[bool, bool] = (True, False),
        media: type[Video] | type[RealVideo] = Video,
        make_connection: Callable[[list[Any]], RTCPeerConnection] = make_connection,
    ) -> None:
        self.wires = Wire("ada"), Wire("bob")
        self.media = media(), media()
        # Ada has the smaller id, so she is polite.
        self.ada = p.Peer("bob", "Bob", True, offers[0], self.wires[0], lambda: make_connection([]), self.media[0])
        self.bob = p.Peer("ada", "Ada", False, offers[1], self.wires[1], lambda: make_connection([]), self.media[1])
        self.wires[0].other, self.wires[1].other = self.bob, self.ada
        self.peers = self.ada, self.bob
        self.tasks = [asyncio.create_task(peer.run()) for peer in self.peers]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Send pictures both ways until the condition holds."""
        while not condition():
            for task in self.tasks:
                assert not task.done(), task.exception()
            for media in self.media:
                await media.push()
            await asyncio.sleep(0.02)

    def seen(self) -> list[int]:
        return [getattr(peer.link, "received", 0) for peer in self.peers]

    async def live(self) -> None:
        """Wait until new pictures arrive on both sides."""
        await self.until(lambda: all(peer.connected for peer in self.peers))
        before = self.seen()
        await self.until(lambda: all(now > then for now, then in zip(self.seen(), before, strict=True)))

    async def __aenter__(self) -> "Pair":
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for peer in self.peers:
            await peer.close()
        await p.all_closed()


async def test_an_offer_connects() -> None:
    async with Pair() as pair:
        assert pair.ada.state is LinkState.CONNECTING
        await pair.live()
        assert pair.ada.state is LinkState.LIVE
        assert (pair.ada.connections, pair.bob.connections) == (1, 1)


async def test_the_first_offer_is_immediate_and_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not wait for the next poll, and one message holds all candidates and `a=end-of-candidates`."""
    monkeypatch.setattr(p, "POLL_S", 1000.0)
    async with Pair() as pair:
        await pair.until(lambda: pair.bob.connection is not None and bool(pair.wires[1].sent))
        await pair.until(lambda: pair.bob.connection is not None and pair.bob.connection.connectionState == "connected")
        for wire, kind in zip(pair.wires, ("offer", "answer"), strict=True):
            (signal,) = wire.sent
            assert signal.kind == kind
            assert "a=candidate" in signal.sdp
            assert "a=end-of-candidates" in signal.sdp


async def test_glare_is_resolved_by_the_polite_side() -> None:
    async with Pair((True, True)) as pair:
        await pair.live()
        # Bob cannot know whether Ada has his offer, and resends it.
        assert [peer.rejected for peer in pair.peers] == [{"repeated offer": 1}, {}]
        # Ada drops her own offer for Bob's; Bob keeps his.
        assert (pair.ada.connections, pair.bob.connections) == (2, 1)


async def test_a_silent_connection_is_replaced_and_the_link_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packets stop arriving, as when a network disappears."""
    monkeypatch.setattr(p, "SILENCE_TIMEOUT_S", 0.5)
    monkeypatch.setattr(p, "POLITE_DELAY_S", 0.5)
    async with Pair() as pair:
        await pair.live()
        links = [peer.link for peer in pair.peers]
        for peer in pair.peers:
            silence(peer)
        await pair.until(lambda: all(peer.connections > 1 for peer in pair.peers))
        await pair.live()
        assert [peer.link for peer in pair.peers] == links


async def test_a_closed_sctp_association_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even though ICE and DTLS are up, and audio may still arrive."""
    monkeypatch.setattr(p, "RETRY_DELAYS_S", (0.1,))
    async with Pair() as pair:
        await pair.live()
        before = [peer.connection for peer in pair.peers]
        before[0].sctp._set_state(before[0].sctp.State.CLOSED)
        assert not pair.peers[0].connected
        await pair.until(lambda: all(peer.connected and peer.connection not in before for peer in pair.peers))


async def test_the_source_library_survives_a_reconnection(monkeypatch: pytest.MonkeyPatch) -> None:
    """One side loses its sockets, as with its network. The next connection uses the sources that are there, and sends
    none of them again."""
    monkeypatch.setattr(p, "SILENCE_TIMEOUT_S", 1.0)
    monkeypatch.setattr(p, "POLITE_DELAY_S", 0.5)
    async with Pair(media=RealVideo, make_connection=make_real_connection) as pair:
        for media in pair.media:
            media.video_sender._judge = nothing
            for level in (90, 120, 150):
                await media.video_sender._add_source(picture(level), 0.0)
        await pair.until(lambda: all(peer.connected and peer.state is LinkState.LIVE for peer in pair.peers))
        links: list[Any] = [peer.link for peer in pair.peers]
        await pair.until(lambda: all(len(link.incoming.library) == 3 for link in links))
        await pair.until(lambda: all(link.outgoing._peer_has[1] == 3 for link in links))
        kept = [link.incoming.library.sources() for link in links]
        assert all(sources_received(peer) > 100 for peer in pair.peers)
        connections = [peer.connection for peer in pair.peers]
        for protocol in connections[0].sctp.transport.transport._connection._protocols:
            protocol.transport.abort()
        await pair.until(lambda: all(peer.connected and peer.connection not in connections for peer in pair.peers))
        incoming = [link.incoming for link in links]
        numbers = [half._latest.number for half in incoming]
        await pair.until(lambda: all(half._latest.number > n + 20 for half, n in zip(incoming, numbers, strict=True)))
        assert [peer.link for peer in pair.peers] == links
        assert all(peer.state is LinkState.LIVE for peer in pair.peers)
        assert [sources_received(peer) for peer in pair.peers] == [0, 0]
        assert [link.incoming.library.sources() for link in links] == kept
        for media in pair.media:
            await media.video_sender._add_source(picture(180), 0.0)
        await pair.until(lambda: all(len(link.incoming.library) == 4 for link in links))
        assert [dict(link._dropped) for link in links] == [{}, {}]


def sources_received(peer: p.Peer) -> int:
    """Bytes received over the source channel of the present connection."""
    assert isinstance(peer.connection.sctp, sctp.BundlingSctpTransport)
    return peer.connection.sctp.received[SOURCE_CHANNEL]


async def test_retry_reconnects_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """After both sides have closed, without waiting for a time-out."""
    monkeypatch.setattr(p, "RETRY_DELAYS_S", (60.0,))
    monkeypatch.setattr(p, "MIN_ATTEMPT_S", 0.1)
    async with Pair() as pair:
        await pair.live()
        for peer in pair.peers:
            await peer.connection.close()
        await pair.until(lambda: not any(peer.connected for peer in pair.peers))
        assert pair.ada.state is LinkState.RECONNECTING
        pair.ada.retry()
        await pair.live()


async def test_retry_keeps_a_connection_that_recovers(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an outage of the whole network, signalling comes back first."""
    monkeypatch.setattr(p, "MIN_ATTEMPT_S", 0.0)
    async with Pair() as pair:
        await pair.live()
        pair.ada._packet_s -= 5.0
        pair.ada.retry()
        for _ in range(3):
            before = pair.seen()[0]
            await pair.until(lambda: pair.seen()[0] > before)  # noqa: B023
        await asyncio.sleep(2 * p.RECOVERY_S)
        await pair.live()
        assert [peer.connections for peer in pair.peers] == [1, 1]


async def test_a_lost_offer_is_resent_after_glare() -> None:
    """Otherwise the impolite side waits for an answer, and the polite side for an answer to its own offer."""
    async with Pair((False, True)) as pair:
        pair.wires[1].cut = True
        await pair.until(lambda: bool(pair.wires[1].sent))
        pair.wires[1].cut = False
        started = time.monotonic()
        pair.ada._offer_at_s = 0.0
        await pair.live()
        assert time.monotonic() - started < p.MIN_ATTEMPT_S
        assert [type(signal) for signal in pair.wires[1].sent] == [RemoteDescription] * 2
        assert pair.wires[1].sent[0] == pair.wires[1].sent[1]
        for n in range(5):  # only once
            pair.bob._offering, pair.bob._created_s = True, time.monotonic()
            pair.bob.receive(RemoteDescription("ada", "offer", pair.wires[0].sent[0].sdp, f"late{n}"))
        await asyncio.sleep(0.2)
        assert len(pair.wires[1].sent) == 2


async def test_lost_signals_are_followed_by_another_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(p, "CONNECT_TIMEOUT_S", 0.5)
    monkeypatch.setattr(p, "POLITE_DELAY_S", 1.5)
    monkeypatch.setattr(p, "RETRY_DELAYS_S", (0.1,))
    async with Pair() as pair:
        pair.wires[0].cut = True
        await pair.until(lambda: len(pair.wires[0].sent) >= 2)
        pair.wires[0].cut = False
        await pair.live()


async def test_forged_and_late_signals_are_ignored() -> None:
    async with Pair() as pair:
        await pair.live()
        answer = next(s for s in pair.wires[1].sent if isinstance(s, RemoteDescription))
        for signal in (
            RemoteDescription("bob", "answer", answer.sdp, "another call"),
            RemoteDescription("bob", "answer", answer.sdp, answer.call),  # replayed
            RemoteCandidate(
                "bob", {"candidate": "candidate:1 1 udp 1 192.0.2.9 9 typ host", "sdpMid": "0"}, "another call"
            ),
            RemoteCandidate("bob", {"candidate": "nonsense"}, answer.call),
            RemoteCandidate("bob", {"candidate": "candidate:1 1 udp x y z typ w", "sdpMid": "0"}, answer.call),
        ):
            pair.ada.receive(signal)
        await pair.live()
        assert (pair.ada.connections, pair.bob.connections) == (1, 1)
        assert sum(pair.ada.rejected.values()) == 2


async def test_malformed_offers_are_rejected() -> None:
    async with Pair() as pair:
        await pair.live()
        bad = (
            "",
            "v=0\r\n",
            "v=0\r\nm=audio x\r\n",
            "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\nm=video 9 RTP 96\r\n",
            "v=0\r\nm=\r\n",
        )
        for sdp in bad:
            pair.bob.receive(RemoteDescription("ada", "offer", sdp, "forged"))
        await pair.until(lambda: sum(pair.bob.rejected.values()) == len(bad))
        await pair.live()
        assert (pair.ada.connections, pair.bob.connections) == (1, 1)


async def test_duplicate_offers_are_rejected() -> None:
    async with Pair() as pair:
        await pair.live()
        offer = next(s for s in pair.wires[0].sent if isinstance(s, RemoteDescription))
        connection = pair.bob.connection
        pair.bob.receive(offer)
        pair.bob.receive(RemoteDescription("ada", "offer", offer.sdp, "another name"))
        pair.bob.receive(RemoteDescription("ada", "offer", offer.sdp, ""))
        pair.ada.receive(RemoteDescription("bob", "offer", offer.sdp, offer.call))  # its own
        await pair.until(lambda: pair.bob.rejected.get("repeated offer") == 3)
        await pair.until(lambda: pair.ada.rejected.get("repeated offer") == 1)
        await pair.live()
        assert pair.bob.connection is connection
        assert (pair.ada.connections, pair.bob.connections) == (1, 1)


async def test_the_memory_of_offers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(p, "MAX_REMEMBERED_OFFERS", 4)
    async with Pair() as pair:
        for number in range(50):
            assert not pair.bob._is_duplicate(RemoteDescription("ada", "offer", f"sdp {number}", f"call {number}"))
        assert len(pair.bob._offers) == 8
        assert pair.bob._is_duplicate(RemoteDescription("ada", "offer", "sdp 49", "new"))


async def test_a_failed_attempt_is_followed_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first connections cannot even be created."""
    monkeypatch.setattr(p, "RETRY_DELAYS_S", (0.1,))
    monkeypatch.setattr(p, "POLITE_DELAY_S", 0.0)
    failures = ["malformed uri", "out of sockets"]

    def connect() -> RTCPeerConnection:
        if failures:
            raise ValueError(failures.pop())
        return make_connection([])

    async with Pair() as pair:
        pair.ada._connect = connect
        await pair.live()
        assert pair.ada.rejected == {"ValueError": 2}
        await pair.until(lambda: pair.ada.attempts == 0)


def bare(sdp: str) -> str:
    """The SDP without candidates."""
    kept = [line for line in sdp.splitlines() if not line.startswith(("a=candidate", "a=end-of-candidates"))]
    return "\r\n".join(kept) + "\r\n"


async def test_trickled_candidates_connect() -> None:
    """The answer has no candidates; they arrive afterwards, one by one (RFC 8838)."""
    wire, media = Wire("ada"), Video()
    ada = p.Peer("bob", "Bob", True, True, wire, lambda: make_connection([]), media)
    task = asyncio.create_task(ada.run())
    theirs = make_connection([])
    theirs.createDataChannel("video", negotiated=True, id=0)
    while not any(isinstance(signal, RemoteDescription) for signal in wire.sent):
        await asyncio.sleep(0.02)
    offer = wire.sent[0]
    # Hide our candidates too, so that no connectivity check reveals a peer-reflexive one.
    await theirs.setRemoteDescription(RTCSessionDescription(bare(offer.sdp), "offer"))
    await theirs.setLocalDescription(await theirs.createAnswer())
    answer = theirs.localDescription.sdp
    ada.receive(RemoteDescription("bob", "answer", bare(answer), offer.call))
    await asyncio.sleep(0.3)
    assert not ada.connected
    found = [line.removeprefix("a=") for line in answer.splitlines() if line.startswith("a=candidate")]
    for number, candidate in enumerate(found):
        where: dict[str, Any] = {"sdpMid": "0"} if number % 2 else {"sdpMLineIndex": 0}
        ada.receive(RemoteCandidate("bob", {"candidate": candidate, **where}, offer.call))
    ada.receive(RemoteCandidate("bob", {"candidate": "", "sdpMid": "0"}, offer.call))
    while not ada.connected:
        assert not task.done(), task.exception()
        await asyncio.sleep(0.02)
    assert (ada.connections, ada.rejected) == (1, {})
    task.cancel()
    await asyncio.gather(theirs.close(), ada.close())
    await p.all_closed()


async def test_an_ice_server_that_does_not_answer_does_not_block_the_offer() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
        mute.bind(("127.0.0.1", 0))
        servers = [{"urls": [f"{kind}:127.0.0.1:{mute.getsockname()[1]}"]} for kind in ("stun", "turn")]
        servers[1] |= {"username": "u", "credential": "c"}
        wire = Wire("ada")
        ada = p.Peer("bob", "Bob", True, True, wire, lambda: make_connection(servers), Video())
        start = time.monotonic()
        task = asyncio.create_task(ada.run())
        while not wire.sent:
            assert not task.done(), task.exception()
            await asyncio.sleep(0.02)
        assert p.GATHERING_TIMEOUTS_S[0] * 0.9 < time.monotonic() - start < 3.5
        assert "a=candidate" in wire.sent[0].sdp
        task.cancel()
        await ada.close()
        await p.all_closed()


def damaged(text: str, rng: random.Random, odd: str) -> str:
    """Drop, repeat or change a line or a few characters. `odd` has no digits, so that no address turns into another
    one, to which packets would be sent."""
    lines = text.splitlines()
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(lines))
        match rng.randrange(4):
            case 0:
                lines[at] = ""
            case 1:
                lines.insert(rng.randrange(len(lines)), lines[at])
            case 2:
                lines[at] = (
                    lines[at][: rng.randrange(len(lines[at]) + 1)] if "candidate" not in lines[at] else "a=candidate"
                )
            case _:
                place = rng.randrange(len(lines[at]) + 1)
                lines[at] = lines[at][:place] + "".join(rng.choices(odd, k=rng.randrange(1, 9))) + lines[at][place:]
    return "\r\n".join(line for line in lines if line or rng.random() < 0.1) + "\r\n"


async def test_mutated_candidates_do_not_disturb_a_connection() -> None:
    rng = random.Random(21)
    seeds = (
        "candidate:1 1 udp 2130706431 127.0.0.1 9 typ host generation 0",
        "candidate:a 1 tcp 1 127.0.0.1 9 typ srflx raddr 127.0.0.1 rport 9 tcptype active",
    )
    async with Pair() as pair:
        await pair.live()
        call = next(s for s in pair.wires[0].sent if isinstance(s, RemoteDescription)).call
        for number in range(1000):
            text = damaged(seeds[number % 2].replace(" ", "\n"), rng, "ab:/. -+\x00\ud800é").replace("\r\n", " ")
            where = rng.choice(({"sdpMid": "0"}, {"sdpMLineIndex": 0}, {"sdpMid": "zz"}, {"sdpMLineIndex": 255}, {}))
            await pair.ada._handle(RemoteCandidate("bob", {"candidate": text.strip(), **where}, call))
        assert sum(pair.ada.rejected.values()) > 300
        await pair.live()
        assert (pair.ada.connections, pair.bob.connections) == (1, 1)


async def test_a_peer_recovers_from_mutated_descriptions(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are rejected or answered, and the next valid offer connects."""
    monkeypatch.setattr(p, "RETRY_DELAYS_S", (0.1,))
    monkeypatch.setattr(p, "CONNECT_TIMEOUT_S", 3.0)
    rng = random.Random(22)
    async with Pair() as pair:
        await pair.live()
        sent = next(s for s in pair.wires[0].sent if isinstance(s, RemoteDescription))
        offer = "\r\n".join(line for line in sent.sdp.splitlines() if not line.startswith("a=candidate")) + "\r\n"
        pair.wires[1].cut = True  # drop its answers to offers that Ada never made
        for number in range(120):
            text = damaged(offer, rng, "ab:/= -+*\x00é")
            await pair.bob._handle(
                RemoteDescription("ada", rng.choice(("offer", "offer", "answer")), text, f"noise{number}")
            )
        pair.wires[1].cut = False
        assert 5 < pair.bob.connections < 120
        assert sum(pair.bob.rejected.values()) > 5
        await pair.live()


async def test_offers_of_a_participant_are_budgeted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each costs a connection, and their number is limited only by the server."""
    monkeypatch.setattr(p, "OFFER_BURST", 2.0)
    offering = make_connection([])
    offering.createDataChannel("video", negotiated=True, id=0)
    await offering.setLocalDescription(await offering.createOffer())
    sdp = offering.localDescription.sdp
    peer = p.Peer("bob", "Bob", True, False, Wire("ada"), lambda: make_connection([]), Video())
    for number in range(10):
        await peer._handle(RemoteDescription("bob", "offer", f"{sdp}a=x:{number}\r\n", f"call{number}"))
    assert peer.connections == 2
    assert peer.rejected == {"flood": 8}
    await peer.close()
    await p.all_closed()
    await offering.close()
