"""The video of one peer connection, both ways, on its data channels."""

from collections.abc import AsyncIterator
from concurrent.futures import Executor
from dataclasses import dataclass
from enum import StrEnum

from aiortc import RTCPeerConnection

from ..media import Picture
from ..models.runtime import Runtime
from .feed import Feed


class LinkState(StrEnum):
    CONNECTING = "connecting"
    WAITING_FOR_SOURCE = "waiting for first picture"
    LIVE = "live"
    FACE_LOST = "face lost"
    FROZEN = "frozen"
    CAMERA_OFF = "camera off"
    RECONNECTING = "reconnecting"
    CLOSED = "closed"


@dataclass(frozen=True)
class Shown:
    """A picture of the peer, at the moment it has to be seen."""

    number: int
    picture: Picture
    due_s: float
    """Play-out time, on the clock of time.monotonic()."""
    delay_s: float
    """Estimate of the time since the peer's camera took it (glass to glass)."""
    state: LinkState


@dataclass(frozen=True)
class LinkStats:
    """The last 2 seconds."""

    sent_kbps: dict[str, float]
    """By layer: motion, sources, control, acknowledgements, overhead (SCTP, DTLS, UDP, IP), total."""
    received_kbps: dict[str, float]
    frames_per_s: float
    """Frames shown."""
    delay_ms: float
    loss: float
    """Share of the peer's motion messages that did not come, 0..1."""
    sources: int
    """Pictures of the peer in the library."""
    dropped: dict[str, int]
    """Messages that were not taken, by reason, since the link began."""


class Link:
    """Sends what the feed gives and shows what the peer sends."""

    def __init__(self, connection: RTCPeerConnection, feed: Feed, runtime: Runtime, executor: Executor) -> None:
        """Creates its channels (negotiated, fixed ids: both sides alike), so it must be made before the offer or the
        answer, in a running event loop."""
        raise NotImplementedError

    def frames(self) -> AsyncIterator[Shown]:
        """Each at its play-out time; the newest wins where the consumer is slow. Ends when the link is closed."""
        raise NotImplementedError

    @property
    def state(self) -> LinkState:
        raise NotImplementedError

    def stats(self) -> LinkStats:
        raise NotImplementedError

    def replace_connection(self, connection: RTCPeerConnection) -> None:
        """Go on over another connection, after a network change: the library is kept on both sides. Creates its
        channels on it, so it must be called before the offer or the answer."""
        raise NotImplementedError

    def playout_delay_s(self) -> float:
        """By how much sound has to be delayed, from its arrival on, to be in step with the picture."""
        raise NotImplementedError

    async def close(self) -> None:
        """Stops sending and showing. The connection is left to its owner."""
        raise NotImplementedError
