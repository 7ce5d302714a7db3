"""Limits of one connection, one network address, one room and one server process.

Rates are token buckets. Whatever exceeds a bucket is dropped or refused, and counted. Times are passed in (monotonic
seconds); nothing here waits.
"""

from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Final

from iwcodec.codec.token_bucket import TokenBucket

MAX_ROOM_SIZE: Final = 6
"""Participants in a room. Calls are a mesh: each participant sends to every other one."""
MAX_ADDRESSES: Final = 10_000
"""Addresses whose buckets are kept at a time. The least recently seen address is forgotten first."""


@dataclass(frozen=True)
class Limits:
    """Limits of the server. The message defaults let a full room trickle all its ICE candidates at once."""

    room_size: int = MAX_ROOM_SIZE
    """Participants in a room, 2 to MAX_ROOM_SIZE."""
    rooms: int = 1000
    """Rooms in the shared state, over all server processes."""
    connections: int = 2000
    """WebSockets of one process."""
    address_connections: int = 100
    """Open TCP connections of one address, WebSockets included. A whole office may share one address."""
    request_s: float = 10.0
    """Seconds from the opening of a connection, or from the previous response, to the end of the next response: the
    time for the TLS handshake, the request's headers, its body, and for reading the response."""
    join_s: float = 10.0
    """Seconds from the opening of a WebSocket to its join message."""
    idle_s: float = 60.0
    """Seconds without a message after which a WebSocket is closed."""
    grace_s: float = 30.0
    """Seconds that a participant keeps its place after its connection, or its server process, was lost."""
    messages_per_s: float = 20.0
    message_burst: float = 200.0
    bytes_per_s: float = 64 * 1024.0
    byte_burst: float = 1024 * 1024.0
    """Messages and their bytes that one WebSocket may send."""
    dropped_per_s: float = 0.1
    dropped_burst: float = 50.0
    """Dropped messages, for whatever reason, that are tolerated before the WebSocket is closed."""
    requests_per_s: float = 10.0
    request_burst: float = 100.0
    """Requests to the rooms' API and new WebSockets of one address."""
    rooms_per_s: float = 0.1
    room_burst: float = 20.0
    """Rooms that one address opens by being the first to join, and, counted separately, room names it asks for. An
    address holds at most `address_connections` rooms, and those it opens and leaves within `grace_s`: 123 of the 1000
    by default."""

    def __post_init__(self) -> None:
        if not 2 <= self.room_size <= MAX_ROOM_SIZE:
            raise ValueError(f"A room holds 2 to {MAX_ROOM_SIZE} people, not {self.room_size}.")

    @property
    def ping_s(self) -> float:
        """Interval in seconds at which participants must send something; two may be lost before the idle limit."""
        return self.idle_s / 3


class Allowance:
    """The token buckets of one WebSocket."""

    def __init__(self, limits: Limits) -> None:
        self.messages = TokenBucket(limits.messages_per_s, limits.message_burst)
        self.bytes = TokenBucket(limits.bytes_per_s, limits.byte_burst)
        self.drops = TokenBucket(limits.dropped_per_s, limits.dropped_burst)

    def message(self, size: int, now: float) -> bool:
        """Return whether a message of `size` bytes may be processed."""
        return self.messages.take(now) and self.bytes.take(now, size)

    def dropped(self, now: float) -> bool:
        """Count a dropped message. Return False once too many were dropped."""
        return self.drops.take(now)


class AddressBuckets:
    """One token bucket for each network address."""

    def __init__(self, rate: float, burst: float) -> None:
        self.rate = rate
        self.burst = burst
        self.buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def take(self, address: str, now: float) -> bool:
        """Take one token from the bucket of `address`; return whether there was one."""
        key = address_key(address)
        bucket = self.buckets.get(key)
        if bucket is None:
            bucket = self.buckets[key] = TokenBucket(self.rate, self.burst)
            if len(self.buckets) > MAX_ADDRESSES:
                self.buckets.popitem(last=False)
        self.buckets.move_to_end(key)
        return bucket.take(now)


def address_key(address: str) -> str:
    """Return the unit that limits apply to: an IPv4 address, or the /64 network of an IPv6 address, since one
    subscriber usually has a whole /64."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ip_network((int(parsed), 64), strict=False))
