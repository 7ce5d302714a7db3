"""Peer connection to one other participant: negotiated, monitored, and replaced when it fails, below a link that stays.

Every offer creates a new RTCPeerConnection with an id of its own (`call`), so late answers and candidates of an earlier
connection can be recognised; there is no ICE restart. Glare is resolved as in WebRTC's perfect negotiation: the
participant with the smaller id is polite and drops its own offer (aiortc has no rollback, so it drops the connection),
and the other one ignores the incoming offer, unless its own is so old that it must have been lost.

aiortc gathers all ICE candidates before it returns a local description, so our SDP contains them all and ends with
`a=end-of-candidates`. Remote candidates may trickle in (RFC 8838).
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

from iwcodec.client.link.link import Link
from iwcodec.client.link.link_state import LinkState
from iwcodec.client.room.protocol import RemoteCandidate, RemoteDescription
from iwcodec.client.room.signalling import Signalling
from iwcodec.codec.token_bucket import TokenBucket

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S: Final = 12.0
"""Time after which a connection that has not come up is abandoned."""
SILENCE_TIMEOUT_S: Final = 6.0
"""Time without any packet after which a connection counts as failed. Connections survive shorter outages."""
MIN_ATTEMPT_S: Final = 4.0
"""Minimum time between two new connections requested by `retry`, and maximum age of an offer that wins over a crossing
one."""
RECOVERY_S: Final = 0.6
"""Time that `retry` gives a silent connection to recover: enough for one probe (sctp.PROBE_S) and its answer, and less
than a new connection takes."""
POLITE_DELAY_S: Final = 2.0
"""Additional delay before the polite side reconnects, which usually lets the other side do it without glare."""
RETRY_DELAYS_S: Final = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Delays between attempts; the last one repeats for as long as the participant is in the room."""
POLL_S: Final = 0.25
"""Interval between checks of the connection's state."""
GATHERING_TIMEOUTS_S: Final = (1.0, 2.0, 5.0)
"""Maximum time for ICE gathering in the first, second and later attempts: a STUN or TURN server that does not answer
delays the first offer by 1 s at most, and a slow one (TURN over TLS takes five round trips) gets more time later."""
MAX_SIGNALS: Final = 256
"""Signals queued from the server; more are discarded."""
OFFERS_PER_S, OFFER_BURST = 0.25, 8.0
"""Offers of a participant that are answered per second, and at once: each costs a new connection. Attempts are
MIN_ATTEMPT_S apart."""
MAX_REMEMBERED_OFFERS: Final = 256
"""Recent offers remembered, so that a duplicate does not replace the connection."""
CLOSE_TIMEOUT_S: Final = 20.0
"""Maximum time for closing a connection in the background: over a dead path, the closing messages are retransmitted."""
ALL_CLOSED_TIMEOUT_S: Final = 2.0
"""Maximum time that `all_closed` waits for connections to close."""


class Media(Protocol):
    """What a connection carries."""

    def attach(self, connection: RTCPeerConnection, link: Link | None) -> Link:
        """Add tracks and data channels to a new connection, before its offer or answer.

        `link` is the link of the previous connection, to be moved to this one; None for the first connection.
        """
        ...

    def accept(self, connection: RTCPeerConnection) -> None:
        """The remote description has been set; after an offer, the answer is created next."""
        ...


class Peer:
    """Connection to one participant. Start `run` as a task; `close` ends it. All methods belong to the event loop."""

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
        """`polite`: whether our offer gives way to a crossing one. `offers`: whether we make the first offer, as the
        one who joined later; otherwise wait for it. `connect` creates a connection."""
        self.id, self.name = id, name
        self.link: Link | None = None
        self.connection: RTCPeerConnection | None = None
        self.lost_by_server = False
        """The server has lost the participant; only the direct connection shows whether it is still there."""
        self.rejected: dict[str, int] = {}
        """Counts of failed attempts and unusable signals, by reason."""
        self.connections = 0
        """Connections created so far."""
        self.attempts = 0
        """Connections created since one last came up, including the present one."""
        self._polite, self._signalling, self._connect, self._media = polite, signalling, connect, media
        self._call = ""
        self._offering = self._offer_resent = False
        self._offers: deque[str] = deque(maxlen=2 * MAX_REMEMBERED_OFFERS)
        """Ids and SDP digests of recent offers, ours and theirs."""
        self._inbox: asyncio.Queue[RemoteDescription | RemoteCandidate] = asyncio.Queue()
        self._answerable = TokenBucket(OFFERS_PER_S, OFFER_BURST)
        self._failures = 0
        now = time.monotonic()
        self._packet_s = now
        """When the last packet arrived, or the present connection was created or came up."""
        self._created_s = now - MIN_ATTEMPT_S
        """When the present connection was created."""
        self._packets = -1
        self._was_connected = False
        self._offer_at_s = now if offers else now + CONNECT_TIMEOUT_S
        """When to make the next offer, unless a connection comes up before."""
        self._retry_at_s = math.inf
        """When `retry` asked for the next offer; infinite if it did not."""

    @property
    def state(self) -> LinkState:
        if self.link is None:
            return LinkState.CONNECTING
        if not self.connected and self.link.state not in (LinkState.CONNECTING, LinkState.CLOSED):
            return LinkState.RECONNECTING
        return self.link.state

    @property
    def connected(self) -> bool:
        """Whether ICE, DTLS and the SCTP association are up: without data channels no picture can arrive."""
        if self.connection is None or self.connection.connectionState != "connected":
            return False
        return self.connection.sctp is None or self.connection.sctp.state == "connected"

    @property
    def silent_s(self) -> float:
        """Seconds since the last packet arrived."""
        return time.monotonic() - self._packet_s

    def receive(self, signal: RemoteDescription | RemoteCandidate) -> None:
        """Queue a signal from this participant; `run` handles signals in order."""
        if self._inbox.qsize() < MAX_SIGNALS:
            self._inbox.put_nowait(signal)

    def retry(self, delay_s: float = 0.0) -> None:
        """Replace the connection after `delay_s` unless it works, because the network has changed or signalling is
        back. Attempts are MIN_ATTEMPT_S apart, and a silent connection gets RECOVERY_S to recover."""
        self._failures = 0
        if not self.connected or self.silent_s > 1.0:
            delay_s = max(delay_s, RECOVERY_S if self.connected else 0.0)
            self._retry_at_s = max(time.monotonic() + delay_s, self._created_s + MIN_ATTEMPT_S)

    async def run(self) -> None:
        """Connect, and reconnect whenever needed, until cancelled."""
        while True:
            signal = None
            wait_s = min(self._offer_at_s, self._retry_at_s) - time.monotonic()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(POLL_S, wait_s)):  # a queued signal is taken even if wait_s is negative
                    signal = await self._inbox.get()
            if signal is not None:
                await self._handle(signal)
            self._update_state()
            if time.monotonic() >= min(self._offer_at_s, self._retry_at_s):
                await self._attempt()

    async def close(self) -> None:
        if self.link is not None:
            await self.link.close()
        self._close_in_background(self.connection)

    def _update_state(self) -> None:
        """Detect that the connection has come up or failed, and schedule the next offer accordingly."""
        now = time.monotonic()
        packets = _packets_received(self.connection)
        if packets != self._packets:
            self._packets, self._packet_s = packets, now
            self._retry_at_s = math.inf if self.connected else self._retry_at_s
        if self.connected:
            if not self._was_connected:
                self._was_connected, self._failures, self._packet_s = True, 0, now
                self.attempts = 0
            self._offer_at_s = self._packet_s + SILENCE_TIMEOUT_S + (POLITE_DELAY_S if self._polite else 0.0)
            return
        if self._was_connected:
            self._was_connected = False
            self._offer_at_s = now + self._retry_delay_s()
        state = None if self.connection is None else self.connection.connectionState
        if state in ("failed", "closed"):
            self._offer_at_s = min(self._offer_at_s, now + self._retry_delay_s())

    def _retry_delay_s(self) -> float:
        delay_s = RETRY_DELAYS_S[min(self._failures, len(RETRY_DELAYS_S) - 1)]
        return delay_s + (POLITE_DELAY_S if self._polite else 0.0)

    async def _attempt(self) -> None:
        """Make an offer. If that fails, schedule the next attempt, as if the offer had not been answered."""
        try:
            await self._offer()
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._reject(type(error).__name__)
            self._offer_at_s = time.monotonic() + self._retry_delay_s()
            level = logging.WARNING if self._failures == 1 else logging.DEBUG
            logger.log(level, "no connection to %s could be made: %r", self.id, error)

    async def _offer(self) -> None:
        """Create a new connection and send its offer."""
        self._failures += 1
        self._offer_at_s = time.monotonic() + CONNECT_TIMEOUT_S + self._retry_delay_s()
        self._retry_at_s = math.inf
        connection = self._replace_connection(secrets.token_urlsafe(9))
        self._offers.append(self._call)
        self._offering, self._offer_resent = True, False
        await connection.setLocalDescription(await connection.createOffer())
        await self._send_description(connection)

    async def _handle(self, signal: RemoteDescription | RemoteCandidate) -> None:
        """Handle a signal, which is untrusted: count those that cannot be used."""
        try:
            if isinstance(signal, RemoteCandidate):
                await self._handle_candidate(signal)
            elif signal.kind == "answer":
                await self._handle_answer(signal)
            elif self._offering and not self._polite and time.monotonic() - self._created_s < MIN_ATTEMPT_S:
                logger.debug("crossing offer of %s ignored", self.id)
                await self._resend_offer()
            else:
                await self._handle_offer(signal)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # aiortc's parsers raise all kinds
            self._reject(type(error).__name__)
            logger.debug("signal of %s rejected: %r", self.id, error)

    async def _resend_offer(self) -> None:
        """Send our offer once more after glare: the polite side answers it unless it was lost, for instance on a dead
        WebSocket, and ignores a duplicate."""
        if self.connection is not None and not self._offer_resent:
            self._offer_resent = True
            await self._send_description(self.connection)

    def _reject(self, reason: str) -> None:
        self.rejected[reason] = self.rejected.get(reason, 0) + 1

    async def _handle_offer(self, offer: RemoteDescription) -> None:
        # Parse it before the present connection is dropped for it.
        if not any(media.kind == "application" for media in SessionDescription.parse(offer.sdp).media):
            raise ValueError("no data channels")
        if self._is_duplicate(offer):
            self._reject("repeated offer")
            return
        if not self._answerable.take(time.monotonic()):
            self._reject("flood")
            return
        connection = self._replace_connection(offer.call)
        self._offering = False
        self._offer_at_s = time.monotonic() + CONNECT_TIMEOUT_S + self._retry_delay_s()
        await connection.setRemoteDescription(RTCSessionDescription(offer.sdp, "offer"))
        self._media.accept(connection)
        await connection.setLocalDescription(await connection.createAnswer())
        await self._send_description(connection)

    def _is_duplicate(self, offer: RemoteDescription) -> bool:
        """Whether the offer was handled before or is our own; remembers it. Every offer has its own id and keys."""
        names = {offer.call, hashlib.sha256(offer.sdp.encode(errors="replace")).hexdigest()} - {""}
        is_duplicate = any(name in self._offers for name in names)
        self._offers.extend(names.difference(self._offers))
        return is_duplicate

    async def _handle_answer(self, answer: RemoteDescription) -> None:
        if not self._offering or answer.call != self._call or self.connection is None:
            return
        self._offering = False
        await self.connection.setRemoteDescription(RTCSessionDescription(answer.sdp, "answer"))
        self._media.accept(self.connection)

    async def _handle_candidate(self, signal: RemoteCandidate) -> None:
        if signal.call != self._call or self.connection is None or self.connection.remoteDescription is None:
            return
        if signal.candidate is None or not signal.candidate["candidate"]:
            await self.connection.addIceCandidate(None)
            return
        candidate = candidate_from_sdp(signal.candidate["candidate"].removeprefix("candidate:"))
        candidate.sdpMid = signal.candidate.get("sdpMid")
        candidate.sdpMLineIndex = signal.candidate.get("sdpMLineIndex")
        await self.connection.addIceCandidate(candidate)

    async def _send_description(self, connection: RTCPeerConnection) -> None:
        description = connection.localDescription
        # Foundations only have to differ (RFC 8839, section 5.1): 4 of 32 digits do.
        sdp = _FOUNDATION.sub(lambda match: match[0][:4], description.sdp)
        await self._signalling.send_description(self.id, description.type, sdp, self._call)

    def _replace_connection(self, call: str) -> RTCPeerConnection:
        """Create a connection named `call` in place of the present one, and move the link, with its state, to it."""
        previous = self.connection
        self.attempts += 1
        connection = self._connect()
        try:
            self.link = self._media.attach(connection, self.link)
        except Exception:
            self._close_in_background(connection)
            raise
        _limit_gathering(connection, GATHERING_TIMEOUTS_S[min(self.attempts, len(GATHERING_TIMEOUTS_S)) - 1])
        self.connection, self._call, self._was_connected = connection, call, False
        self.connections += 1
        self._packets = -1
        self._packet_s = self._created_s = time.monotonic()
        self._retry_at_s = math.inf
        self._close_in_background(previous)
        return connection

    def _close_in_background(self, connection: RTCPeerConnection | None) -> None:
        """Close without waiting: over a dead path that takes seconds."""
        if connection is None:
            return
        task = asyncio.create_task(_close(connection))
        _closing.add(task)
        task.add_done_callback(_closing.discard)


_closing: set[asyncio.Task[None]] = set()


async def _close(connection: RTCPeerConnection) -> None:
    with suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await connection.close()


def _limit_gathering(connection: RTCPeerConnection, timeout_s: float) -> None:
    """Limit the time that ICE gathering waits for STUN and TURN servers; aioice's 5 s cannot be configured."""
    for transport in getattr(connection, _ICE_TRANSPORTS):
        ice = transport.iceGatherer._connection
        ice.get_component_candidates = partial(ice.get_component_candidates, timeout=timeout_s)


async def all_closed() -> None:
    """Wait until the connections of all peers are closed, for ALL_CLOSED_TIMEOUT_S at most."""
    if _closing:
        await asyncio.wait(set(_closing), timeout=ALL_CLOSED_TIMEOUT_S)


def _packets_received(connection: RTCPeerConnection | None) -> int:
    """Number of packets received over the DTLS transport, media included; -1 before there is a transport."""
    sctp = None if connection is None else connection.sctp
    if sctp is None:
        return -1
    report: Any = next(iter(sctp.transport._get_stats().values()), None)
    return -1 if report is None else int(report.packetsReceived)


_FOUNDATION: Final = re.compile("(?<=a=candidate:)[0-9a-f]{32}(?= )")
_ICE_TRANSPORTS: Final = "_RTCPeerConnection__iceTransports"
