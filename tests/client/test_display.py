"""The window of a call, drawn without a screen."""

import itertools
import os
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
pytest.importorskip("aiortc")
import pygame

from iwcodec.client import display as d
from iwcodec.client.audio.track import SoundCount
from iwcodec.client.room.call import CallState
from iwcodec.client.video.link import LinkState, LinkStats, Shown
from iwcodec.codec.errors import CodecError

RED = np.zeros((64, 64, 3), np.uint8) + np.array([200, 30, 30], np.uint8)
OWN = d.Tile("me", None, "camera off", badge=False)


def drawn(*tiles: d.Tile, own: d.Tile = OWN, status: str = "in the call", size: tuple[int, int] = d.SIZE) -> np.ndarray:
    """RGB (H, W, 3)."""
    surface = pygame.Surface(size)
    d.draw(surface, d.Scene(tiles, own, status))
    return pygame.surfarray.array3d(surface).swapaxes(0, 1)


@pytest.mark.parametrize("count", range(1, 7))
@pytest.mark.parametrize("size", [(960, 640), (640, 960), (300, 300), (1920, 400)])
def test_everyone_has_a_place_of_their_own(count: int, size: tuple[int, int]) -> None:
    places = d.arrange(count, *size)
    assert len(places) == count
    for left, top, side in places:
        assert side > 0
        assert left >= 0 <= top
        assert left + side <= size[0]
        assert top + side <= size[1]
    for (ax, ay, side), (bx, by, _) in itertools.combinations(places, 2):
        assert abs(ax - bx) >= side or abs(ay - by) >= side


def test_two_side_by_side_are_larger_than_four() -> None:
    assert d.arrange(2, 960, 640)[0][2] > d.arrange(4, 960, 640)[0][2] >= d.arrange(6, 960, 640)[0][2]
    assert d.arrange(0, 960, 640) == []


def test_a_picture_fills_its_place_under_badge_and_name() -> None:
    shown = drawn(d.Tile("Ada", RED))
    left, top, side = d.arrange(1, d.SIZE[0], d.SIZE[1] - 30)[0]
    inside = shown[top : top + side, left : left + side]
    assert np.abs(inside[side // 2, side // 2].astype(int) - RED[0, 0]).max() <= 2
    plain = drawn(d.Tile("Ada", RED, badge=False))[top : top + side, left : left + side]
    changed = np.argwhere((inside != plain).any(axis=2))
    assert changed.size  # the badge, in the upper right corner and nowhere else
    assert changed[:, 0].max() < side // 8
    assert changed[:, 1].min() > side // 2
    assert (plain[side * 7 // 8 :, : side // 3] != RED[0, 0]).any()  # the name, in the lower left one


def test_a_state_is_said_over_a_dimmed_picture() -> None:
    tile = d.Tile("Ada", RED, str(LinkState.RECONNECTING))
    left, top, side = d.arrange(1, d.SIZE[0], d.SIZE[1] - 30)[0]
    inside = drawn(tile)[top : top + side, left : left + side]
    assert inside[side // 4, side // 4, 0] < 120
    middle = inside[side // 2 - 12 : side // 2 + 12].reshape(-1, 3)
    assert (np.abs(middle.astype(int) - [255, 196, 110]).max(axis=1) < 10).sum() > 100


def test_a_still_is_shown_as_it_is() -> None:
    """While the face is lost: neither dimmed nor called reconstructed. Any other trouble is said over it."""
    lost = participant(LinkState.FACE_LOST)
    assert d.scene(call(lost), "me", None, False).tiles[0] == d.Tile("Ada", RED, "face lost")
    lost.shown = Shown(d.STILL_NUMBER, RED, 0.0, 0.0, LinkState.FACE_LOST)
    tile = d.scene(call(lost), "me", None, False).tiles[0]
    assert tile == d.Tile("Ada", RED, "", still=True)
    left, top, side = d.arrange(1, d.SIZE[0], d.SIZE[1] - 30)[0]
    inside = drawn(tile)[top : top + side, left : left + side]
    assert np.abs(inside[side // 4 : side // 2, side // 4 : side // 2].astype(int) - RED[0, 0]).max() <= 2
    badge = slice(0, side // 8), slice(side // 2, side)
    assert (inside[badge] != drawn(d.Tile("Ada", RED))[top : top + side, left : left + side][badge]).any()
    assert (inside[badge] != RED[0, 0]).any()
    lost.state = LinkState.RECONNECTING
    assert d.scene(call(lost), "me", None, False).tiles[0].state == "reconnecting"


def test_alone_the_status_is_in_the_middle_and_oneself_in_the_corner() -> None:
    shown = drawn(own=d.Tile("me", RED, badge=False), status=str(CallState.WAITING))
    assert (shown[280:340, 300:660] > 100).any()
    assert np.abs(shown[640 - 30 - 70, 960 - 70].astype(int) - RED[0, 0]).max() <= 2


def test_long_names_stay_inside() -> None:
    left, _, side = d.arrange(1, d.SIZE[0], d.SIZE[1] - 30)[0]
    shown, empty = drawn(d.Tile("m" * 40, None)), drawn(d.Tile(" ", None))
    changed = np.argwhere((shown != empty).any(axis=2))
    assert changed[:, 1].min() >= left
    assert changed[:, 1].max() < left + side


def participant(state: LinkState, picture: Any = RED, **stats: Any) -> Any:
    shown = None if picture is None else Shown(1, picture, 0.0, 0.1, state)
    values = {"frames_per_s": 24.0, "delay_ms": 160.0, "loss": 0.02, "sources": 5, "dropped": {}} | stats
    measured = LinkStats({"total": 11.2}, {"total": 11.8}, **values)
    return SimpleNamespace(name="Ada", state=state, shown=shown, playout=None, stats=lambda: measured)


def call(*participants: Any, **changes: Any) -> Any:
    values = {"camera_off": False, "muted": False, "notices": [], "state": CallState.TALKING}
    return SimpleNamespace(participants={str(n): p for n, p in enumerate(participants)}, **(values | changes))


def test_a_scene_says_what_is_the_matter() -> None:
    scene = d.scene(
        call(participant(LinkState.LIVE), participant(LinkState.CAMERA_OFF), participant(LinkState.CONNECTING, None)),
        "me",
        RED,
        details=False,
    )
    assert [tile.state for tile in scene.tiles] == ["", "camera off", "connecting"]
    assert [tile.picture is None for tile in scene.tiles] == [False, True, True]
    assert scene.own == d.Tile("me", scene.own.picture, "", badge=False)
    muted = d.scene(call(muted=True, camera_off=True, notices=["Ada left"]), "me", RED, False)
    assert (muted.own.name, muted.own.state, muted.own.picture) == ("me (muted)", "camera off", None)
    assert muted.status == "in the call   (Ada left)"


def test_details_are_shown_on_request() -> None:
    there = call(participant(LinkState.LIVE))
    assert d.scene(there, "me", None, False).tiles[0].details == ()
    assert d.scene(there, "me", None, True).tiles[0].details == (
        "picture 11.8 kbps in, 11.2 out",
        "24 frames/s, 5 sources",
        "delay 160 ms, loss 2 %",
    )


def test_details_have_the_sound_too() -> None:
    speaking = participant(LinkState.LIVE)
    speaking.playout, speaking.sound = SimpleNamespace(wait_s=0.1), SoundCount()
    speaking.sound.sent.add(3750, time.monotonic())
    speaking.sound.received.add(3700, time.monotonic())
    assert d.scene(call(speaking), "me", None, True).tiles[0].details == (
        "picture 11.8 kbps in, 11.2 out",
        "sound 14.8 kbps in, 15.0 out",
        "all 26.6 kbps in, 26.2 out",
        "24 frames/s, 5 sources",
        "delay 160 ms, loss 2 %",
        "sound waits 100 ms",
    )


def test_a_window_and_its_keys() -> None:
    window = d.Window("test", (320, 240))
    try:
        window.show(d.Scene((d.Tile("Ada", RED),), OWN, "in the call"))
        for key in (pygame.K_m, pygame.K_i, pygame.K_ESCAPE):
            pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key))
        pygame.event.post(pygame.event.Event(pygame.QUIT))
        assert [key for key in window.pressed() if key] == ["m", "i", "q", "q"]
    finally:
        window.close()


def test_m_and_v() -> None:
    done: list[Any] = []
    there = call(mute=lambda on: done.append(("mute", on)), hide=lambda on: done.append(("hide", on)), muted=True)
    for key in "mvx":
        d.press(there, key)
    assert done == [("mute", False), ("hide", True)]


def test_without_a_display_the_user_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "nothing-of-that-name")
    pygame.display.quit()
    with pytest.raises(CodecError, match=r"no display for the call .*--headless"):
        d.Window("test")
