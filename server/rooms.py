"""Who is in which room, and what waits for whom: the state that server processes share, and its in-memory form.

A member belongs to a room until its lease runs out; whoever holds its connection renews the lease. So a lost connection
and a killed server process are one case: the lease is no longer renewed, and after the grace period the member is
removed and the others are told. A `session` names the connection that owns a member; a resumed member has a new one,
and the old connection finds at its next step that it owns nothing any more.

Messages to a member go to its mailbox, wherever its connection is, and its connection's process is woken to fetch
them: a lost wake-up delays a message until the next renewal, and never loses it.
"""

import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, Literal, Protocol

from iwcodec.server.messages import MAILBOX, Peer, PeerJoined, PeerLeft, encode

KEY_BYTES: Final = 18
"""Of a resume token: more than can be guessed."""

Wake = Callable[[str, str], None]
"""Called with (room, member id) when there may be something in that member's mailbox, or when it lost its session.
Both empty: look at all."""


class StoreError(Exception):
    """The shared state cannot be reached just now."""


class Refusal(StrEnum):
    ROOM_FULL = "The room is full."
    SERVER_FULL = "The server has no room left for another room."


class Posted(StrEnum):
    SENT = "sent"
    NO_PEER = "no-peer"
    PEER_BUSY = "peer-busy"


class Renewed(StrEnum):
    RENEWED = "renewed"
    REPLACED = "replaced"
    LOST = "lost"


@dataclass(frozen=True)
class Member:
    id: str
    name: str
    joined: int
    """Unix seconds."""
    resume: str
    """SHA-256 of the resume token, hex."""
    session: str
    node: str
    """The server process that holds the connection."""

    @property
    def peer(self) -> Peer:
        return Peer(id=self.id, name=self.name)


@dataclass(frozen=True)
class Joined:
    member: Member
    peers: list[Member]
    """The others, oldest first."""
    resumed: bool


class Store(Protocol):
    """The shared state. Times are Unix seconds, passed in; the hosts' clocks must agree within a second or two.

    Every method but `close` may raise StoreError.
    """

    kind: str
    node: str

    async def open(self, wake: Wake) -> None:
        """Start; from now on `wake` is called, on the running event loop."""

    async def close(self) -> None: ...

    async def ping(self) -> None:
        """Whether the state can be reached: StoreError if not."""

    async def join(
        self,
        room: str,
        newcomer: Member,
        resume: tuple[str, str] | None,
        limits: tuple[int, int],
        expires: float,
    ) -> Joined | Refusal:
        """Let `newcomer` in until `expires` and tell the others; with `resume` (id, hash of the token) of a member
        that is still there, hand that member over to newcomer's session and node instead: nobody is told, and the
        signals that wait for it stay. `limits`: people in a room, rooms; they bind newcomers only."""

    async def renew(self, room: str, member: Member, expires: float, restore: bool) -> Renewed:
        """Move the end of the member's lease. A member that the state has forgotten is put back if `restore`, and
        the others are told (again)."""

    async def leave(self, room: str, member: Member) -> None:
        """Remove the member and tell the others, unless another session owns it."""

    async def post(self, room: str, to: str, text: str) -> Posted:
        """Put a signal into the mailbox of `to`."""

    async def fetch(self, room: str, member: Member) -> list[str] | None:
        """Empty the member's mailbox, in order; None when this session no longer owns the member."""

    async def members(self, room: str, now: float) -> list[Member]:
        """Oldest first."""

    async def sweep(self, now: float) -> int:
        """Remove every member whose lease ran out, tell the others; how many there were."""

    async def totals(self) -> tuple[int, int]:
        """(rooms, members)."""


@dataclass
class _Seat:
    member: Member
    expires: float
    box: deque[tuple[Literal["event", "signal"], str]] = field(default_factory=lambda: deque(maxlen=MAILBOX))


class MemoryStore:
    """The state of a single process. Everything happens between two awaits, so nothing needs a lock."""

    kind = "memory"

    def __init__(self) -> None:
        self.node = secrets.token_hex(4)
        self.rooms: dict[str, dict[str, _Seat]] = {}
        self.wake: Wake = lambda room, member: None

    async def open(self, wake: Wake) -> None:
        self.wake = wake

    async def close(self) -> None:
        self.rooms.clear()

    async def ping(self) -> None:
        pass

    async def join(
        self,
        room: str,
        newcomer: Member,
        resume: tuple[str, str] | None,
        limits: tuple[int, int],
        expires: float,
    ) -> Joined | Refusal:
        seats = self.rooms.get(room, {})
        seat = seats.get(resume[0]) if resume else None
        if resume and seat and secrets.compare_digest(seat.member.resume, resume[1]):
            seat.member = replace(seat.member, session=newcomer.session, node=newcomer.node)
            seat.expires = expires
            # The welcome names the present peers: what told of their coming and going is out of date.
            signals = [entry for entry in seat.box if entry[0] == "signal"]
            seat.box = deque(signals, MAILBOX)
            self.wake(room, seat.member.id)
            return Joined(seat.member, self._others(room, seat.member.id), True)
        room_size, rooms = limits
        if len(seats) >= room_size:
            return Refusal.ROOM_FULL
        if not seats and len(self.rooms) >= rooms:
            return Refusal.SERVER_FULL
        peers = self._others(room, newcomer.id)
        self._seat(room, newcomer, expires)
        return Joined(newcomer, peers, False)

    async def renew(self, room: str, member: Member, expires: float, restore: bool) -> Renewed:
        seat = self.rooms.get(room, {}).get(member.id)
        if seat is None:
            if not restore:
                return Renewed.LOST
            self._seat(room, member, expires)
            return Renewed.RENEWED
        if seat.member.session != member.session:
            return Renewed.REPLACED
        seat.expires = expires
        return Renewed.RENEWED

    async def leave(self, room: str, member: Member) -> None:
        seat = self.rooms.get(room, {}).get(member.id)
        if seat and seat.member.session == member.session:
            self._remove(room, member.id, "left")

    async def post(self, room: str, to: str, text: str) -> Posted:
        seat = self.rooms.get(room, {}).get(to)
        if seat is None:
            return Posted.NO_PEER
        if len(seat.box) >= MAILBOX:
            return Posted.PEER_BUSY
        seat.box.append(("signal", text))
        self.wake(room, to)
        return Posted.SENT

    async def fetch(self, room: str, member: Member) -> list[str] | None:
        seat = self.rooms.get(room, {}).get(member.id)
        if seat is None or seat.member.session != member.session:
            return None
        texts = [text for _, text in seat.box]
        seat.box.clear()
        return texts

    async def members(self, room: str, now: float) -> list[Member]:
        return [seat.member for seat in self.rooms.get(room, {}).values() if seat.expires > now]

    async def sweep(self, now: float) -> int:
        lapsed = [
            (room, seat.member.id)
            for room, seats in self.rooms.items()
            for seat in seats.values()
            if seat.expires <= now
        ]
        for room, member in lapsed:
            self._remove(room, member, "lost")
        return len(lapsed)

    async def totals(self) -> tuple[int, int]:
        return len(self.rooms), sum(map(len, self.rooms.values()))

    def _others(self, room: str, but: str) -> list[Member]:
        return [seat.member for seat in self.rooms.get(room, {}).values() if seat.member.id != but]

    def _seat(self, room: str, member: Member, expires: float) -> None:
        self._announce(room, encode(PeerJoined(peer=member.peer)))
        self.rooms.setdefault(room, {})[member.id] = _Seat(member, expires)

    def _remove(self, room: str, member: str, reason: Literal["left", "lost"]) -> None:
        seats = self.rooms[room]
        del seats[member]
        if not seats:
            del self.rooms[room]
        self._announce(room, encode(PeerLeft(id=member, reason=reason)))
        self.wake(room, member)

    def _announce(self, room: str, text: str) -> None:
        for member, seat in self.rooms.get(room, {}).items():
            seat.box.append(("event", text))
            self.wake(room, member)
