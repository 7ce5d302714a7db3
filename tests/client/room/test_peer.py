"""One peer connection from the first offer to the last: crossing offers, breaks, what malformed signals do."""

import asyncio
import random
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

pytest.importorskip("aiortc")
pytest.importorskip("websockets")
from aiortc import RTCPeerConnection, RTCSessionDescription

from broken_wire import nothing, silence
from call_double import DoubleFeed, DoubleLink, make_connection
from iwcodec.client.room import peer as p
from iwcodec.client.room.signalling import Candidate, Description
from iwcodec.client.transport import sctp
from iwcodec.client.video.link import Link, LinkState
from iwcodec.client.video.messages import SOURCE_CHANNEL
from iwcodec.client.video.video_sender import VideoSender
from stub_runtime import NearestSourceFit, StubRuntime, picture

pytestmark = pytest.mark.realtime

PATIENCE_S = 60.0
PICTURE = np.full((64, 64, 3), 128, np.uint8)


class Wire:
    """In place of the server: relays to the other peer, unless it is cut."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.other: p.Peer | None = None
        self.cut = False
        self.sent: list[Any] = []

    async def send_description(self, to: str, kind: str, sdp: str, call: str) -> None:
        self.relay(Description(self.name, kind, sdp, call))

    def relay(self, signal: Any) -> None:
        self.sent.append(signal)
        if not self.cut and self.other is not None:
            self.other.signalled(signal)


class Video:
    """Media without sound."""

    def __init__(self) -> None:
        self.feed = DoubleFeed()

    def attach(self, connection: RTCPeerConnection, link: Any) -> Any:
        if link is None:
            return DoubleLink(connection, self.feed)
        link.replace_connection(connection)
        return link

    def accept(self, connection: RTCPeerConnection) -> None:
        pass

    async def push(self) -> None:
        await self.feed.push(PICTURE, 0.0)


class RealVideo:
    """Real links over real connections; the brightness of what is filmed swings."""

    def __init__(self) -> None:
        self.executor = ThreadPoolExecutor(1)
        self.feed = VideoSender(StubRuntime(), self.executor, lambda picture: True, NearestSourceFit())

    def attach(self, connection: RTCPeerConnection, link: Any) -> Any:
        if link is None:
            return Link(connection, self.feed, StubRuntime(), self.executor)
        link.replace_connection(connection)
        return link

    def accept(self, connection: RTCPeerConnection) -> None:
        pass

    async def push(self) -> None:
        now = time.monotonic()
        await self.feed.push(picture(128 + 40 * np.sin(now)), now)


class Pair:
    def __init__(
        self,
        offers: tuple[bool, bool] = (True, False),
        media: type[Video] | type[RealVideo] = Video,
        make_connection: Callable[[list[Any]], RTCPeerConnection] = make_connection,
    ) -> None:
        self.wires = Wire("ada"), Wire("bob")
        self.media = media(), media()
        # Ada has the smaller id: she gives way.
        self.ada = p.Peer("bob", "Bob", True, offers[0], self.wires[0], lambda: make_connection([]), self.media[0])  # type: ignore[arg-type]
        self.bob = p.Peer("ada", "Ada", False, offers[1], self.wires[1], lambda: make_connection([]), self.media[1])  # type: ignore[arg-type]
        self.wires[0].other, self.wires[1].other = self.bob, self.ada
        self.peers = self.ada, self.bob
        self.tasks = [asyncio.create_task(peer.run()) for peer in self.peers]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Pictures are sent meanwhile, both ways."""
        while not condition():
            for task in self.tasks:
                assert not task.done(), task.exception()
            for media in self.media:
                await media.push()
            await asyncio.sleep(0.02)

    def seen(self) -> list[int]:
        return [getattr(peer.link, "received", 0) for peer in self.peers]

    async def live(self) -> None:
        """New pictures arrive on both sides."""
        await self.until(lambda: all(peer.connected for peer in self.peers))
        before = self.seen()
        await self.until(lambda: all(now > then for now, then in zip(self.seen(), before, strict=True)))

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for peer in self.peers:
            await peer.close()
        await p.all_closed()


def run(scenario: Callable[[Pair], Any], offers: tuple[bool, bool] = (True, False), **real: Any) -> None:
    async def whole() -> None:
        pair = Pair(offers, **real)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await scenario(pair)
        finally:
            await pair.close()

    asyncio.run(whole())


def test_one_offers() -> None:
    async def scenario(pair: Pair) -> None:
        assert pair.ada.state is LinkState.CONNECTING
        await pair.live()
        assert pair.ada.state is LinkState.LIVE
        assert (pair.ada.connections, pair.bob.connections) == (1, 1)

    run(scenario)


def test_whoever_offers_does_so_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at the next look; and in one message, which says that its candidates are all."""
    monkeypatch.setattr(p, "LOOK_S", 1000.0)

    async def scenario(pair: Pair) -> None:
        await pair.until(lambda: pair.bob.connection is not None and bool(pair.wires[1].sent))
        await pair.until(lambda: pair.bob.connection is not None and pair.bob.connection.connectionState == "connected")
        for wire, kind in zip(pair.wires, ("offer", "answer"), strict=True):
            (signal,) = wire.sent
            assert signal.kind == kind
            assert "a=candidate" in signal.sdp
            assert "a=end-of-candidates" in signal.sdp

    run(scenario)


def test_where_offers_cross_one_gives_way() -> None:
    async def scenario(pair: Pair) -> None:
        await pair.live()
        # Bob could not know whether Ada had his offer, and sent it again.
        assert [peer.refused for peer in pair.peers] == [{"repeated offer": 1}, {}]
        # Ada dropped her own offer for Bob's; Bob kept his.
        assert (pair.ada.connections, pair.bob.connections) == (2, 1)

    run(scenario, (True, True))


def test_a_broken_connection_is_replaced_and_the_link_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path dies without a word, as when a network goes away."""
    monkeypatch.setattr(p, "SILENCE_S", 0.5)
    monkeypatch.setattr(p, "YIELD_S", 0.5)

    async def scenario(pair: Pair) -> None:
        await pair.live()
        links = [peer.link for peer in pair.peers]
        for peer in pair.peers:
            silence(peer)
        await pair.until(lambda: all(peer.connections > 1 for peer in pair.peers))
        await pair.live()
        assert [peer.link for peer in pair.peers] == links

    run(scenario)


def test_a_connection_whose_channels_are_gone_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Although ICE and DTLS still stand, and sound may still come."""
    monkeypatch.setattr(p, "PAUSES_S", (0.1,))

    async def scenario(pair: Pair) -> None:
        await pair.live()
        before = [peer.connection for peer in pair.peers]
        before[0].sctp._set_state(before[0].sctp.State.CLOSED)  # type: ignore[union-attr]
        assert not pair.peers[0].connected
        await pair.until(lambda: all(peer.connected and peer.connection not in before for peer in pair.peers))

    run(scenario)


def test_a_library_outlives_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sockets of one side go, as with the network that they were on: over the next connection pictures go on from
    the sources that are there, and none of them is sent again."""
    monkeypatch.setattr(p, "SILENCE_S", 1.0)
    monkeypatch.setattr(p, "YIELD_S", 0.5)

    async def scenario(pair: Pair) -> None:
        for media in pair.media:
            media.feed._judge = nothing  # type: ignore[assignment, method-assign, union-attr]
            for level in (90, 120, 150):
                await media.feed._add_source(picture(level), 0.0)  # type: ignore[union-attr]
        await pair.until(lambda: all(peer.connected and peer.state is LinkState.LIVE for peer in pair.peers))
        links: list[Any] = [peer.link for peer in pair.peers]
        await pair.until(lambda: all(len(link._library) == 3 and link._peer_has[1] == 3 for link in links))
        kept = [link._library.sources() for link in links]
        assert all(sources_received(peer) > 100 for peer in pair.peers)
        connections = [peer.connection for peer in pair.peers]
        for protocol in connections[0].sctp.transport.transport._connection._protocols:  # type: ignore[union-attr]
            protocol.transport.abort()
        await pair.until(lambda: all(peer.connected and peer.connection not in connections for peer in pair.peers))
        seen = [link._latest.number for link in links]
        await pair.until(lambda: all(link._latest.number > n + 20 for link, n in zip(links, seen, strict=True)))
        assert [peer.link for peer in pair.peers] == links
        assert all(peer.state is LinkState.LIVE for peer in pair.peers)
        assert [sources_received(peer) for peer in pair.peers] == [0, 0]
        assert [link._library.sources() for link in links] == kept
        for media in pair.media:
            await media.feed._add_source(picture(180), 0.0)  # type: ignore[union-attr]
        await pair.until(lambda: all(len(link._library) == 4 for link in links))
        assert [sum(link._dropped.values()) for link in links] == [0, 0]

    run(scenario, media=RealVideo, make_connection=sctp.make_connection)


def sources_received(peer: p.Peer) -> int:
    """Bytes, over the present connection."""
    assert peer.connection is not None
    assert isinstance(peer.connection.sctp, sctp.BundlingSctpTransport)
    return peer.connection.sctp.received[SOURCE_CHANNEL]


def test_a_changed_network_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other side closed, and signalling is back after a break: at once, not after a time-out."""
    monkeypatch.setattr(p, "PAUSES_S", (60.0,))
    monkeypatch.setattr(p, "HURRY_S", 0.1)

    async def scenario(pair: Pair) -> None:
        await pair.live()
        for peer in pair.peers:
            assert peer.connection is not None
            await peer.connection.close()
        await pair.until(lambda: not any(peer.connected for peer in pair.peers))
        assert pair.ada.state is LinkState.RECONNECTING
        pair.ada.hurry()
        await pair.live()

    run(scenario)


def test_a_path_that_is_heard_again_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signalling is back first, after an outage of everything."""
    monkeypatch.setattr(p, "HURRY_S", 0.0)

    async def scenario(pair: Pair) -> None:
        await pair.live()
        pair.ada._heard_s -= 5.0
        pair.ada.hurry()
        for _ in range(3):
            before = pair.seen()[0]
            await pair.until(lambda: pair.seen()[0] > before)  # noqa: B023
        await asyncio.sleep(2 * p.HEAL_S)
        await pair.live()
        assert [peer.connections for peer in pair.peers] == [1, 1]

    run(scenario)


def test_an_offer_that_was_lost_before_another_one_crossed_it_is_sent_again() -> None:
    """Whoever need not give way would wait for an answer, and the other side for its offer to be answered."""

    async def scenario(pair: Pair) -> None:
        pair.wires[1].cut = True
        await pair.until(lambda: bool(pair.wires[1].sent))
        pair.wires[1].cut = False
        started = time.monotonic()
        pair.ada._due_s = 0.0
        await pair.live()
        assert time.monotonic() - started < p.HURRY_S
        assert [type(signal) for signal in pair.wires[1].sent] == [Description] * 2
        assert pair.wires[1].sent[0] == pair.wires[1].sent[1]
        for n in range(5):  # once is enough
            pair.bob._offering, pair.bob._renewed_s = True, time.monotonic()
            pair.bob.signalled(Description("ada", "offer", pair.wires[0].sent[0].sdp, f"late{n}"))
        await asyncio.sleep(0.2)
        assert len(pair.wires[1].sent) == 2

    run(scenario, (False, True))


def test_lost_signals_are_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(p, "CONNECT_S", 0.5)
    monkeypatch.setattr(p, "YIELD_S", 1.5)
    monkeypatch.setattr(p, "PAUSES_S", (0.1,))

    async def scenario(pair: Pair) -> None:
        pair.wires[0].cut = True
        await pair.until(lambda: len(pair.wires[0].sent) >= 2)
        pair.wires[0].cut = False
        await pair.live()

    run(scenario)


def test_forged_and_late_signals_change_nothing() -> None:
    async def scenario(pair: Pair) -> None:
        await pair.live()
        answer = next(s for s in pair.wires[1].sent if isinstance(s, Description))
        for signal in (
            Description("bob", "answer", answer.sdp, "another call"),
            Description("bob", "answer", answer.sdp, answer.call),  # replayed
            Candidate("bob", {"candidate": "candidate:1 1 udp 1 192.0.2.9 9 typ host", "sdpMid": "0"}, "another call"),
            Candidate("bob", {"candidate": "nonsense"}, answer.call),
            Candidate("bob", {"candidate": "candidate:1 1 udp x y z typ w", "sdpMid": "0"}, answer.call),
        ):
            pair.ada.signalled(signal)
        await pair.live()
        assert (pair.ada.connections, pair.bob.connections) == (1, 1)
        assert sum(pair.ada.refused.values()) == 2

    run(scenario)


def test_an_offer_that_is_none_changes_nothing() -> None:
    async def scenario(pair: Pair) -> None:
        await pair.live()
        bad = (
            "",
            "v=0\r\n",
            "v=0\r\nm=audio x\r\n",
            "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\nm=video 9 RTP 96\r\n",
            "v=0\r\nm=\r\n",
        )
        for sdp in bad:
            pair.bob.signalled(Description("ada", "offer", sdp, "forged"))
        await pair.until(lambda: sum(pair.bob.refused.values()) == len(bad))
        await pair.live()
        assert (pair.ada.connections, pair.bob.connections) == (1, 1)

    run(scenario)


def test_a_repeated_offer_changes_nothing() -> None:
    async def scenario(pair: Pair) -> None:
        await pair.live()
        offer = next(s for s in pair.wires[0].sent if isinstance(s, Description))
        connection = pair.bob.connection
        pair.bob.signalled(offer)
        pair.bob.signalled(Description("ada", "offer", offer.sdp, "another name"))
        pair.bob.signalled(Description("ada", "offer", offer.sdp, ""))
        pair.ada.signalled(Description("bob", "offer", offer.sdp, offer.call))  # one's own
        await pair.until(lambda: pair.bob.refused.get("repeated offer") == 3)
        await pair.until(lambda: pair.ada.refused.get("repeated offer") == 1)
        await pair.live()
        assert pair.bob.connection is connection
        assert (pair.ada.connections, pair.bob.connections) == (1, 1)

    run(scenario)


def test_offers_are_not_remembered_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(p, "MAX_OFFERS", 4)

    async def scenario(pair: Pair) -> None:
        for number in range(50):
            assert not pair.bob._is_repeated(Description("ada", "offer", f"sdp {number}", f"call {number}"))
        assert len(pair.bob._offers) == 8
        assert pair.bob._is_repeated(Description("ada", "offer", "sdp 49", "new"))

    run(scenario)


def test_an_attempt_that_fails_is_followed_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first connections cannot even be made: as if nobody had answered."""
    monkeypatch.setattr(p, "PAUSES_S", (0.1,))
    monkeypatch.setattr(p, "YIELD_S", 0.0)
    failures = ["malformed uri", "out of sockets"]

    def connect() -> RTCPeerConnection:
        if failures:
            raise ValueError(failures.pop())
        return make_connection([])

    async def scenario(pair: Pair) -> None:
        pair.ada._connect = connect
        await pair.live()
        assert pair.ada.refused == {"ValueError": 2}
        await pair.until(lambda: pair.ada.tries == 0)

    run(scenario)


def bare(sdp: str) -> str:
    """Without candidates."""
    kept = [line for line in sdp.splitlines() if not line.startswith(("a=candidate", "a=end-of-candidates"))]
    return "\r\n".join(kept) + "\r\n"


def test_a_peer_that_trickles() -> None:
    """Its answer names no candidates; they come afterwards, one by one (RFC 8838)."""

    async def scenario() -> None:
        wire, media = Wire("ada"), Video()
        ada = p.Peer("bob", "Bob", True, True, wire, lambda: make_connection([]), media)  # type: ignore[arg-type]
        task = asyncio.create_task(ada.run())
        theirs = make_connection([])
        theirs.createDataChannel("video", negotiated=True, id=0)
        while not any(isinstance(signal, Description) for signal in wire.sent):
            await asyncio.sleep(0.02)
        offer = wire.sent[0]
        # Nor does it know ours, that no check of its own tells us where it is.
        await theirs.setRemoteDescription(RTCSessionDescription(bare(offer.sdp), "offer"))
        await theirs.setLocalDescription(await theirs.createAnswer())
        answer = theirs.localDescription.sdp
        ada.signalled(Description("bob", "answer", bare(answer), offer.call))
        await asyncio.sleep(0.3)
        assert not ada.connected
        found = [line.removeprefix("a=") for line in answer.splitlines() if line.startswith("a=candidate")]
        for number, candidate in enumerate(found):
            where: dict[str, Any] = {"sdpMid": "0"} if number % 2 else {"sdpMLineIndex": 0}
            ada.signalled(Candidate("bob", {"candidate": candidate, **where}, offer.call))
        ada.signalled(Candidate("bob", {"candidate": "", "sdpMid": "0"}, offer.call))
        while not ada.connected:
            assert not task.done(), task.exception()
            await asyncio.sleep(0.02)
        assert (ada.connections, ada.refused) == (1, {})
        task.cancel()
        await asyncio.gather(theirs.close(), ada.close())
        await p.all_closed()

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE_S))


def test_a_server_that_does_not_answer_holds_up_no_offer() -> None:
    async def scenario() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
            mute.bind(("127.0.0.1", 0))
            servers = [{"urls": [f"{kind}:127.0.0.1:{mute.getsockname()[1]}"]} for kind in ("stun", "turn")]
            servers[1] |= {"username": "u", "credential": "c"}  # type: ignore[dict-item]
            wire = Wire("ada")
            ada = p.Peer("bob", "Bob", True, True, wire, lambda: make_connection(servers), Video())  # type: ignore[arg-type]
            start = time.monotonic()
            task = asyncio.create_task(ada.run())
            while not wire.sent:
                assert not task.done(), task.exception()
                await asyncio.sleep(0.02)
            assert p.GATHER_S[0] * 0.9 < time.monotonic() - start < 3.5
            assert "a=candidate" in wire.sent[0].sdp
            task.cancel()
            await ada.close()
            await p.all_closed()

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE_S))


def damaged(text: str, rng: random.Random, odd: str) -> str:
    """A line or a few characters dropped, repeated or replaced. `odd` has no digits, that no address becomes another's
    to which something would then be sent."""
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


def test_no_candidate_disturbs_a_connection() -> None:
    rng = random.Random(21)
    seeds = (
        "candidate:1 1 udp 2130706431 127.0.0.1 9 typ host generation 0",
        "candidate:a 1 tcp 1 127.0.0.1 9 typ srflx raddr 127.0.0.1 rport 9 tcptype active",
    )

    async def scenario(pair: Pair) -> None:
        await pair.live()
        call = next(s for s in pair.wires[0].sent if isinstance(s, Description)).call
        for number in range(1000):
            text = damaged(seeds[number % 2].replace(" ", "\n"), rng, "ab:/. -+\x00\ud800é").replace("\r\n", " ")
            where = rng.choice(({"sdpMid": "0"}, {"sdpMLineIndex": 0}, {"sdpMid": "zz"}, {"sdpMLineIndex": 255}, {}))
            await pair.ada._take(Candidate("bob", {"candidate": text.strip(), **where}, call))
        assert sum(pair.ada.refused.values()) > 300
        await pair.live()
        assert (pair.ada.connections, pair.bob.connections) == (1, 1)

    run(scenario)


def test_no_description_ends_a_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offers with something wrong in them: refused, or answered, and whatever they are, the next real one connects."""
    monkeypatch.setattr(p, "PAUSES_S", (0.1,))
    monkeypatch.setattr(p, "CONNECT_S", 3.0)
    rng = random.Random(22)

    async def scenario(pair: Pair) -> None:
        await pair.live()
        sent = next(s for s in pair.wires[0].sent if isinstance(s, Description))
        offer = "\r\n".join(line for line in sent.sdp.splitlines() if not line.startswith("a=candidate")) + "\r\n"
        pair.wires[1].cut = True  # its answers to what was never asked
        for number in range(120):
            text = damaged(offer, rng, "ab:/= -+*\x00é")
            await pair.bob._take(Description("ada", rng.choice(("offer", "offer", "answer")), text, f"noise{number}"))
        pair.wires[1].cut = False
        assert 5 < pair.bob.connections < 120
        assert sum(pair.bob.refused.values()) > 5
        await pair.live()

    run(scenario)
