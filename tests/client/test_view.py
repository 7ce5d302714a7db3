"""What the window of a call shows, and the statistics in words."""

import time
from types import SimpleNamespace
from typing import Any

import numpy as np

from iwcodec.client.audio.transceiver import AudioTraffic
from iwcodec.client.link.link_state import SNAPSHOT_NUMBER, LinkState, LinkStats, RenderedFrame
from iwcodec.client.room.call import CallState
from iwcodec.client.view import Tile, call_view

RED = np.zeros((64, 64, 3), np.uint8) + np.array([200, 30, 30], np.uint8)

QUIET: dict[str, Any] = {"words": None, "silent_s": 0.0}


def participant(state: LinkState, picture: Any = RED, **stats: Any) -> Any:
    frame = None if picture is None else RenderedFrame(1, picture, 0.0, 0.1, state)
    values = {"frames_per_s": 24.0, "delay_ms": 160.0, "loss": 0.02, "sources": 5, "dropped": {}} | stats
    measured = LinkStats({"total": 11.2}, {"total": 11.8}, **values)
    return SimpleNamespace(name="Ada", state=state, frame=frame, audio_buffer=None, stats=lambda: measured, **QUIET)


def call(*participants: Any, **changes: Any) -> Any:
    values = {"camera_off": False, "muted": False, "locked": False, "notices": [], "state": CallState.TALKING}
    return SimpleNamespace(participants={str(n): p for n, p in enumerate(participants)}, **(values | changes))


def test_problems_are_described() -> None:
    view = call_view(
        call(participant(LinkState.LIVE), participant(LinkState.CAMERA_OFF), participant(LinkState.CONNECTING, None)),
        "me",
        RED,
        details=False,
    )
    assert [tile.state for tile in view.tiles] == ["", "camera off", "connecting"]
    assert [tile.picture is None for tile in view.tiles] == [False, True, True]
    assert view.own == Tile("me", view.own.picture, "", badge=False)
    muted = call_view(call(muted=True, camera_off=True, notices=["Ada left"]), "me", RED, False)
    assert (muted.own.name, muted.own.state, muted.own.picture) == ("me (muted)", "camera off", None)
    assert muted.status == "in the call   (Ada left)"


def test_a_snapshot_while_the_face_is_lost_is_no_problem() -> None:
    lost = participant(LinkState.FACE_LOST)
    assert call_view(call(lost), "me", None, False).tiles[0] == Tile("Ada", RED, "face lost")
    lost.frame = RenderedFrame(SNAPSHOT_NUMBER, RED, 0.0, 0.0, LinkState.FACE_LOST)
    assert call_view(call(lost), "me", None, False).tiles[0] == Tile("Ada", RED, "", snapshot=True)
    lost.state = LinkState.RECONNECTING
    assert call_view(call(lost), "me", None, False).tiles[0].state == "reconnecting"


def test_silent_participants_are_marked() -> None:
    """A program that was killed keeps its place for half a minute."""
    ada = participant(LinkState.FROZEN)
    ada.silent_s = 12.4
    assert call_view(call(ada), "me", None, False).tiles[0].state == "frozen, silent for 12 s"


def test_words_that_verify_the_connection_are_shown() -> None:
    ada = participant(LinkState.LIVE)
    assert call_view(call(ada), "me", None, False).tiles[0].words == ""
    ada.words = "acorn table tiger"
    assert call_view(call(ada), "me", None, False).tiles[0].words == "acorn table tiger"


def test_statistics_are_shown_on_request() -> None:
    there = call(participant(LinkState.LIVE))
    assert call_view(there, "me", None, False).tiles[0].details == ()
    assert call_view(there, "me", None, True).tiles[0].details == (
        "picture 11.8 kbps in, 11.2 out",
        "24 frames/s, 5 sources",
        "delay 160 ms, loss 2 %",
    )


def test_statistics_include_the_sound() -> None:
    speaking = participant(LinkState.LIVE)
    speaking.audio_buffer, speaking.audio_traffic = SimpleNamespace(delay_s=0.1), AudioTraffic()
    speaking.audio_traffic.sent.add(3750, time.monotonic())
    speaking.audio_traffic.received.add(3700, time.monotonic())
    assert call_view(call(speaking), "me", None, True).tiles[0].details == (
        "picture 11.8 kbps in, 11.2 out",
        "sound 14.8 kbps in, 15.0 out",
        "all 26.6 kbps in, 26.2 out",
        "24 frames/s, 5 sources",
        "delay 160 ms, loss 2 %",
        "sound buffer 100 ms",
    )
