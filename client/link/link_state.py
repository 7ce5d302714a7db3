"""What a link reports to the rest of the program: its state, rendered frames, and statistics."""

from dataclasses import dataclass, field
from enum import StrEnum

from iwcodec.codec.media.types import Picture

SNAPSHOT_NUMBER = -1
"""Frame number of a scene snapshot, which has no place in the sequence of frames."""


class LinkState(StrEnum):
    CONNECTING = "connecting"
    INCOMPATIBLE = "another version or size"
    WAITING_FOR_SOURCE = "waiting for first picture"
    LIVE = "live"
    FACE_LOST = "face lost"
    FROZEN = "frozen"
    CAMERA_OFF = "camera off"
    IGNORED = "sends too much, not shown"
    RECONNECTING = "reconnecting"
    CLOSED = "closed"


@dataclass(frozen=True)
class RenderedFrame:
    """A picture of the peer, delivered when it is due."""

    number: int
    """Frame number, counted by the peer, or SNAPSHOT_NUMBER."""
    picture: Picture
    due_s: float
    """Playout time, on the clock of time.monotonic()."""
    delay_s: float
    """Estimated time since the peer's camera captured it (glass to glass)."""
    state: LinkState


@dataclass(frozen=True)
class LinkStats:
    """Averages over the last channels.STATS_S seconds, unless stated otherwise."""

    sent_kbps: dict[str, float]
    """By layer: motion, sources, control, acknowledgements, overhead (SCTP, DTLS, UDP, IP), total."""
    received_kbps: dict[str, float]
    frames_per_s: float
    """Frames shown."""
    delay_ms: float
    """Mean glass-to-glass delay of the frames shown."""
    loss: float
    """Share of the peer's motion messages that were lost, 0..1, in the last report interval."""
    sources: int
    """Pictures of the peer in the library."""
    dropped: dict[str, int]
    """Messages that were dropped, by reason, since the link was created."""
    queued: dict[str, int] = field(default_factory=dict)
    """Present queue lengths: frames to show, source units to decode and to send, bytes in the channels' buffers."""
    received_per_s: float = 0.0
    """Frames of the peer that arrived."""
    congested: bool = False
    """Whether there is a queue on the path to the peer."""
    render_ms: float = 0.0
    """Median time from the jitter buffer to the picture, of the newest frames."""
