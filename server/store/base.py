"""The shared state of server processes: which members are in which room, and the messages that wait for them.

A member belongs to a room until its lease expires, and the process that holds its connection renews the lease. A lost
connection and a killed server process are therefore the same case: the lease is no longer renewed, and after the grace
period the member is removed and the others are told. A `session` names the connection that owns a member. A resumed
member gets a new session, and the old connection learns at its next operation that it owns the member no longer.

Messages to a member go to its mailbox, whichever process holds its connection, and that process is woken to fetch them.
A lost wake-up delays a message until the next lease renewal; no message is lost.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from iwcodec.server.messages import Peer

Wake = Callable[[str, str], None]
"""Called with (room, member id) when that member's mailbox may hold messages, or when its session ended. Both are empty
when any mailbox may hold messages."""


class StoreError(Exception):
    """The shared state cannot be reached at the moment."""


class Refusal(StrEnum):
    """Why a newcomer may not join."""

    ROOM_FULL = "The room is full."
    ROOM_LOCKED = "The host has locked the room."
    SERVER_FULL = "The server has no room left for another room."


class Posted(StrEnum):
    """What became of a message to a member."""

    SENT = "sent"
    NO_PEER = "no-peer"
    PEER_BUSY = "peer-busy"


class Renewed(StrEnum):
    """What became of a lease renewal."""

    RENEWED = "renewed"
    REPLACED = "replaced"
    """Another session owns the member."""
    LOST = "lost"
    """The member's lease lapsed."""
    REMOVED = "removed"
    """A host has removed the member."""


@dataclass(frozen=True)
class Member:
    """A participant of a room."""

    id: str
    name: str
    joined: int
    """Unix seconds."""
    resume: str
    """SHA-256 of the resume token's key, in hexadecimal."""
    session: str
    """The connection that owns the member."""
    node: str
    """The server process that holds that connection."""

    @property
    def peer(self) -> Peer:
        """What the other participants see."""
        return Peer(id=self.id, name=self.name)


@dataclass(frozen=True)
class Joined:
    """A successful join."""

    member: Member
    peers: list[Member]
    """The other members, oldest first."""
    resumed: bool
    locked: bool = False
    """Whether the room is locked."""


class Store(Protocol):
    """The shared state. Times are Unix seconds and passed in; the clocks of the hosts must agree within 2 s.

    Every method except `close` may raise StoreError.
    """

    kind: str
    """Name of the implementation, for logs and /health."""
    node: str
    """Name of this server process."""

    async def open(self, wake: Wake) -> None:
        """Start. From now on `wake` is called on the running event loop."""

    async def close(self) -> None:
        """Stop, and release connections."""

    async def ping(self) -> None:
        """Raise StoreError if the state cannot be reached."""

    async def join(
        self,
        room: str,
        newcomer: Member,
        resume: tuple[str, str] | None,
        limits: tuple[int, int],
        expires: float,
        host: bool = False,
    ) -> Joined | Refusal:
        """Add `newcomer` with a lease until `expires`, and tell the others.

        If `resume` (member id, digest of the key) names a present member, hand that member over to the newcomer's
        session and node instead: the others are not told, and the signals in its mailbox stay. `limits` (members of a
        room, rooms) apply to newcomers only, and so does a lock, but not to a `host`.
        """
        ...

    async def renew(self, room: str, member: Member, expires: float, restore: bool) -> Renewed:
        """Extend the member's lease to `expires`. A member that the state no longer holds is added again if `restore`,
        and the others are told."""
        ...

    async def lock(self, room: str, on: bool) -> None:
        """Lock or unlock a room that has members, and tell them. It is unlocked when the last one leaves."""

    async def remove(self, room: str, member: str) -> bool:
        """Remove the member with that id for good: neither a renewal nor its resume token brings it back. Tell the
        others, as if it had left. Return False if it is not there."""
        ...

    async def leave(self, room: str, member: Member) -> None:
        """Remove the member and tell the others, unless another session owns it."""

    async def post(self, room: str, to: str, text: str) -> Posted:
        """Append a signal to the mailbox of the member with id `to`."""
        ...

    async def fetch(self, room: str, member: Member) -> list[str] | None:
        """Empty the member's mailbox and return its messages in order; None if another session owns the member."""
        ...

    async def members(self, room: str, now: float) -> list[Member]:
        """Return the members whose lease is valid at `now`, oldest first."""
        ...

    async def sweep(self, now: float) -> int:
        """Remove the members whose lease expired by `now`, and tell the others. Return how many were removed."""
        ...

    async def totals(self) -> tuple[int, int]:
        """Return the numbers of rooms and of members."""
        ...
