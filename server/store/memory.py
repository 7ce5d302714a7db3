"""The shared state of a single server process, in memory."""

import secrets
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Literal

from iwcodec.server.messages import MAILBOX, Locked, PeerJoined, PeerLeft, encode
from iwcodec.server.store.base import Joined, Member, Posted, Refusal, Renewed, Wake


@dataclass
class _Seat:
    """A member, the end of its lease in Unix seconds, and its mailbox."""

    member: Member
    expires: float
    box: deque[tuple[Literal["event", "signal"], str]] = field(default_factory=lambda: deque(maxlen=MAILBOX))


class MemoryStore:
    """See `iwcodec.server.store.base.Store`. No method awaits anything, so no lock is needed."""

    kind = "memory"

    def __init__(self) -> None:
        self.node = secrets.token_hex(4)
        self.rooms: dict[str, dict[str, _Seat]] = {}
        self.locked: set[str] = set()
        self.removed: dict[str, set[str]] = {}
        """Ids of members that were removed, by room, until it is empty."""
        self.wake: Wake = lambda room, member: None

    async def open(self, wake: Wake) -> None:
        self.wake = wake

    async def close(self) -> None:
        self.rooms.clear()
        self.locked.clear()
        self.removed.clear()

    async def ping(self) -> None:
        pass

    async def join(
        self,
        room: str,
        newcomer: Member,
        resume: tuple[str, str] | None,
        limits: tuple[int, int],
        expires: float,
        host: bool = False,
    ) -> Joined | Refusal:
        seats = self.rooms.get(room, {})
        seat = seats.get(resume[0]) if resume else None
        if resume and seat and secrets.compare_digest(seat.member.resume, resume[1]):
            seat.member = replace(seat.member, session=newcomer.session, node=newcomer.node)
            seat.expires = expires
            # The welcome message lists the present peers, so older events about them are obsolete.
            signals = [entry for entry in seat.box if entry[0] == "signal"]
            seat.box = deque(signals, MAILBOX)
            self.wake(room, seat.member.id)
            return Joined(seat.member, self._others(room, seat.member.id), True, room in self.locked)
        if not host and (room in self.locked or newcomer.id in self.removed.get(room, ())):
            return Refusal.ROOM_LOCKED
        room_size, rooms = limits
        if len(seats) >= room_size:
            return Refusal.ROOM_FULL
        if not seats and len(self.rooms) >= rooms:
            return Refusal.SERVER_FULL
        peers = self._others(room, newcomer.id)
        self._seat(room, newcomer, expires)
        return Joined(newcomer, peers, False, room in self.locked)

    async def renew(self, room: str, member: Member, expires: float, restore: bool) -> Renewed:
        seat = self.rooms.get(room, {}).get(member.id)
        if seat is None:
            if member.id in self.removed.get(room, ()):
                return Renewed.REMOVED
            if not restore:
                return Renewed.LOST
            self._seat(room, member, expires)
            return Renewed.RENEWED
        if seat.member.session != member.session:
            return Renewed.REPLACED
        seat.expires = expires
        return Renewed.RENEWED

    async def lock(self, room: str, on: bool) -> None:
        if room in self.rooms:
            (self.locked.add if on else self.locked.discard)(room)
            self._announce(room, encode(Locked(on=on)))

    async def remove(self, room: str, member: str) -> bool:
        if member not in self.rooms.get(room, {}):
            return False
        self.removed.setdefault(room, set()).add(member)
        self._remove(room, member, "left")
        return True

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
            self.locked.discard(room)
            self.removed.pop(room, None)
        self._announce(room, encode(PeerLeft(id=member, reason=reason)))
        self.wake(room, member)

    def _announce(self, room: str, text: str) -> None:
        for member, seat in self.rooms.get(room, {}).items():
            seat.box.append(("event", text))
            self.wake(room, member)
