"""The window of a call, drawn without a screen."""

import itertools
import os

import numpy as np
import pytest

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
import pygame

from iwcodec.client import display as d
from iwcodec.client.link.link_state import LinkState
from iwcodec.client.room.call import CallState
from iwcodec.client.view import Tile, View
from iwcodec.codec.errors import CodecError

RED = np.zeros((64, 64, 3), np.uint8) + np.array([200, 30, 30], np.uint8)
OWN = Tile("me", None, "camera off", badge=False)


def drawn(*tiles: Tile, own: Tile = OWN, status: str = "in the call", size: tuple[int, int] = d.SIZE) -> np.ndarray:
    """The window's picture, RGB (H, W, 3)."""
    surface = pygame.Surface(size)
    d.draw(surface, View(tiles, own, status))
    return pygame.surfarray.array3d(surface).swapaxes(0, 1)


@pytest.mark.parametrize("count", range(1, 7))
@pytest.mark.parametrize("size", [(960, 640), (640, 960), (300, 300), (1920, 400)])
def test_tiles_do_not_overlap(count: int, size: tuple[int, int]) -> None:
    places = d.arrange(count, *size)
    assert len(places) == count
    for left, top, side in places:
        assert side > 0
        assert left >= 0 <= top
        assert left + side <= size[0]
        assert top + side <= size[1]
    for (ax, ay, side), (bx, by, _) in itertools.combinations(places, 2):
        assert abs(ax - bx) >= side or abs(ay - by) >= side


def test_words_stand_beside_the_name() -> None:
    left, top, side = d.arrange(1, d.SIZE[0], d.SIZE[1] - d.BAR)[0]
    changed = np.argwhere((drawn(Tile("Ada", RED)) != drawn(Tile("Ada", RED, words="acorn table tiger"))).any(axis=2))
    assert changed[:, 0].min() > top + side * 7 // 8
    assert changed[:, 1].min() > left + side // 4


def test_fewer_tiles_are_larger() -> None:
    assert d.arrange(2, 960, 640)[0][2] > d.arrange(4, 960, 640)[0][2] >= d.arrange(6, 960, 640)[0][2]
    assert d.arrange(0, 960, 640) == []


def test_a_picture_fills_its_tile_under_badge_and_name() -> None:
    shown = drawn(Tile("Ada", RED))
    left, top, side = d.arrange(1, d.SIZE[0], d.SIZE[1] - d.BAR)[0]
    inside = shown[top : top + side, left : left + side]
    assert np.abs(inside[side // 2, side // 2].astype(int) - RED[0, 0]).max() <= 2
    plain = drawn(Tile("Ada", RED, badge=False))[top : top + side, left : left + side]
    changed = np.argwhere((inside != plain).any(axis=2))
    assert changed.size  # the badge, in the upper right corner and nowhere else
    assert changed[:, 0].max() < side // 8
    assert changed[:, 1].min() > side // 2
    assert (plain[side * 7 // 8 :, : side // 3] != RED[0, 0]).any()  # the name, in the lower left one


def test_a_problem_is_written_over_the_dimmed_picture() -> None:
    tile = Tile("Ada", RED, str(LinkState.RECONNECTING))
    left, top, side = d.arrange(1, d.SIZE[0], d.SIZE[1] - d.BAR)[0]
    inside = drawn(tile)[top : top + side, left : left + side]
    assert inside[side // 4, side // 4, 0] < 120
    middle = inside[side // 2 - 12 : side // 2 + 12].reshape(-1, 3)
    assert (np.abs(middle.astype(int) - [255, 196, 110]).max(axis=1) < 10).sum() > 100


def test_a_snapshot_is_not_dimmed_and_has_its_own_badge() -> None:
    left, top, side = d.arrange(1, d.SIZE[0], d.SIZE[1] - d.BAR)[0]
    inside = drawn(Tile("Ada", RED, snapshot=True))[top : top + side, left : left + side]
    assert np.abs(inside[side // 4 : side // 2, side // 4 : side // 2].astype(int) - RED[0, 0]).max() <= 2
    badge = slice(0, side // 8), slice(side // 2, side)
    assert (inside[badge] != drawn(Tile("Ada", RED))[top : top + side, left : left + side][badge]).any()
    assert (inside[badge] != RED[0, 0]).any()


def test_without_participants_the_status_is_in_the_middle() -> None:
    shown = drawn(own=Tile("me", RED, badge=False), status=str(CallState.WAITING))
    assert (shown[280:340, 300:660] > 100).any()
    assert np.abs(shown[640 - 30 - 70, 960 - 70].astype(int) - RED[0, 0]).max() <= 2


def test_long_names_stay_inside() -> None:
    left, _, side = d.arrange(1, d.SIZE[0], d.SIZE[1] - d.BAR)[0]
    shown, empty = drawn(Tile("m" * 40, None)), drawn(Tile(" ", None))
    changed = np.argwhere((shown != empty).any(axis=2))
    assert changed[:, 1].min() >= left
    assert changed[:, 1].max() < left + side


def test_a_window_reports_keys() -> None:
    window = d.Window("test", (320, 240))
    try:
        window.show(View((Tile("Ada", RED),), OWN, "in the call"))
        for key in (pygame.K_m, pygame.K_i, pygame.K_ESCAPE):
            pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key))
        pygame.event.post(pygame.event.Event(pygame.QUIT))
        assert [key for key in window.pressed() if key] == ["m", "i", "q", "q"]
    finally:
        window.close()


def test_a_missing_display_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "nothing-of-that-name")
    pygame.display.quit()
    with pytest.raises(CodecError, match=r"no display for the call .*--headless"):
        d.Window("test")
