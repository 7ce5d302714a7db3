"""What the window of a call shows, as plain values: `call_view` describes it, display.py draws it."""

from dataclasses import dataclass

from iwcodec.client.link.link_state import SNAPSHOT_NUMBER, LinkState
from iwcodec.client.quality import quality_words
from iwcodec.client.room.call import Call, Participant
from iwcodec.client.stats import stats_lines
from iwcodec.codec.media.types import Picture

SILENT_S = 3.0
"""Silence after which a participant is marked: their program may be gone; the server keeps its place for a while."""


@dataclass(frozen=True)
class Tile:
    """One person's picture and captions."""

    name: str
    picture: Picture | None
    state: str = ""
    """Problem, in words; empty while all is well."""
    badge: bool = True
    """Whether a badge marks the picture as reconstructed, or as a snapshot."""
    snapshot: bool = False
    """Whether the picture is a scene snapshot, shown while there is no face, rather than a reconstruction."""
    words: str = ""
    """What the other person sees, too, if nobody sits between the two."""
    details: tuple[str, ...] = ()
    """What is wrong with the quality, if anything is, and lines of statistics."""


@dataclass(frozen=True)
class View:
    """Content of the window."""

    tiles: tuple[Tile, ...]
    """The other participants."""
    own: Tile
    status: str
    """State of our connection to the room, and the latest notice."""


def call_view(call: Call, name: str, preview: Picture | None, details: bool) -> View:
    """The present view of a call. `name`, `preview`: our own name and picture; `details`: with statistics."""
    tiles = tuple(_tile(participant, details) for participant in call.participants.values())
    own_state = "camera off" if call.camera_off else "" if preview is not None else "no picture yet"
    own_name = f"{name} (muted)" if call.muted else name
    own = Tile(own_name, None if call.camera_off else preview, own_state, badge=False)
    status = str(call.state)
    if call.locked:
        status += ", room locked"
    if call.notices:
        status += f"   ({call.notices[-1]})"
    return View(tiles, own, status)


def _tile(participant: Participant, details: bool) -> Tile:
    state, frame = participant.state, participant.frame
    picture = None if frame is None or state is LinkState.CAMERA_OFF else frame.picture
    snapshot = frame is not None and frame.number == SNAPSHOT_NUMBER
    shown = str(state)
    if participant.silent_s >= SILENT_S:
        shown += f", silent for {participant.silent_s:.0f} s"
    # While the face is lost, a snapshot is shown instead: that is no problem to report.
    is_well = state is LinkState.LIVE or (state is LinkState.FACE_LOST and snapshot)
    stats = participant.stats()
    lines: tuple[str, ...] = ()
    if stats is not None:
        quality = quality_words(stats) if state is LinkState.LIVE else ""
        lines = (*((quality,) if quality else ()), *(stats_lines(stats, participant) if details else ()))
    return Tile(
        participant.name,
        picture,
        "" if is_well else shown,
        snapshot=snapshot,
        words=participant.words or "",
        details=lines,
    )
