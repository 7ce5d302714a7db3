"""Signalling connections of one server process: join, relay messages, renew leases, remove lost members, close.

Each connection has at most three tasks: the reader (`Hub._read`), the writer (`Hub._deliver`), and `Hub.serve`, which
waits until one of them, or an outside caller of `Link.end`, ends the connection. Clocks are passed in, and everything
that depends on time happens in `tick`, so tests can step it.
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Final

from iwcodec.codec.token_bucket import TokenBucket
from iwcodec.server import tokens
from iwcodec.server.limits import AddressBuckets, Allowance, address_key
from iwcodec.server.link import Disconnected, Dropped, End, Link, Socket
from iwcodec.server.logs import emit, keyed_tag, logger
from iwcodec.server.messages import (
    CLOSE_CODES,
    PROTOCOL,
    BadMessage,
    ClientMessage,
    Error,
    ErrorCode,
    Ice,
    IceServers,
    Join,
    Leave,
    Lock,
    Ping,
    Pong,
    Remove,
    Signal,
    Welcome,
    encode,
    parse,
    relayed,
)
from iwcodec.server.prometheus import Metrics
from iwcodec.server.settings import Settings
from iwcodec.server.store.base import Joined, Member, Posted, Refusal, Renewed, Store, StoreError
from iwcodec.server.turn import TTL_S

TICK_S: Final = 1.0
"""Interval of `Hub.tick`, in seconds."""
FAREWELL_S: Final = 2.0
"""Timeout in seconds for the last message and the close frame, as the peer may not be reading."""
NORMAL_CLOSURE: Final = 1000
"""WebSocket close code (RFC 6455 section 7.4.1)."""
REFUSALS_PER_S: Final = 1.0
REFUSAL_BURST: Final = 10.0
"""Log lines about refusals. Further ones are only counted, so that a flood does not fill the log."""


class Hub:
    """All signalling connections of this process, and what it knows about time, tokens and the shared state."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock`: Unix seconds, shared by all processes. `ticks`: monotonic seconds of this process."""
        self.store = store
        self.settings = settings
        self.clock = clock
        self.ticks = ticks
        self.metrics = Metrics()
        self.links: set[Link] = set()
        self.members: dict[tuple[str, str], Link] = {}
        """Joined connections by (room, member id)."""
        self.sweep_from = 0.0
        """Unix seconds before which no member is removed."""
        self.openings = AddressBuckets(settings.limits.rooms_per_s, settings.limits.room_burst)
        self._ticking: asyncio.Task[None] | None = None
        self._refusal_log = TokenBucket(REFUSALS_PER_S, REFUSAL_BURST)
        self._unlogged = 0

    async def open(self) -> None:
        """Start the store and the ticks. Raises StoreError if the shared state cannot be reached."""
        await self.store.open(self.wake)
        self._ticking = asyncio.create_task(self._tick_forever())

    async def close(self) -> None:
        """Stop. Every connection must have been closed before."""
        if self._ticking:
            self._ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticking
        await self.store.close()
        emit("stopped")

    async def serve(self, socket: Socket, room: str, address: str) -> None:
        """Serve one connection from its opening to its end. `address`: network address of the peer."""
        link = Link(socket, room, address_key(address), Allowance(self.settings.limits), self.ticks())
        self.links.add(link)
        self.metrics.connections.set(len(self.links))
        tasks = [asyncio.create_task(self._run(link, work)) for work in (self._read, self._deliver)]
        try:
            await link.ended
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.links.discard(link)
            self.metrics.connections.set(len(self.links))
            if link.member and self.members.get((room, link.member.id)) is link:
                del self.members[room, link.member.id]
        await self._farewell(link, link.ended.result())

    def wake(self, room: str, member: str) -> None:
        """Have the writer of that member fetch its mailbox; the writers of all members if `room` is empty."""
        if not room:
            for link in self.links:
                link.mail.set()
            return
        owner = self.members.get((room, member))
        if owner:
            owner.mail.set()

    async def tick(self) -> None:
        """Close idle connections, renew leases and remove members whose lease has lapsed. Called every TICK_S."""
        now, limits = self.ticks(), self.settings.limits
        for link in list(self.links):
            # Messages do not extend the time to join.
            silent = now - link.heard > limits.idle_s if link.member else now - link.opened > limits.join_s
            if silent:
                link.end(End("idle", "Nothing, or no join, was heard for too long."))
        try:
            await self._renew_due()
            swept = self.clock() >= self.sweep_from
            if swept and (lost := await self.store.sweep(self.clock())):
                self.metrics.lost.inc(lost)
                emit("lost", members=lost)
            self.metrics.store_up.set(1)
        except StoreError as error:
            # No lease could be renewed during the outage: give every member a full grace period after it.
            self.sweep_from = self.clock() + limits.grace_s
            self._store_failed(error)

    async def refresh_totals(self) -> None:
        """Update the gauges of rooms and participants. If the store does not answer they keep their values."""
        try:
            rooms, members = await self.store.totals()
        except StoreError as error:
            self._store_failed(error)
            return
        self.metrics.rooms.set(rooms)
        self.metrics.participants.set(members)

    def tag(self, text: str) -> str:
        """Return a short keyed digest that stands for a room or an address in logs."""
        return keyed_tag(text, self.settings.secret)

    def refuse(self, reason: str, address: str) -> None:
        """Count a refused connection or request, and log it unless too many were refused just now."""
        self.metrics.refused.labels(reason).inc()
        self._unlogged += 1
        if self._refusal_log.take(self.ticks()):
            emit(
                "refused", logging.WARNING, reason=reason, address=self.tag(address_key(address)), count=self._unlogged
            )
            self._unlogged = 0

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            try:
                await self.tick()
            except Exception:
                # An error must not stop the lease renewals of all members.
                logger.exception("tick")

    async def _run(self, link: Link, work: Callable[[Link], Awaitable[None]]) -> None:
        """Run `work` until it ends the connection."""
        try:
            await work(link)
        except (End, Disconnected) as why:
            link.end(why)
        except Exception:
            logger.exception("connection")
            link.end(Disconnected())

    async def _read(self, link: Link) -> None:
        """Receive and handle messages."""
        while True:
            raw = await link.socket.receive()
            now = link.heard = self.ticks()
            try:
                if not link.allowance.message(len(raw), now):
                    raise Dropped("rate", "Too many messages; this one was dropped.")
                message = _parse(raw)
                await self._handle(link, message)
                self.metrics.messages.labels(message.type).inc()
            except Dropped as dropped:
                self.metrics.dropped.labels(dropped.code).inc()
                if dropped.suspicious and not link.allowance.dropped(now):
                    raise End("flood", "Too many messages had to be dropped.") from None
                await link.send(Error(code=dropped.code, text=dropped.text))

    async def _handle(self, link: Link, message: ClientMessage) -> None:
        if link.member is None:
            if not isinstance(message, Join):
                raise Dropped("bad-message", "The first message must be join.")
            await self._join(link, message)
            return
        match message:
            case Signal():
                await self._relay(link, link.member, message)
            case Ping():
                await link.send(Pong())
            case Ice():
                servers = self.settings.ice.servers(link.member.id, self.clock())
                await link.send(IceServers(ice_servers=servers, ice_ttl_s=TTL_S))
            case Lock() | Remove():
                await self._moderate(link, link.member, message)
            case Leave():
                raise End(None, "left")
            case Join():
                raise Dropped("bad-message", "This connection has joined already.")

    async def _join(self, link: Link, message: Join) -> None:
        if message.protocol != PROTOCOL:
            raise self._refused(End("version", f"This server speaks version {PROTOCOL} of the protocol."))
        limits = self.settings.limits
        key = tokens.resume_key(message.resume) or secrets.token_urlsafe(tokens.KEY_BYTES)
        newcomer = Member(
            id=tokens.member_id(key),
            name=message.name,
            joined=int(self.clock()),
            resume=tokens.key_digest(key),
            session=secrets.token_hex(8),
            node=self.store.node,
        )
        resume = tokens.parse_resume(message.resume)
        room_size = limits.room_size
        host = False
        try:
            token = self.check_token(link.room, message.token)
            host = token is not None and token.role == "host"
        except tokens.TokenError as error:
            if resume is None:
                raise self._refused(End("refused", str(error))) from None
            # A member that resumes was let in before. It may have its own place back, but no new one.
            room_size = 0
        now = self.clock()
        expires = now + limits.grace_s
        try:
            # The first attempt opens no room: a new room is charged to the address that opens it.
            outcome = await self.store.join(link.room, newcomer, resume, (room_size, 0), expires, host)
            if outcome is Refusal.SERVER_FULL:
                if not self.openings.take(link.address, self.ticks()):
                    self.refuse("rooms", link.address)
                    raise self._refused(End("unavailable", "Too many rooms were opened from here; wait a little."))
                outcome = await self.store.join(link.room, newcomer, resume, (room_size, limits.rooms), expires, host)
        except StoreError as error:
            self._store_failed(error)
            raise self._refused(End("unavailable", "The rooms cannot be reached just now; try again.")) from None
        if outcome is Refusal.ROOM_LOCKED:
            raise self._refused(End("locked", outcome.value))
        if isinstance(outcome, Refusal):
            code: ErrorCode = "full" if room_size else "refused"
            raise self._refused(End(code, outcome.value if room_size else "The place to resume is gone."))
        link.renewed = now
        link.is_host = host
        resume_token = message.resume if outcome.resumed and message.resume else tokens.resume_token(newcomer.id, key)
        await link.send(self._welcome(link, outcome, resume_token))
        self._enter(link, outcome)

    def check_token(self, room: str, token: str | None) -> tokens.Token | None:
        """Return the contents of a valid `token`, or None if the room needs none. Raises TokenError otherwise."""
        if not tokens.needs_token(room, self.settings.invitation_only):
            return None
        if token is None:
            raise tokens.TokenError("This room is by invitation: a token is needed.")
        return tokens.verify(token, room, self.settings.secret, self.clock())

    def _welcome(self, link: Link, joined: Joined, resume: str) -> Welcome:
        limits = self.settings.limits
        return Welcome(
            room=link.room,
            id=joined.member.id,
            resume=resume,
            resumed=joined.resumed,
            peers=[member.peer for member in joined.peers],
            ice_servers=self.settings.ice.servers(joined.member.id, self.clock()),
            ice_ttl_s=TTL_S,
            ping_s=limits.ping_s,
            grace_s=limits.grace_s,
            host=link.is_host,
            locked=joined.locked,
        )

    def _enter(self, link: Link, joined: Joined) -> None:
        """Make `link` the member's connection. An earlier connection of it to this process ends."""
        key = (link.room, joined.member.id)
        if earlier := self.members.get(key):
            earlier.end(End("replaced", "You are connected elsewhere."))
        self.members[key] = link
        link.member = joined.member
        link.mail.set()
        outcome = "resumed" if joined.resumed else "joined"
        self.metrics.joins.labels(outcome).inc()
        emit(outcome, room=self.tag(link.room), member=joined.member.id, peers=len(joined.peers))

    def _refused(self, end: End) -> End:
        self.metrics.joins.labels(end.code).inc()
        return end

    async def _moderate(self, link: Link, member: Member, message: Lock | Remove) -> None:
        if not link.is_host:
            raise Dropped("not-host", "Only the host, who made the room by invitation, may do that.")
        try:
            if isinstance(message, Lock):
                await self.store.lock(link.room, message.on)
            elif message.id == member.id or not await self.store.remove(link.room, message.id):
                raise Dropped("no-peer", f"{message.id} is not in the room.", suspicious=False)
        except StoreError as error:
            self._store_failed(error)
            raise Dropped("unavailable", "The rooms cannot be reached just now.", suspicious=False) from None

    async def _relay(self, link: Link, member: Member, signal: Signal) -> None:
        text = encode(relayed(signal, member.id))
        try:
            posted = await self.store.post(link.room, signal.to, text) if signal.to != member.id else Posted.NO_PEER
        except StoreError as error:
            self._store_failed(error)
            raise Dropped("unavailable", "The signal could not be relayed just now.", suspicious=False) from None
        if posted is Posted.NO_PEER:
            raise Dropped("no-peer", f"{signal.to} is not in the room.", suspicious=False)
        if posted is Posted.PEER_BUSY:
            raise Dropped("peer-busy", f"Too much waits for {signal.to} already.", suspicious=False)
        self.metrics.relayed_bytes.inc(len(text))

    async def _deliver(self, link: Link) -> None:
        """Send the member the messages of its mailbox, in order, whenever it may hold some."""
        while True:
            await link.mail.wait()
            link.mail.clear()
            if link.member is None:
                continue
            try:
                texts = await self.store.fetch(link.room, link.member)
                if texts is None:
                    await self._renew(link, link.member)
            except StoreError as error:
                # The next successful renewal sets `mail` again.
                self._store_failed(error)
                continue
            for text in texts or ():
                await link.send_text(text)

    async def _renew_due(self) -> None:
        """Renew the leases that were renewed a third of the grace period ago."""
        due = self.clock() - self.settings.limits.grace_s / 3
        for link in list(self.links):
            if link.member is None or link.renewed > due or link.ended.done():
                continue
            try:
                await self._renew(link, link.member)
            except End as why:
                link.end(why)
            # In case a wake-up was lost.
            link.mail.set()

    async def _renew(self, link: Link, member: Member) -> None:
        """Renew the member's lease. Raises End if the member no longer belongs to this connection."""
        now, grace = self.clock(), self.settings.limits.grace_s
        restore = now - link.renewed < grace or now < self.sweep_from
        outcome = await self.store.renew(link.room, member, now + grace, restore)
        if outcome is Renewed.REPLACED:
            raise End("replaced", "You are connected elsewhere.")
        if outcome is Renewed.REMOVED:
            raise End("removed", "The host has removed you from the room.")
        if outcome is Renewed.LOST:
            raise End("lost", "Your place in the room has lapsed; join again.")
        link.renewed = now

    async def _farewell(self, link: Link, why: End | Disconnected) -> None:
        """Send the reason, close, and leave the room or start the grace period."""
        reason = (why.code or "left") if isinstance(why, End) else "disconnected"
        self.metrics.closed.labels(reason).inc()
        emit("closed", room=self.tag(link.room), reason=reason, member=link.member and link.member.id)
        if isinstance(why, End):
            with contextlib.suppress(Disconnected, TimeoutError):
                async with asyncio.timeout(FAREWELL_S):
                    if why.code:
                        await link.socket.send(encode(Error(code=why.code, text=why.text)))
                    await link.socket.close(CLOSE_CODES.get(why.code or "", NORMAL_CLOSURE))
        if link.member is None or reason in ("replaced", "lost", "removed"):
            return
        try:
            if reason == "left":
                await self.store.leave(link.room, link.member)
            else:
                await self.store.renew(
                    link.room, link.member, self.clock() + self.settings.limits.grace_s, restore=False
                )
        except StoreError as error:
            self._store_failed(error)

    def _store_failed(self, error: StoreError) -> None:
        self.metrics.store_up.set(0)
        self.metrics.store_errors.inc()
        emit("store-unavailable", logging.WARNING, error=str(error))


def _parse(raw: str | bytes) -> ClientMessage:
    if isinstance(raw, bytes):
        raise Dropped("bad-message", "Messages are text frames.")
    try:
        return parse(raw)
    except BadMessage as error:
        raise Dropped("bad-message", str(error)) from None
