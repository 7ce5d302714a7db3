"""Window of a call: draws a View with pygame.

`draw` renders to any pygame surface, so it can be tested without a screen.
"""

import os
from typing import Any, Final

import numpy as np

from iwcodec.client.view import Tile, View
from iwcodec.codec.cli.player import open_display
from iwcodec.codec.errors import CodecError

SIZE: Final = (960, 640)
"""Initial width and height of the window in pixels."""
GAP: Final = 8
"""Pixels between tiles."""
BAR: Final = 30
"""Height of the status bar in pixels."""
OWN_SHARE: Final = 0.2
"""Side of our own picture as a share of the window's shorter side."""
RECONSTRUCTED: Final = "reconstructed"
SNAPSHOT: Final = "snapshot"
KEYS: Final = "m mute   v camera off   c camera   a microphone   s loudspeaker   i details   q leave"

_BACKGROUND = (18, 20, 24)
_EMPTY_TILE = (38, 42, 50)
_TEXT = (236, 238, 242)
_SOFT = (160, 166, 176)
_ALERT = (255, 196, 110)


class Window:
    """A window on the screen. Raises CodecError if there is no display."""

    def __init__(self, title: str, size: tuple[int, int] = SIZE) -> None:
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        import pygame

        self._pygame = pygame
        try:
            open_display()
            self._screen = pygame.display.set_mode(size, pygame.RESIZABLE)
        except pygame.error as error:
            pygame.quit()
            raise CodecError(f"There is no display for the call ({error}); use --headless.") from error
        pygame.display.set_caption(title)

    def show(self, view: View) -> None:
        draw(self._screen, view)
        self._pygame.display.flip()

    def pressed(self) -> list[str]:
        """Names of the keys pressed since the last call. Esc and closing the window count as `q`."""
        keys = []
        for event in self._pygame.event.get():
            if event.type == self._pygame.QUIT:
                keys.append("q")
            elif event.type == self._pygame.KEYDOWN:
                name = self._pygame.key.name(event.key)
                keys.append("q" if name == "escape" else name)
        return keys

    def close(self) -> None:
        self._pygame.quit()
        _fonts.clear()


def draw(surface: Any, view: View) -> None:
    """Draw the whole window."""
    width, height = surface.get_size()
    surface.fill(_BACKGROUND)
    for tile, place in zip(view.tiles, arrange(len(view.tiles), width, height - BAR), strict=True):
        _draw_tile(surface, tile, *place, text=max(14, place[2] // 22))
    if not view.tiles:
        _write(surface, view.status, (width // 2, (height - BAR) // 2), 24, _SOFT, centred=True)
    side = round(min(width, height) * OWN_SHARE)
    _draw_tile(surface, view.own, width - side - GAP, height - BAR - side - GAP, side, text=13, frame=True)
    alert = bool(view.tiles) and not view.status.startswith("in the call")
    _write(surface, view.status, (GAP + 4, height - BAR + 7), 15, _ALERT if alert else _SOFT)
    _write(surface, KEYS, (width - GAP - 4, height - BAR + 7), 15, _SOFT, right=True)


def arrange(count: int, width: int, height: int) -> list[tuple[int, int, int]]:
    """(left, top, side) of `count` equal squares, as large as possible, row by row, with the rows centred."""
    if count == 0:
        return []
    sides = []
    for columns in range(1, count + 1):
        rows = -(-count // columns)
        sides.append((min((width - GAP) // columns, (height - GAP) // rows) - GAP, columns))
    side, columns = max(sides)
    rows = -(-count // columns)
    top = (height - rows * (side + GAP) + GAP) // 2
    places = []
    for index in range(count):
        row = index // columns
        in_row = min(columns, count - row * columns)
        left = (width - in_row * (side + GAP) + GAP) // 2
        places.append((left + index % columns * (side + GAP), top + row * (side + GAP), side))
    return places


def _draw_tile(surface: Any, tile: Tile, left: int, top: int, side: int, text: int, frame: bool = False) -> None:
    """Draw a tile with captions of `text` pixels; `frame`: with an edge in the background colour."""
    import pygame

    place = pygame.Rect(left, top, side, side)
    if frame:
        pygame.draw.rect(surface, _BACKGROUND, place.inflate(6, 6))
    pygame.draw.rect(surface, _EMPTY_TILE, place)
    if tile.picture is not None:
        picture = pygame.surfarray.make_surface(np.ascontiguousarray(tile.picture.swapaxes(0, 1)))
        surface.blit(pygame.transform.smoothscale(picture, (side, side)), place)
    edge = text // 2
    if tile.state:
        has_picture = tile.picture is not None
        if has_picture:
            surface.fill((110, 110, 110), place, special_flags=pygame.BLEND_RGB_MULT)
        _write(surface, tile.state, place.center, text, _ALERT, centred=True, shaded=has_picture, max_width=side)
    name_at = left + edge, top + side - text - 2 * edge
    _write(surface, tile.name, name_at, text, _TEXT, shaded=True, max_width=side)
    if tile.words:
        size = max(12, text * 3 // 4)
        words_at = left + side - edge, top + side - size - 2 * edge
        _write(surface, tile.words, words_at, size, _SOFT, right=True, shaded=True, max_width=side * 2 // 3)
    if tile.badge and tile.picture is not None:
        badge = SNAPSHOT if tile.snapshot else RECONSTRUCTED
        _write(surface, badge, (left + side - edge, top + edge), max(11, text * 2 // 3), _SOFT, right=True, shaded=True)
    for row, line in enumerate(tile.details):
        size = max(12, text * 3 // 4)
        line_at = left + edge, top + edge + row * (size + 8)
        _write(surface, line, line_at, size, _TEXT, shaded=True, max_width=side)


def _write(
    surface: Any,
    words: str,
    at: tuple[int, int],
    size: int,
    colour: tuple[int, int, int],
    centred: bool = False,
    right: bool = False,
    shaded: bool = False,
    max_width: int = 0,
) -> None:
    """Write a line of text whose top left corner is `at`: or its centre (`centred`), or its top right corner (`right`).

    `shaded`: on a translucent dark background. `max_width`: pixels available, for which a longer text shrinks.
    """
    import pygame

    text = _font(size).render(words, True, colour)
    if max_width and text.get_width() > max_width - size:
        text = _font(max(9, size * (max_width - size) // text.get_width())).render(words, True, colour)
    place = text.get_rect()
    if centred:
        place.center = at
    elif right:
        place.topright = at
    else:
        place.topleft = at
    if shaded:
        shade = pygame.Surface(place.inflate(size // 2, size // 4).size, pygame.SRCALPHA)
        shade.fill((0, 0, 0, 130))
        surface.blit(shade, place.inflate(size // 2, size // 4))
    surface.blit(text, place)


_fonts: dict[int, Any] = {}


def _font(size: int) -> Any:
    import pygame

    if not pygame.font.get_init():
        pygame.font.init()
        _fonts.clear()
    if size not in _fonts:
        _fonts[size] = pygame.font.Font(None, round(size * 1.4))
    return _fonts[size]
