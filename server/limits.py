"""What one participant, one address and one room may take.

Every figure is a token bucket: it holds at most `burst`, refills by `rate` a second, and what does not fit is dropped
and counted. The clock is passed in (monotonic seconds), so nothing here waits.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Final

MAX_ROOM_SIZE: Final = 6
"""A mesh: each participant sends to every other."""
ADDRESSES: Final = 10_000
"""Addresses remembered at a time; the one longest unseen is forgotten first."""


@dataclass(frozen=True)
class Limits:
    """Seconds, messages, bytes. The defaults let a full room trickle all its candidates at once."""

    room_size: int = MAX_ROOM_SIZE
    rooms: int = 1000
    """In the shared state, over all processes."""
    connections: int = 2000
    """Of one process."""
    join_s: float = 10.0
    """From the connection's opening to the join message."""
    idle_s: float = 60.0
    """Without any message, after which the connection is closed."""
    grace_s: float = 30.0
    """A participant keeps its place so long after its connection, or its server process, was lost."""
    messages_per_s: float = 20.0
    message_burst: float = 200.0
    bytes_per_s: float = 64 * 1024.0
    byte_burst: float = 1024 * 1024.0
    dropped_per_s: float = 0.1
    dropped_burst: float = 50.0
    """Dropped messages, of whatever kind, that are borne before the connection is closed."""
    requests_per_s: float = 10.0
    request_burst: float = 100.0
    """Of one address, which a whole office may share: connections opened and requests to the rooms' API."""

    def __post_init__(self) -> None:
        if not 2 <= self.room_size <= MAX_ROOM_SIZE:
            raise ValueError(f"A room holds 2 to {MAX_ROOM_SIZE} people, not {self.room_size}.")

    @property
    def ping_s(self) -> float:
        """How often a participant is asked to say something: two may be lost before it counts as idle."""
        return self.idle_s / 3


class Bucket:
    """Holds `burst` at first; `take` says whether the amount was there."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self.level = burst
        self.filled = now

    def take(self, amount: float, now: float) -> bool:
        # A clock that steps back must not empty the bucket.
        self.level = min(self.burst, self.level + max(0.0, now - self.filled) * self.rate)
        self.filled = now
        if amount > self.level:
            return False
        self.level -= amount
        return True


class Allowance:
    """One connection's buckets."""

    def __init__(self, limits: Limits, now: float) -> None:
        self.messages = Bucket(limits.messages_per_s, limits.message_burst, now)
        self.bytes = Bucket(limits.bytes_per_s, limits.byte_burst, now)
        self.drops = Bucket(limits.dropped_per_s, limits.dropped_burst, now)

    def message(self, size: int, now: float) -> bool:
        """Whether a message of `size` bytes may be looked at."""
        return self.messages.take(1, now) and self.bytes.take(size, now)

    def dropped(self, now: float) -> bool:
        """Count a dropped message; False when the patience is used up."""
        return self.drops.take(1, now)


@dataclass
class Addresses:
    """Requests by network address."""

    limits: Limits
    buckets: OrderedDict[str, Bucket] = field(default_factory=OrderedDict)

    def allow(self, address: str, now: float) -> bool:
        key = subscriber(address)
        bucket = self.buckets.get(key)
        if bucket is None:
            bucket = self.buckets[key] = Bucket(self.limits.requests_per_s, self.limits.request_burst, now)
            if len(self.buckets) > ADDRESSES:
                self.buckets.popitem(last=False)
        self.buckets.move_to_end(key)
        return bucket.take(1, now)


def subscriber(address: str) -> str:
    """What stands for one line: an IPv4 address, or the /64 of an IPv6 address, in which everybody has 2^64."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if found.version == 4:
        return address
    if found.ipv4_mapped:
        return str(found.ipv4_mapped)
    return str(ip_network((int(found), 64), strict=False))
