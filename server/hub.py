"""The connections of one server process: join, relay, keep the leases, sweep, close.

Three tasks a connection at most: the reader (`Hub._read`), the writer (`Hub._deliver`), and the one that waits for
either of them, or for somebody who ends the connection from outside (`Link.end`). The clocks are passed in; `tick` does
everything that hangs on time, so tests step it by hand.
"""

import asyncio
import contextlib
import hashlib
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from iwcodec.server import tokens
from iwcodec.server.limits import Allowance, Limits
from iwcodec.server.logs import emit, logger, room_tag
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
    Ping,
    Pong,
    ServerMessage,
    Signal,
    Welcome,
    encode,
    parse,
    relayed,
)
from iwcodec.server.prometheus import Metrics
from iwcodec.server.rooms import KEY_BYTES, Joined, Member, Posted, Refusal, Renewed, Store, StoreError
from iwcodec.server.turn import TTL_S, IceConfig

TICK_S: Final = 1.0
FAREWELL_S: Final = 2.0
"""For the last words to somebody who may not be reading."""
NORMAL: Final = 1000


class Disconnected(Exception):
    """The other end is gone."""


class End(Exception):
    """This connection is to be closed: with an error that says why, or, without, because the participant left."""

    def __init__(self, code: ErrorCode | None, text: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Dropped(Exception):
    """This message is not acted upon; the participant is told, and the connection goes on."""

    def __init__(self, code: ErrorCode, text: str, suspicious: bool = True) -> None:
        """`suspicious`: an honest client has no such messages, so they count towards the end of patience."""
        super().__init__(text)
        self.code = code
        self.text = text
        self.suspicious = suspicious


class Socket(Protocol):
    """One accepted WebSocket. `receive` and `send` raise Disconnected once it is closed."""

    async def receive(self) -> str | bytes: ...

    async def send(self, text: str) -> None: ...

    async def close(self, code: int) -> None: ...


@dataclass(frozen=True)
class Settings:
    """What the operator decides."""

    secret: bytes
    """Signs tokens; the same in all processes that share state."""
    limits: Limits = field(default_factory=Limits)
    ice: IceConfig = field(default_factory=IceConfig)
    invitation_only: bool = False
    """Every room needs a token, and only the operator makes rooms."""


class Link:
    """One connection: not joined yet while `member` is None."""

    def __init__(self, socket: Socket, room: str, allowance: Allowance, now: float) -> None:
        self.socket = socket
        self.room = room
        self.allowance = allowance
        self.opened = now
        """Monotonic seconds, as is `heard`."""
        self.heard = now
        self.member: Member | None = None
        self.renewed = 0.0
        """Unix seconds of the last renewal that the store confirmed."""
        self.mail = asyncio.Event()
        self.ended: asyncio.Future[End | Disconnected] = asyncio.get_running_loop().create_future()
        self._sending = asyncio.Lock()

    async def send(self, message: ServerMessage) -> None:
        await self.send_text(encode(message))

    async def send_text(self, text: str) -> None:
        """Waits while the other end does not read: then its messages are not read either."""
        async with self._sending:
            await self.socket.send(text)

    def end(self, why: End | Disconnected) -> None:
        """Have the connection closed; only the first reason counts."""
        if not self.ended.done():
            self.ended.set_result(why)


class Hub:
    def __init__(
        self,
        store: Store,
        settings: Settings,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock`: Unix seconds, which all processes share; `ticks`: monotonic seconds of this one."""
        self.store = store
        self.settings = settings
        self.clock = clock
        self.ticks = ticks
        self.metrics = Metrics()
        self.links: set[Link] = set()
        self.members: dict[tuple[str, str], Link] = {}
        self.sweep_from = 0.0
        self._house: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Raises StoreError."""
        await self.store.open(self.wake)
        self._house = asyncio.create_task(self._keep_house())

    async def close(self) -> None:
        """After every connection was closed."""
        if self._house:
            self._house.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._house
        await self.store.close()
        emit("stopped")

    async def serve(self, socket: Socket, room: str) -> None:
        """One connection, from its opening to its end."""
        link = Link(socket, room, Allowance(self.settings.limits, self.ticks()), self.ticks())
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
        """Have the writer of that member look into its mailbox; of every member, if none is named."""
        if not room:
            for link in self.links:
                link.mail.set()
            return
        owner = self.members.get((room, member))
        if owner:
            owner.mail.set()

    async def tick(self) -> None:
        """Close idle connections, renew leases, remove who is lost. Once a second."""
        now, limits = self.ticks(), self.settings.limits
        for link in list(self.links):
            # Nobody holds a connection without joining, however much it says.
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
            # While the state was away nobody could renew: everybody gets a full grace period once it is back.
            self.sweep_from = self.clock() + limits.grace_s
            self._store_failed(error)

    async def refresh_totals(self) -> None:
        """The gauges that only the store knows; where it does not answer they keep their values."""
        try:
            rooms, members = await self.store.totals()
        except StoreError as error:
            self._store_failed(error)
            return
        self.metrics.rooms.set(rooms)
        self.metrics.participants.set(members)

    def tag(self, room: str) -> str:
        return room_tag(room, self.settings.secret)

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            try:
                await self.tick()
            except Exception:
                # A fault here must not end the renewals of everybody.
                logger.exception("tick")

    async def _run(self, link: Link, work: Callable[[Link], Awaitable[None]]) -> None:
        """Do `work` until it ends the connection."""
        try:
            await work(link)
        except (End, Disconnected) as why:
            link.end(why)
        except Exception:
            logger.exception("connection")
            link.end(Disconnected())

    async def _read(self, link: Link) -> None:
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
            case Leave():
                raise End(None, "left")
            case Join():
                raise Dropped("bad-message", "This connection has joined already.")

    async def _join(self, link: Link, message: Join) -> None:
        if message.protocol != PROTOCOL:
            raise self._refused(End("version", f"This server speaks version {PROTOCOL} of the protocol."))
        limits = self.settings.limits
        key = secrets.token_urlsafe(KEY_BYTES)
        newcomer = Member(
            id=secrets.token_hex(4),
            name=message.name,
            joined=int(self.clock()),
            resume=_digest(key),
            session=secrets.token_hex(8),
            node=self.store.node,
        )
        resume = _resume(message.resume)
        try:
            self.check_token(link.room, message.token)
            seats = (limits.room_size, limits.rooms)
        except tokens.TokenError as error:
            if resume is None:
                raise self._refused(End("refused", str(error))) from None
            # Whoever resumes was let in before: no seat for a newcomer, but its own.
            seats = (0, 0)
        now = self.clock()
        try:
            outcome = await self.store.join(link.room, newcomer, resume, seats, now + limits.grace_s)
        except StoreError as error:
            self._store_failed(error)
            raise self._refused(End("unavailable", "The rooms cannot be reached just now; try again.")) from None
        if isinstance(outcome, Refusal):
            code: ErrorCode = "full" if seats[0] else "refused"
            raise self._refused(End(code, outcome.value if seats[0] else "The place to resume is gone."))
        link.renewed = now
        token = message.resume if outcome.resumed and message.resume else f"iwr.{newcomer.id}.{key}"
        await link.send(self._welcome(link.room, outcome, token))
        self._enter(link, outcome)

    def check_token(self, room: str, token: str | None) -> tokens.Token | None:
        """Whether whoever brings `token` (or none) may enter: None where the room is open, TokenError if not."""
        if not tokens.needs_token(room, self.settings.invitation_only):
            return None
        if token is None:
            raise tokens.TokenError("This room is by invitation: a token is needed.")
        return tokens.verify(token, room, self.settings.secret, self.clock())

    def _welcome(self, room: str, joined: Joined, resume: str) -> Welcome:
        limits = self.settings.limits
        return Welcome(
            room=room,
            id=joined.member.id,
            resume=resume,
            resumed=joined.resumed,
            peers=[member.peer for member in joined.peers],
            ice_servers=self.settings.ice.servers(joined.member.id, self.clock()),
            ice_ttl_s=TTL_S,
            ping_s=limits.ping_s,
            grace_s=limits.grace_s,
        )

    def _enter(self, link: Link, joined: Joined) -> None:
        """From now on the link is the member's; one that it had before at this process ends."""
        place = (link.room, joined.member.id)
        if earlier := self.members.get(place):
            earlier.end(End("replaced", "You are connected elsewhere."))
        self.members[place] = link
        link.member = joined.member
        link.mail.set()
        outcome = "resumed" if joined.resumed else "joined"
        self.metrics.joins.labels(outcome).inc()
        emit(outcome, room=self.tag(link.room), member=joined.member.id, peers=len(joined.peers))

    def _refused(self, end: End) -> End:
        self.metrics.joins.labels(end.code).inc()
        return end

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
        """Pass the member's mail on, in order, whenever there may be some."""
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
                # The next renewal that succeeds looks again.
                self._store_failed(error)
                continue
            for text in texts or ():
                await link.send_text(text)

    async def _renew_due(self) -> None:
        due = self.clock() - self.settings.limits.grace_s / 3
        for link in list(self.links):
            if link.member is None or link.renewed > due or link.ended.done():
                continue
            try:
                await self._renew(link, link.member)
            except End as why:
                link.end(why)
            # Should a wake-up have been lost.
            link.mail.set()

    async def _renew(self, link: Link, member: Member) -> None:
        """Raises End where the member is no longer this link's."""
        now, grace = self.clock(), self.settings.limits.grace_s
        restore = now - link.renewed < grace or now < self.sweep_from
        outcome = await self.store.renew(link.room, member, now + grace, restore)
        if outcome is Renewed.REPLACED:
            raise End("replaced", "You are connected elsewhere.")
        if outcome is Renewed.LOST:
            raise End("lost", "Your place in the room has lapsed; join again.")
        link.renewed = now

    async def _farewell(self, link: Link, why: End | Disconnected) -> None:
        """Say why, close, and leave the room or start the grace period."""
        reason = (why.code or "left") if isinstance(why, End) else "disconnected"
        self.metrics.closed.labels(reason).inc()
        emit("closed", room=self.tag(link.room), reason=reason, member=link.member and link.member.id)
        if isinstance(why, End):
            with contextlib.suppress(Disconnected, TimeoutError):
                async with asyncio.timeout(FAREWELL_S):
                    if why.code:
                        await link.socket.send(encode(Error(code=why.code, text=why.text)))
                    await link.socket.close(CLOSE_CODES.get(why.code or "", NORMAL))
        if link.member is None or reason in ("replaced", "lost"):
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


def _resume(token: str | None) -> tuple[str, str] | None:
    """(member id, hash of the key) of a resume token; None for anything else, which then joins anew."""
    prefix, _, rest = (token or "").partition(".")
    member, _, key = rest.partition(".")
    return (member, _digest(key)) if prefix == "iwr" and member and key else None


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
