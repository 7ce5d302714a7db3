"""One other participant: the peer connection to it, made anew whenever it breaks, and the link that survives that.

Negotiation is the server protocol's: every offer starts a fresh connection under a name of its own (`call`), so that
late answers and candidates of an earlier one are told apart; where two offers cross, the participant with the smaller
id gives way (perfect negotiation; aiortc has no rollback, so giving way means dropping the offering connection),
unless the other's offer is so old that it must have been lost.
aiortc gathers all candidates before it has a description, so ours go out inside it, and it says that they are all;
candidates that trickle in from others are taken (RFC 8838).
"""

import asyncio
import hashlib
import logging
import math
import re
import secrets
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, Protocol

from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.sdp import SessionDescription, candidate_from_sdp

from iwcodec.client.room.signalling import Candidate, Description, Signalling
from iwcodec.client.video.link import Link, LinkState

logger = logging.getLogger(__name__)

CONNECT_S: Final = 12.0
"""An attempt that has not connected by then is given up."""
SILENCE_S: Final = 6.0
"""Without a single packet, after which a connection counts as broken. Shorter outages heal by themselves."""
HURRY_S: Final = 4.0
"""What an attempt is left alone for, whatever happens."""
HEAL_S: Final = 0.6
"""What a path that has been silent may take to be heard again, once signalling is back: a question of sctp.PROBE_S and
its answer. A new connection takes longer."""
YIELD_S: Final = 2.0
"""The polite side waits this much longer before it reconnects: usually the other one has done it by then."""
PAUSES_S: Final = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Between attempts; the last one goes on for as long as the participant is in the room."""
LOOK_S: Final = 0.25
GATHER_S: Final = (1.0, 2.0, 5.0)
"""Longest that STUN and TURN servers are waited for before a description goes out: an attempt is not held up by one
that does not answer, and the next ones give a slow one (TURN over TLS takes five round trips) more time."""
MAX_OFFERS: Final = 256
"""Offers that are remembered, lest one that is repeated replace the connection."""
CLOSE_S: Final = 20.0
"""Longest that closing a connection may take: over a dead path goodbyes are repeated for a while."""
GOODBYE_S: Final = 2.0
"""Longest that whoever leaves waits for that."""


class Media(Protocol):
    """What a connection carries. Called before the offer or answer of every new connection."""

    def attach(self, connection: RTCPeerConnection, link: Link | None) -> Link: ...

    def accept(self, connection: RTCPeerConnection) -> None:
        """The other side's description is known; the answer, or the connection, comes next."""
        ...


class Peer:
    """Start `run` as a task; `close` ends it. All methods belong to the event loop."""

    def __init__(
        self,
        id: str,
        name: str,
        polite: bool,
        offers: bool,
        signalling: Signalling,
        connect: Callable[[], RTCPeerConnection],
        media: Media,
    ) -> None:
        """`offers`: we came later and make the first offer; otherwise it is waited for."""
        self.id, self.name = id, name
        self.link: Link | None = None
        self.connection: RTCPeerConnection | None = None
        self.gone = False
        """The server has lost it; what remains is the direct connection."""
        self.refused: dict[str, int] = {}
        """Signals that could not be used, by reason."""
        self.connections = 0
        """Made so far."""
        self.tries = 0
        """Connections made since one came up, the present one included."""
        self._polite, self._signalling, self._connect, self._media = polite, signalling, connect, media
        self._call = ""
        self._offering = self._insisted = False
        self._offers: deque[str] = deque(maxlen=2 * MAX_OFFERS)
        """Names and digests of those made and taken."""
        self._inbox: asyncio.Queue[Description | Candidate] = asyncio.Queue()
        self._failures = 0
        now = time.monotonic()
        self._heard_s = now
        self._renewed_s = now - HURRY_S
        self._hurry_s = math.inf
        self._packets = -1
        self._connected = False
        self._due_s = now if offers else now + CONNECT_S
        """When to offer next, unless something connects before."""

    @property
    def state(self) -> LinkState:
        if self.link is None:
            return LinkState.CONNECTING
        if not self.connected and self.link.state not in (LinkState.CONNECTING, LinkState.CLOSED):
            return LinkState.RECONNECTING
        return self.link.state

    @property
    def connected(self) -> bool:
        """Channels included: without them nothing can be shown."""
        if self.connection is None or self.connection.connectionState != "connected":
            return False
        return self.connection.sctp is None or self.connection.sctp.state == "connected"

    @property
    def silent_s(self) -> float:
        """Seconds without a packet."""
        return time.monotonic() - self._heard_s

    def signalled(self, signal: Description | Candidate) -> None:
        """What the server relayed from this participant; handled in order by `run`."""
        if self._inbox.qsize() < 256:
            self._inbox.put_nowait(signal)

    def hurry(self, after_s: float = 0.0) -> None:
        """The network has changed, or signalling is back: what does not work by now is tried again at once, or after
        so many seconds, unless that has only just been done."""
        self._failures = 0
        if not self.connected or self.silent_s > 1.0:
            after_s = max(after_s, HEAL_S if self.connected else 0.0)
            self._hurry_s = max(time.monotonic() + after_s, self._renewed_s + HURRY_S)

    async def run(self) -> None:
        """Connect, and keep connected, until cancelled."""
        while True:
            signal = None
            due_s = min(self._due_s, self._hurry_s) - time.monotonic()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(LOOK_S, due_s)):  # what is there already comes first all the same
                    signal = await self._inbox.get()
            if signal is not None:
                await self._take(signal)
            self._look()
            if time.monotonic() >= min(self._due_s, self._hurry_s):
                await self._try()

    async def close(self) -> None:
        if self.link is not None:
            await self.link.close()
        self._retire(self.connection)

    def _look(self) -> None:
        """Notice that the connection has come up, or broken."""
        now = time.monotonic()
        packets = _packets_received(self.connection)
        if packets != self._packets:
            self._packets, self._heard_s = packets, now
            self._hurry_s = math.inf if self.connected else self._hurry_s
        if self.connected:
            if not self._connected:
                self._connected, self._failures, self._heard_s = True, 0, now
                self.tries = 0
            self._due_s = self._heard_s + SILENCE_S + (YIELD_S if self._polite else 0.0)
            return
        if self._connected:
            self._connected = False
            self._due_s = now + self._pause()
        state = None if self.connection is None else self.connection.connectionState
        if state in ("failed", "closed"):
            self._due_s = min(self._due_s, now + self._pause())

    def _pause(self) -> float:
        return PAUSES_S[min(self._failures, len(PAUSES_S) - 1)] + (YIELD_S if self._polite else 0.0)

    async def _try(self) -> None:
        """An attempt that fails, for whatever reason, is followed by another one, as one that is not answered is."""
        try:
            await self._attempt()
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._refuse(type(error).__name__)
            self._due_s = time.monotonic() + self._pause()
            level = logging.WARNING if self._failures == 1 else logging.DEBUG
            logger.log(level, "no connection to %s could be made: %r", self.id, error)

    async def _attempt(self) -> None:
        """Offer a new connection."""
        self._failures += 1
        self._due_s = time.monotonic() + CONNECT_S + self._pause()
        self._hurry_s = math.inf
        connection = self._renew(secrets.token_urlsafe(9))
        self._offers.append(self._call)
        self._offering, self._insisted = True, False
        await connection.setLocalDescription(await connection.createOffer())
        await self._send(connection)

    async def _take(self, signal: Description | Candidate) -> None:
        """Foreign bytes: what cannot be used is counted and changes nothing."""
        try:
            if isinstance(signal, Candidate):
                await self._candidate(signal)
            elif signal.kind == "answer":
                await self._answered(signal)
            elif self._offering and not self._polite and time.monotonic() - self._renewed_s < HURRY_S:
                logger.debug("crossing offer of %s ignored", self.id)
                await self._insist()
            else:
                await self._offered(signal)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # aiortc's parsers raise whatever comes up
            self._refuse(type(error).__name__)
            logger.debug("signal of %s refused: %r", self.id, error)

    async def _insist(self) -> None:
        """The other side gives way to our offer, unless it was lost: with a WebSocket to it that had died unnoticed.
        So it goes out once more, as the other side drops what it has had."""
        if self.connection is not None and not self._insisted:
            self._insisted = True
            await self._send(self.connection)

    def _refuse(self, reason: str) -> None:
        self.refused[reason] = self.refused.get(reason, 0) + 1

    async def _offered(self, offer: Description) -> None:
        # Read before anything is given up for it.
        if not any(media.kind == "application" for media in SessionDescription.parse(offer.sdp).media):
            raise ValueError("no data channels")
        if self._is_repeated(offer):
            self._refuse("repeated offer")
            return
        connection = self._renew(offer.call)
        self._offering = False
        self._due_s = time.monotonic() + CONNECT_S + self._pause()
        await connection.setRemoteDescription(RTCSessionDescription(offer.sdp, "offer"))
        self._media.accept(connection)
        await connection.setLocalDescription(await connection.createAnswer())
        await self._send(connection)

    def _is_repeated(self, offer: Description) -> bool:
        """Whether it was taken before, or is our own. Every offer has a name, and keys, of its own; from then on this
        one counts as taken."""
        names = {offer.call, hashlib.sha256(offer.sdp.encode(errors="replace")).hexdigest()} - {""}
        repeated = any(name in self._offers for name in names)
        self._offers.extend(names.difference(self._offers))
        return repeated

    async def _answered(self, answer: Description) -> None:
        if not self._offering or answer.call != self._call or self.connection is None:
            return
        self._offering = False
        await self.connection.setRemoteDescription(RTCSessionDescription(answer.sdp, "answer"))
        self._media.accept(self.connection)

    async def _candidate(self, signal: Candidate) -> None:
        if signal.call != self._call or self.connection is None or self.connection.remoteDescription is None:
            return
        if signal.candidate is None or not signal.candidate["candidate"]:
            await self.connection.addIceCandidate(None)
            return
        candidate = candidate_from_sdp(signal.candidate["candidate"].removeprefix("candidate:"))
        candidate.sdpMid = signal.candidate.get("sdpMid")
        candidate.sdpMLineIndex = signal.candidate.get("sdpMLineIndex")
        await self.connection.addIceCandidate(candidate)

    async def _send(self, connection: RTCPeerConnection) -> None:
        description = connection.localDescription
        sdp = _FOUNDATION.sub(lambda found: found[0][:4], description.sdp)  # of use for telling them apart alone
        await self._signalling.send_description(self.id, description.type, sdp, self._call)

    def _renew(self, call: str) -> RTCPeerConnection:
        """A new connection in place of the present one; the link and what it knows go over to it."""
        before = self.connection
        self.tries += 1
        connection = self._connect()
        try:
            self.link = self._media.attach(connection, self.link)
        except Exception:
            self._retire(connection)
            raise
        _bound_gathering(connection, GATHER_S[min(self.tries, len(GATHER_S)) - 1])
        self.connection, self._call, self._connected = connection, call, False
        self.connections += 1
        self._packets = -1
        self._heard_s = self._renewed_s = time.monotonic()
        self._hurry_s = math.inf
        self._retire(before)
        return connection

    def _retire(self, connection: RTCPeerConnection | None) -> None:
        """Close without waiting for it: saying goodbye over a dead path takes seconds."""
        if connection is None:
            return
        task = asyncio.create_task(_closed(connection))
        _closing.add(task)
        task.add_done_callback(_closing.discard)


_closing: set[asyncio.Task[None]] = set()


async def _closed(connection: RTCPeerConnection) -> None:
    with suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(CLOSE_S):
            await connection.close()


def _bound_gathering(connection: RTCPeerConnection, longest_s: float) -> None:
    """aioice waits for 5 s where a server does not answer, and takes another time of nobody but itself."""
    for transport in getattr(connection, _ICE_TRANSPORTS):
        ice = transport.iceGatherer._connection
        ice.get_component_candidates = partial(ice.get_component_candidates, timeout=longest_s)


async def all_closed() -> None:
    """Until every connection that was given up is closed, within reason."""
    if _closing:
        await asyncio.wait(set(_closing), timeout=GOODBYE_S)


def _packets_received(connection: RTCPeerConnection | None) -> int:
    """Over DTLS, media included; -1 before there is a transport."""
    sctp = None if connection is None else connection.sctp
    if sctp is None:
        return -1
    report: Any = next(iter(sctp.transport._get_stats().values()), None)
    return -1 if report is None else int(report.packetsReceived)


_FOUNDATION: Final = re.compile("(?<=a=candidate:)[0-9a-f]{32}(?= )")
_ICE_TRANSPORTS: Final = "_RTCPeerConnection__iceTransports"
