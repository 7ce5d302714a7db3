"""A square crop that follows the speaker's face.

A moving crop moves the whole background, which costs bits and makes the source pictures stale. So the crop has
hysteresis: it stands still until the face has left a tolerance around its place, then moves slowly and smoothly to a
new place, and stands still again.
"""

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.errors import NoFaceError, OptionError
from iwcodec.codec.media.crop.face_detector import DETECT_EVERY, Face
from iwcodec.codec.media.crop.square import MIN_SIDE, Crop, centre_square

Place = NDArray[np.float64]
"""Centre x, centre y and side of a crop in pixels: (3,); of several frames: (n, 3)."""

FACE_HEIGHT = 0.5
"""Height of the face in sides of the crop: shows head and shoulders."""
FACE_LEVEL = 0.48
"""Distance of the face's centre from the top of the crop, in sides: leaves room above the head."""
SHIFT_HYSTERESIS = 0.12
"""Distance in sides, per axis, that the face may move before the crop does."""
ZOOM_HYSTERESIS = 0.25
"""Natural logarithm of the factor by which the face's size may change before the crop does."""
MAX_SHIFT = 0.6
"""Distance in sides beyond which the crop jumps to the face: it is hardly in the crop any more."""
MAX_MISSES = 6
"""Detections without the followed face before another face is followed."""
LOST_MISSES = 3
"""Detections without the followed face before a live crop stops moving."""
SETTLED = 0.005
"""Distance to the goal in sides at which the crop stops."""
LEAD_S = 0.6
"""Seconds by which a planned crop starts to move before the face does."""


@dataclass(frozen=True)
class FaceChoice:
    """Which of several faces is the speaker's. By default the largest."""

    number: int | None = None
    """Counted from the left, from 1. With fewer faces the last one is taken, but only once a frame has had so many."""
    point: tuple[int, int] | None = None
    """The face whose centre is nearest to (x, y) in pixels."""

    def pick(self, faces: Sequence[Face], followed_before: bool) -> Face | None:
        """Return the face to follow from now on. `followed_before`: whether one was, in an earlier frame."""
        if self.point is not None:
            point = Face(*self.point, 0, 0, 0)
            return min(faces, key=lambda face: _distance(face, point))
        if self.number is None:
            return max(faces, key=lambda face: face.w * face.h)
        if len(faces) < self.number and not followed_before:
            return None
        return sorted(faces, key=lambda face: face.x + face.w / 2)[min(self.number, len(faces)) - 1]


LARGEST = FaceChoice()


def parse_face(text: str) -> FaceChoice:
    """Parse "largest", a number ("2") or a point in pixels ("X,Y"). Raises OptionError."""
    if text == "largest":
        return LARGEST
    numbers = re.fullmatch(r"\s*(\d{1,6})\s*(?:,\s*(\d{1,6})\s*)?", str(text))
    if numbers is None or (numbers[2] is None and int(numbers[1]) < 1):
        raise OptionError(f'"{text}" is not a face: give largest, a number from 1 (from the left), or X,Y in pixels.')
    if numbers[2] is None:
        return FaceChoice(number=int(numbers[1]))
    return FaceChoice(point=(int(numbers[1]), int(numbers[2])))


class CropTracker:
    """The crop of a live picture, without look-ahead.

    Until a face is found the crop is the centre square; the first face is framed at once. From then on no edge moves by
    more than 1 % of the side (and rounding to whole pixels) per frame, and the crop stays while no face is found. It
    jumps only to a face that has left it altogether, or to another speaker elsewhere in the picture.
    """

    def __init__(self, width: int, height: int, fps: float = 25.0) -> None:
        """`width` and `height` of the picture; `fps` sets the speed."""
        self._size = width, height
        self._speaker = _SpeakerTracker()
        self._recent: deque[Place] = deque(maxlen=3)
        self._motion = _CropMotion(fps)

    def update(self, faces: Sequence[Face] | None) -> Crop:
        """Return the crop of the next frame. `faces`: the faces detected in it, or None if the detector did not run:
        one frame in DETECT_EVERY is enough."""
        if faces is not None:
            face = self._speaker.pick(faces)
            if face is not None:
                self._recent.append(_ideal_place(face, *self._size))
            elif self._speaker.lost:
                self._recent.clear()
        ideal = np.median(self._recent, axis=0)[None] if self._recent else None
        return _rounded(self._motion.step(ideal), *self._size)


def plan_crops(
    faces: Sequence[Sequence[Face] | None],
    width: int,
    height: int,
    fps: float = 25.0,
    choice: FaceChoice = LARGEST,
    shots: Sequence[int] = (0,),
) -> list[Crop]:
    """Return the crop of every frame of a file, as CropTracker does but with look-ahead: the crop is placed where it
    can stay longest, starts to move before the speaker does, and never moves if one place serves the whole file.

    `faces` has one entry per frame, as for `CropTracker.update`. `shots`: numbers of the first frames of the shots, in
    which the speaker is looked for anew; without a face in one, its crop is the centre square. Raises NoFaceError if no
    frame has a face, or none has as many as `choice` counts.
    """
    speaker, crops = _SpeakerTracker(choice), []
    for begin, end in zip(shots, [*shots[1:], len(faces)], strict=True):
        speaker.cut()
        places = _ideal_places(speaker, faces[begin:end], width, height)
        crops += _shot_crops(places, end - begin, width, height, fps)
    if not speaker.followed:
        most = max((len(detected) for detected in faces if detected), default=0)
        if most:
            raise NoFaceError(f"There is no face {choice.number}: at most {most} are in the video at once.")
        raise NoFaceError("No face was found in the video: choose a fixed crop (none, or X,Y,SIDE).")
    return crops


def _shot_crops(places: Sequence[Place], count: int, width: int, height: int, fps: float) -> list[Crop]:
    if not places:
        return [centre_square(width, height)] * count
    ideal = _median_filtered(places)
    lead = round(LEAD_S * fps)
    motion = _CropMotion(fps)
    return [_rounded(motion.step(ideal[n:], lead), width, height) for n in range(count)]


def _ideal_places(
    speaker: "_SpeakerTracker", faces: Sequence[Sequence[Face] | None], width: int, height: int
) -> list[Place]:
    """Return for each frame of a shot the ideal place for the speaker's latest detection, or the first one if there is
    none yet; nothing if there is none at all."""
    places: list[Place | None] = []
    for detected in faces:
        face = None if detected is None else speaker.pick(detected)
        if face is not None:
            places.append(_ideal_place(face, width, height))
        else:
            places.append(places[-1] if places else None)
    first = next((place for place in places if place is not None), None)
    return [] if first is None else [first if place is None else place for place in places]


def _median_filtered(places: Sequence[Place]) -> Place:
    """Return medians over three detections (n, 3): one wrong detection does not move the crop."""
    values = np.stack(places)
    reach = DETECT_EVERY
    padded = np.pad(values, ((reach, reach), (0, 0)), mode="edge")
    count = len(values)
    return np.median([padded[:count], values, padded[2 * reach : 2 * reach + count]], axis=0)


class _SpeakerTracker:
    """Pick the speaker among the detected faces: the one nearest to the last place; at first the one chosen."""

    def __init__(self, choice: FaceChoice = LARGEST) -> None:
        self._choice = choice
        self.followed = False
        """Whether a face has been followed."""
        self._last: Face | None = None
        self._misses = 0

    @property
    def lost(self) -> bool:
        return self._misses >= LOST_MISSES

    def pick(self, faces: Sequence[Face]) -> Face | None:
        near = [face for face in faces if self._last is None or _same_place(face, self._last)]
        if not near and self._misses >= MAX_MISSES:
            near, self._last = list(faces), None
        if not near:
            self._misses += 1
            return None
        last = self._last
        if last is None:
            face = self._choice.pick(near, self.followed)
        else:
            face = min(near, key=lambda face: _distance(face, last))
        if face is not None:
            self._last, self._misses, self.followed = face, 0, True
        return face

    def cut(self) -> None:
        """Another shot begins: any face may be the speaker's."""
        self._last, self._misses = None, 0


def _distance(a: Face, b: Face) -> float:
    return float(np.hypot(a.x + a.w / 2 - b.x - b.w / 2, a.y + a.h / 2 - b.y - b.h / 2))


def _same_place(a: Face, b: Face) -> bool:
    return _distance(a, b) < 0.8 * max(b.w, b.h) and 0.5 < a.h / b.h < 2


def _ideal_place(face: Face, width: int, height: int) -> Place:
    """Return the place of the ideal crop of a face, inside the picture."""
    side = min(max(face.h / FACE_HEIGHT, MIN_SIDE), min(width, height))
    x = face.x + face.w / 2
    y = face.y + face.h / 2 + (0.5 - FACE_LEVEL) * side
    return np.array([_clamp(x, side / 2, width - side / 2), _clamp(y, side / 2, height - side / 2), side])


def _clamp(value: float, low: float, high: float) -> float:
    return max(low, min(value, high))


def _rounded(place: Place | None, width: int, height: int) -> Crop:
    """Round a place to whole pixels inside the picture; None gives the centre square."""
    if place is None:
        return centre_square(width, height)
    side = min(round(float(place[2])), width, height)
    x, y = (round(float(centre) - side / 2) for centre in place[:2])
    return Crop(min(max(x, 0), width - side), min(max(y, 0), height - side), side)


class _CropMotion:
    """A place that stands still, or moves to a goal with limited speed and acceleration."""

    def __init__(self, fps: float) -> None:
        # In sides per frame. Half of a zoom step reaches an edge, so that no edge moves faster than
        # 0.8 % + 0.4 % / 2 of the side.
        self._speed = np.array([0.008, 0.008, 0.004]) * min(1.0, 30.0 / fps)
        self._place: Place | None = None
        self._velocity = np.zeros(3)
        self._goal: Place | None = None

    def step(self, ideal: Place | None, lead: int = 0) -> Place | None:
        """Return the place of the next frame. `ideal` (n, 3): the ideal place in this frame and in those known to
        follow; None while the face is lost. `lead`: frames by which to move early."""
        if ideal is None:
            self._goal, self._velocity = None, np.zeros(3)
        elif self._place is None or _shift(ideal[0], self._place) > MAX_SHIFT:
            self._place = _longest_serving_place(ideal)
            self._goal, self._velocity = None, np.zeros(3)
        else:
            ahead = ideal[min(lead, len(ideal) - 1) :]
            if not _tolerable(ahead[0], self._place if self._goal is None else self._goal):
                self._goal = _longest_serving_place(ahead)
        if self._place is not None and self._goal is not None:
            self._move(self._place, self._goal)
        return self._place

    def _move(self, place: Place, goal: Place) -> None:
        side = place[2]
        missing = (goal - place) / side
        pull = np.clip(0.1 * missing, -self._speed, self._speed)
        self._velocity += np.clip(pull - self._velocity, -self._speed / 8, self._speed / 8)
        self._place = place + self._velocity * side
        if np.abs(missing).max() < SETTLED:
            self._goal, self._velocity = None, np.zeros(3)


def _shift(ideal: Place, place: Place) -> float:
    """Return the larger distance along an axis, in sides of `place`."""
    return float(np.abs(ideal[:2] - place[:2]).max() / place[2])


def _tolerable(ideal: Place, place: Place) -> bool:
    return _shift(ideal, place) <= SHIFT_HYSTERESIS and abs(np.log(ideal[2] / place[2])) <= ZOOM_HYSTERESIS


def _longest_serving_place(ideal: Place) -> Place:
    """Return the middle of the longest prefix of `ideal` (n, 3) that one place can serve."""
    low = np.minimum.accumulate(ideal, axis=0)
    high = np.maximum.accumulate(ideal, axis=0)
    # 0.8 of the tolerance on either side, so that the next frame is not outside at once.
    spread = (high - low)[:, :2].max(axis=1) / low[:, 2]
    fits = (spread <= 1.6 * SHIFT_HYSTERESIS) & (np.log(high[:, 2] / low[:, 2]) <= 1.6 * ZOOM_HYSTERESIS)
    last = len(fits) - 1 if fits.all() else max(int(np.argmin(fits)) - 1, 0)
    return (low[last] + high[last]) / 2
