"""The window of a call: everyone, oneself small in a corner, and in words what is the matter where there is no picture.

`draw` makes a pygame surface of plain values, so it can be looked at without a window.
"""

import os
import time
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from iwcodec.client.room.call import Call, Participant
from iwcodec.client.video.link import LinkState, LinkStats
from iwcodec.codec.errors import CodecError
from iwcodec.codec.media.types import Picture

SIZE: Final = (960, 640)
GAP: Final = 8
OWN_SHARE: Final = 0.2
"""Of the window's shorter side: the own picture."""
BADGE: Final = "reconstructed"
STILL: Final = "still"
STILL_NUMBER: Final = -1
"""What a link numbers stills with."""
KEYS: Final = "m mute   v camera off   i details   q leave"

_BACK = (18, 20, 24)
_PLATE = (38, 42, 50)
_TEXT = (236, 238, 242)
_SOFT = (160, 166, 176)
_ALERT = (255, 196, 110)


@dataclass(frozen=True)
class Tile:
    """One person, as shown."""

    name: str
    picture: Picture | None
    state: str = ""
    """In words; empty while all is well."""
    badge: bool = True
    """Whether the picture says what it is: reconstructed, or else"""
    still: bool = False
    """a still of the scene, taken while there is no face."""
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scene:
    tiles: tuple[Tile, ...]
    own: Tile
    status: str
    """Our own state, at the bottom."""


def arrange(count: int, width: int, height: int) -> list[tuple[int, int, int]]:
    """(left, top, side) of the largest equal squares that hold `count` pictures, row by row, rows centred."""
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


def draw(surface: Any, scene: Scene) -> None:
    """The whole window."""
    width, height = surface.get_size()
    surface.fill(_BACK)
    bar = 30
    for tile, place in zip(scene.tiles, arrange(len(scene.tiles), width, height - bar), strict=True):
        _draw_tile(surface, tile, *place, text=max(14, place[2] // 22))
    if not scene.tiles:
        _write(surface, scene.status, (width // 2, (height - bar) // 2), 24, _SOFT, centred=True)
    side = round(min(width, height) * OWN_SHARE)
    _draw_tile(surface, scene.own, width - side - GAP, height - bar - side - GAP, side, text=13, frame=True)
    alert = bool(scene.tiles) and not scene.status.startswith("in the call")
    _write(surface, scene.status, (GAP + 4, height - bar + 7), 15, _ALERT if alert else _SOFT)
    _write(surface, KEYS, (width - GAP - 4, height - bar + 7), 15, _SOFT, right=True)


def _draw_tile(surface: Any, tile: Tile, left: int, top: int, side: int, text: int, frame: bool = False) -> None:
    import pygame

    place = pygame.Rect(left, top, side, side)
    if frame:
        pygame.draw.rect(surface, _BACK, place.inflate(6, 6))
    pygame.draw.rect(surface, _PLATE, place)
    if tile.picture is not None:
        picture = pygame.surfarray.make_surface(np.ascontiguousarray(tile.picture.swapaxes(0, 1)))
        surface.blit(pygame.transform.smoothscale(picture, (side, side)), place)
    edge = text // 2
    if tile.state:
        if tile.picture is not None:
            surface.fill((110, 110, 110), place, special_flags=pygame.BLEND_RGB_MULT)
        _write(surface, tile.state, place.center, text, _ALERT, centred=True, plate=tile.picture is not None, most=side)
    _write(surface, tile.name, (left + edge, top + side - text - 2 * edge), text, _TEXT, plate=True, most=side)
    if tile.badge and tile.picture is not None:
        badge = STILL if tile.still else BADGE
        _write(surface, badge, (left + side - edge, top + edge), max(11, text * 2 // 3), _SOFT, right=True, plate=True)
    for row, line in enumerate(tile.details):
        size = max(12, text * 3 // 4)
        _write(surface, line, (left + edge, top + edge + row * (size + 8)), size, _TEXT, plate=True, most=side)


def _write(
    surface: Any,
    words: str,
    at: tuple[int, int],
    size: int,
    colour: tuple[int, int, int],
    centred: bool = False,
    right: bool = False,
    plate: bool = False,
    most: int = 0,
) -> None:
    """One line of text; `most`: pixels it may take, beyond which it is made smaller."""
    import pygame

    drawn = _font(size).render(words, True, colour)
    if most and drawn.get_width() > most - size:
        drawn = _font(max(9, size * (most - size) // drawn.get_width())).render(words, True, colour)
    place = drawn.get_rect()
    if centred:
        place.center = at
    elif right:
        place.topright = at
    else:
        place.topleft = at
    if plate:
        back = pygame.Surface(place.inflate(size // 2, size // 4).size, pygame.SRCALPHA)
        back.fill((0, 0, 0, 130))
        surface.blit(back, place.inflate(size // 2, size // 4))
    surface.blit(drawn, place)


_fonts: dict[int, Any] = {}


def _font(size: int) -> Any:
    import pygame

    if not pygame.font.get_init():
        pygame.font.init()
        _fonts.clear()
    if size not in _fonts:
        _fonts[size] = pygame.font.Font(None, round(size * 1.4))
    return _fonts[size]


# ------------------------------------------------------------------------------------------------ scenes


def scene(call: Call, name: str, preview: Picture | None, details: bool) -> Scene:
    """What there is to see of a call just now."""
    tiles = tuple(_tile(participant, details) for participant in call.participants.values())
    own_state = "camera off" if call.camera_off else "" if preview is not None else "no picture yet"
    own_name = f"{name} (muted)" if call.muted else name
    own = Tile(own_name, None if call.camera_off else preview, own_state, badge=False)
    status = str(call.state)
    if call.notices:
        status += f"   ({call.notices[-1]})"
    return Scene(tiles, own, status)


def _tile(participant: Participant, details: bool) -> Tile:
    state, shown = participant.state, participant.shown
    picture = None if shown is None or state is LinkState.CAMERA_OFF else shown.picture
    still = shown is not None and shown.number == STILL_NUMBER
    # A still is what there is to see while the face is lost: nothing is wrong with it.
    is_well = state is LinkState.LIVE or (state is LinkState.FACE_LOST and still)
    stats = participant.stats() if details else None
    told = () if stats is None else describe(stats, participant)
    return Tile(participant.name, picture, "" if is_well else str(state), still=still, details=told)


def describe(stats: LinkStats, participant: Participant) -> tuple[str, ...]:
    """The overlay: rates are what the wire carries, IP to payload, both ways."""
    rates = wire_kbps(stats, participant)
    lines = [
        *(f"{what} {received:.1f} kbps in, {sent:.1f} out" for what, (sent, received) in rates.items()),
        f"{stats.frames_per_s:.0f} frames/s, {stats.sources} sources",
        f"delay {stats.delay_ms:.0f} ms, loss {100 * stats.loss:.0f} %",
    ]
    if participant.playout is not None:
        lines.append(f"sound waits {1000 * participant.playout.wait_s:.0f} ms")
    return tuple(lines)


def wire_kbps(stats: LinkStats, participant: Participant) -> dict[str, tuple[float, float]]:
    """(sent, received) of the picture and, in a call with sound, of the sound and of both."""
    picture = stats.sent_kbps.get("total", 0.0), stats.received_kbps.get("total", 0.0)
    if participant.playout is None:
        return {"picture": picture}
    now = time.monotonic()
    sound = participant.sound.sent.kbps(now), participant.sound.received.kbps(now)
    return {"picture": picture, "sound": sound, "all": (picture[0] + sound[0], picture[1] + sound[1])}


class Window:
    """A window on the screen. Raises CodecError, plainly, where there is none to be had."""

    def __init__(self, title: str, size: tuple[int, int] = SIZE) -> None:
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        import pygame

        self._pygame = pygame
        try:
            pygame.display.init()
            self._screen = pygame.display.set_mode(size, pygame.RESIZABLE)
        except pygame.error as error:
            raise CodecError(f"There is no display for the call ({error}); use --headless.") from error
        pygame.display.set_caption(title)

    def show(self, scene: Scene) -> None:
        draw(self._screen, scene)
        self._pygame.display.flip()

    def pressed(self) -> list[str]:
        """Keys pressed since the last time: their letters; closing the window and Esc are `q`."""
        found = []
        for event in self._pygame.event.get():
            if event.type == self._pygame.QUIT:
                found.append("q")
            elif event.type == self._pygame.KEYDOWN:
                name = self._pygame.key.name(event.key)
                found.append("q" if name == "escape" else name)
        return found

    def close(self) -> None:
        self._pygame.quit()
        _fonts.clear()


def press(call: Call, key: str) -> None:
    """m and v; the others are the caller's."""
    if key == "m":
        call.mute(not call.muted)
    elif key == "v":
        call.hide(not call.camera_off)
