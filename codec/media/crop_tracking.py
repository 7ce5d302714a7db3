"""The square that is coded: finding the speaker's face, and a crop that follows it like a calm camera operator.

Whatever moves the crop moves the whole background, which costs bits and outdates the source pictures. So the
crop stands perfectly still until the face has left its dead zone, then travels to a new place, slowly, and
stands still again.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.errors import CodecError, NoFaceError
from iwcodec.codec.media.face_detector import DETECT_EVERY, Face

Picture = NDArray[np.uint8]
Floats = NDArray[np.float64]


_FACE_PART = 0.5  # height of the face / side of the crop: head and shoulders
_FACE_LEVEL = 0.48  # where the middle of the face stands, from the top: leaves head room
_DEAD_ZONE = 0.12  # how far, in sides, the face may leave its place before the crop moves
_DEAD_ZOOM = 0.25  # likewise for the natural logarithm of its size
_OUT_OF_SIGHT = 0.6  # a face this far from its place, in sides, is hardly in the crop any more
_PATIENCE = 6  # looks without the face that was followed before another one is taken
_MIN_SIDE = 32


@dataclass(frozen=True)
class Crop:
    """A square of pixels: left, top, side."""

    x: int
    y: int
    side: int


# --------------------------------------------------------------------------------------------- crop modes


def centre_square(width: int, height: int) -> Crop:
    """The largest square in the middle of a picture."""
    side = min(width, height)
    return Crop((width - side) // 2, (height - side) // 2, side)


def parse_crop(mode: str, width: int, height: int) -> Crop | None:
    """The fixed crop that a crop mode means for pictures of this size, or None if the crop is to follow the
    face. Modes: "none" (the centre square), "face", or "X,Y,SIDE" in pixels. A square picture is taken whole
    unless X,Y,SIDE says otherwise. Raises CodecError for another mode, or a square that is not inside."""
    if mode == "none" or (mode == "face" and width == height):
        return centre_square(width, height)
    if mode == "face":
        return None
    numbers = re.fullmatch(r"\s*(\d{1,6})\s*,\s*(\d{1,6})\s*,\s*(\d{1,6})\s*", mode)
    if numbers is None:
        raise CodecError(f'"{mode}" is not a crop: give face, none, or X,Y,SIDE in pixels.')
    x, y, side = (int(n) for n in numbers.groups())
    if side < _MIN_SIDE:
        raise CodecError(f"A crop must be at least {_MIN_SIDE} pixels wide, not {side}.")
    if x + side > width or y + side > height:
        raise CodecError(f"The crop {x},{y},{side} does not lie inside the picture of {width}x{height} pixels.")
    return Crop(x, y, side)


def crop_resize(picture: Picture, crop: Crop, size: int) -> Picture:
    """The crop of a picture, scaled to uint8 (size, size, 3). What lies outside the picture is filled with
    its edge."""
    height, width = picture.shape[:2]
    left, top = max(0, -crop.x), max(0, -crop.y)
    right, bottom = max(0, crop.x + crop.side - width), max(0, crop.y + crop.side - height)
    if left or top or right or bottom:
        picture = np.asarray(cv2.copyMakeBorder(picture, top, bottom, left, right, cv2.BORDER_REPLICATE), np.uint8)
    x, y = crop.x + left, crop.y + top
    part = picture[y : y + crop.side, x : x + crop.side]
    if crop.side == size:
        return np.ascontiguousarray(part)
    how = cv2.INTER_AREA if crop.side > size else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(part, (size, size), interpolation=how), np.uint8)


# --------------------------------------------------------------------------------------- following a face


class CropTracker:
    """The crop of a live picture: knows nothing of the future.

    Until a face is seen the crop is the centre square; the first face is framed at once. From then on no
    edge moves by more than 1 % of the side (and the rounding to whole pixels) a frame, and while no face is
    to be seen the crop stays. Only a speaker who has outrun it altogether, or another one who takes over
    elsewhere in the picture, is cut to. ``fps`` sets the pace.
    """

    def __init__(self, width: int, height: int, fps: float = 25.0) -> None:
        self._size = width, height
        self._follower = _Follower()
        self._recent: deque[Floats] = deque(maxlen=3)
        self._camera = _Camera(fps)

    def update(self, faces: Sequence[Face] | None) -> Crop:
        """The crop of the next frame. ``faces``: what the detector saw in it, or None if it did not look,
        which every frame but one in DETECT_EVERY may do."""
        if faces is not None:
            face = self._follower.pick(faces)
            if face is not None:
                self._recent.append(_framing(face, *self._size))
            elif self._follower.lost:
                self._recent.clear()
        wanted = np.median(self._recent, axis=0)[None] if self._recent else None
        return _whole(self._camera.step(wanted), *self._size)


def plan_crops(faces: Sequence[Sequence[Face] | None], width: int, height: int, fps: float = 25.0) -> list[Crop]:
    """The crops of a whole file's frames: as CropTracker, but looking ahead, so that the crop stands where
    it can stay longest, starts before the speaker leaves, and never starts if one place serves all along.

    ``faces`` has one entry a frame, as :meth:`CropTracker.update` takes them. Raises NoFaceError if there is
    no face in any.
    """
    wanted = _steady(_track(faces, width, height))
    lead = round(0.6 * fps)
    camera = _Camera(fps)
    return [_whole(camera.step(wanted[n:], lead), width, height) for n in range(len(wanted))]


def _track(faces: Sequence[Sequence[Face] | None], width: int, height: int) -> list[Floats]:
    """For each frame the framing of the followed face when it was last seen, or will first be seen."""
    follower = _Follower()
    seen: list[Floats | None] = []
    for found in faces:
        face = None if found is None else follower.pick(found)
        if face is not None:
            seen.append(_framing(face, width, height))
        else:
            seen.append(seen[-1] if seen else None)
    first = next((framing for framing in seen if framing is not None), None)
    if first is None:
        raise NoFaceError("No face was found in the video: choose a fixed crop (none, or X,Y,SIDE).")
    return [first if framing is None else framing for framing in seen]


def _steady(track: Sequence[Floats]) -> Floats:
    """Medians over three looks: one wrong detection does not move the crop."""
    values = np.stack(track)
    reach = DETECT_EVERY
    padded = np.pad(values, ((reach, reach), (0, 0)), mode="edge")
    count = len(values)
    return np.median([padded[:count], values, padded[2 * reach : 2 * reach + count]], axis=0)


class _Follower:
    """Which of the detected faces is the speaker: the one nearest to where it was, at first the largest."""

    def __init__(self) -> None:
        self._last: Face | None = None
        self._missed = 0

    @property
    def lost(self) -> bool:
        """The face has been out of sight for more than a moment."""
        return self._missed >= 3

    def pick(self, faces: Sequence[Face]) -> Face | None:
        near = [face for face in faces if self._last is None or _same_place(face, self._last)]
        if not near and self._missed >= _PATIENCE:
            near, self._last = list(faces), None
        if not near:
            self._missed += 1
            return None
        last = self._last
        if last is None:
            face = max(near, key=lambda face: face.w * face.h)
        else:
            face = min(near, key=lambda face: _distance(face, last))
        self._last, self._missed = face, 0
        return face


def _distance(a: Face, b: Face) -> float:
    return float(np.hypot(a.x + a.w / 2 - b.x - b.w / 2, a.y + a.h / 2 - b.y - b.h / 2))


def _same_place(a: Face, b: Face) -> bool:
    return _distance(a, b) < 0.8 * max(b.w, b.h) and 0.5 < a.h / b.h < 2


def _framing(face: Face, width: int, height: int) -> Floats:
    """(centre x, centre y, side) of the ideal crop of a face that lies inside the picture."""
    most = min(width, height)
    side = min(max(face.h / _FACE_PART, _MIN_SIDE), most)
    x = face.x + face.w / 2
    y = face.y + face.h / 2 + (0.5 - _FACE_LEVEL) * side
    return np.array([_clamp(x, side / 2, width - side / 2), _clamp(y, side / 2, height - side / 2), side])


def _clamp(value: float, low: float, high: float) -> float:
    return max(low, min(value, high))


def _whole(place: Floats | None, width: int, height: int) -> Crop:
    """A place in whole pixels, inside the picture; without one the centre square."""
    if place is None:
        return centre_square(width, height)
    side = min(round(float(place[2])), width, height)
    x, y = (round(float(centre) - side / 2) for centre in place[:2])
    return Crop(min(max(x, 0), width - side), min(max(y, 0), height - side), side)


class _Camera:
    """A place (centre x, centre y, side) that stands still, or travels to a goal with limited speed and
    acceleration. Where the goal lies depends on how much of the future is known."""

    def __init__(self, fps: float) -> None:
        # In sides a frame. Half of a zoom step reaches an edge, so that no edge moves faster than
        # 0.8 % + 0.4 % / 2 of the side.
        self._speed = np.array([0.008, 0.008, 0.004]) * min(1.0, 30.0 / fps)
        self._place: Floats | None = None
        self._velocity = np.zeros(3)
        self._goal: Floats | None = None

    def step(self, wanted: Floats | None, lead: int = 0) -> Floats | None:
        """The place of the next frame. ``wanted`` (n, 3): the ideal place now and, as far as they are known,
        in the frames that follow; None while nobody is to be seen. ``lead``: by how many frames to be early.
        """
        if wanted is None:
            self._goal, self._velocity = None, np.zeros(3)
        elif self._place is None or _shift(wanted[0], self._place) > _OUT_OF_SIGHT:
            self._place = _longest_stand(wanted)
            self._goal, self._velocity = None, np.zeros(3)
        else:
            ahead = wanted[min(lead, len(wanted) - 1) :]
            if not _within(ahead[0], self._place if self._goal is None else self._goal):
                self._goal = _longest_stand(ahead)
        if self._place is not None and self._goal is not None:
            self._travel(self._place, self._goal)
        return self._place

    def _travel(self, place: Floats, goal: Floats) -> None:
        side = place[2]
        missing = (goal - place) / side
        pull = np.clip(0.1 * missing, -self._speed, self._speed)
        self._velocity += np.clip(pull - self._velocity, -self._speed / 8, self._speed / 8)
        self._place = place + self._velocity * side
        if np.abs(missing).max() < 0.005:
            self._goal, self._velocity = None, np.zeros(3)


def _shift(wanted: Floats, place: Floats) -> float:
    return float(np.abs(wanted[:2] - place[:2]).max() / place[2])


def _within(wanted: Floats, place: Floats) -> bool:
    return _shift(wanted, place) <= _DEAD_ZONE and abs(np.log(wanted[2] / place[2])) <= _DEAD_ZOOM


def _longest_stand(wanted: Floats) -> Floats:
    """The middle of the longest beginning of ``wanted`` for which one place can serve."""
    low = np.minimum.accumulate(wanted, axis=0)
    high = np.maximum.accumulate(wanted, axis=0)
    # A little less than the dead zone itself, so that the next frame does not at once lie outside.
    spread = (high - low)[:, :2].max(axis=1) / low[:, 2]
    fits = (spread <= 1.6 * _DEAD_ZONE) & (np.log(high[:, 2] / low[:, 2]) <= 1.6 * _DEAD_ZOOM)
    last = len(fits) - 1 if fits.all() else max(int(np.argmin(fits)) - 1, 0)
    return (low[last] + high[last]) / 2
