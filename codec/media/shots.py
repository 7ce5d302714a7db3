"""Shots of a video: where one ends and another begins, at once (a cut) or gradually (a dissolve or fade).

The thresholds lie between what single shots of moving speakers reach (every eighth of 383 clips) and what changes of
shot do.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.media.types import Picture

SIDE, KEPT_SIDE = 32, 16
"""Pixels of the thumbnails that are compared at once, and of those that are kept: 768 bytes per picture."""
MIN_CHANGE = 6.0
"""Mean difference of thumbnails, in grey levels, of the pictures around a cut."""
MIN_RATIO = 3.5
"""A cut changes the picture by this factor more than any of the NEIGHBOURS changes before and after it. Speakers reach
1.9."""
NEIGHBOURS = 4
"""Changes compared on either side: flashes of so few pictures are no cuts."""
STILL = 1.0
"""Grey levels: smaller changes count as this."""
MIXTURES = ((2.0, 0.22), (1.0, 0.18), (0.5, 0.13))
"""(seconds, share): during a dissolve of at least so many seconds pictures are mixtures of the first and the last one,
up to this share of their difference. Single shots of speakers stay above 0.31, 0.26 and 0.18."""
GRADUAL_S = (0.5, 1.0)
"""Seconds of other gradual changes."""
MIN_GRADUAL_CHANGE, MIN_GRADUAL_RATIO, GRADUAL_STILL = 25.0, 4.0, 2.0
"""The same three bounds for a gradual change, compared with the change in as many seconds before and after it. Speakers
reach a ratio of 3."""


class ShotDetector:
    """Finds the changes of shot of a video, picture by picture."""

    def __init__(self, fps: float = 25.0) -> None:
        self._fps = fps
        self._last: NDArray[np.int16] | None = None
        self._changes: list[float] = []
        # One block: small arrays between the large ones of pictures would keep the heap from being used again.
        self._kept = bytearray()

    def add(self, picture: Picture, repeated: bool = False) -> bool:
        """Take the next picture; return whether it seems to be the first after a cut, as far as the pictures before it
        tell. A `repeated` picture costs nothing."""
        if repeated and self._kept:
            self._changes.append(0.0)
            self._kept += self._kept[-3 * KEPT_SIDE**2 :]
            return False
        small = cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        self._kept += cv2.resize(small, (KEPT_SIDE, KEPT_SIDE), interpolation=cv2.INTER_AREA).tobytes()
        levels = small.astype(np.int16)
        change = 0.0 if self._last is None else float(np.abs(levels - self._last).mean())
        self._last = levels
        self._changes.append(change)
        return _sticks_out(change, self._changes[-1 - NEIGHBOURS : -1])

    @property
    def _thumbnails(self) -> NDArray[np.uint8]:
        """Of all pictures: (n, KEPT_SIDE, KEPT_SIDE, 3)."""
        return np.frombuffer(bytes(self._kept), np.uint8).reshape(-1, KEPT_SIDE, KEPT_SIDE, 3)

    def shots(self) -> list[int]:
        """Numbers of the first pictures of all shots; of a dissolve the middle."""
        changes, reach, kept = self._changes, NEIGHBOURS, self._thumbnails
        spans = [
            (n, n)
            for n in range(1, len(changes))
            if _sticks_out(changes[n], [*changes[max(0, n - reach) : n], *changes[n + 1 : n + 1 + reach]])
        ]
        for seconds, share in MIXTURES:
            length = max(2, round(seconds * self._fps))
            _add_gradual(spans, kept, length, partial(_is_mixture, kept, length, share))
        for seconds in GRADUAL_S:
            length = max(2, round(seconds * self._fps))
            _add_gradual(spans, kept, length, partial(_stands_out, length))
        return [0, *sorted((start + end) // 2 for start, end in spans)]


def _add_gradual(
    spans: list[tuple[int, int]],
    kept: NDArray[np.uint8],
    length: int,
    is_change: Callable[[int, NDArray[np.float64]], bool],
) -> None:
    """Add the gradual changes within `length` pictures that are not near other `spans`, the greatest first.
    `kept`: thumbnails of all pictures. `is_change`: takes the first picture, and the differences over `length`
    pictures."""
    if len(kept) <= length:
        return
    change = np.array([_difference(a, b) for a, b in zip(kept[length:], kept[:-length], strict=True)])
    for n in np.argsort(-change).tolist():
        if change[n] < MIN_GRADUAL_CHANGE:
            break
        margins = [(start, end, max(length, end - start)) for start, end in spans]
        alone = not any(n - near < end and start <= n + length + near for start, end, near in margins)
        if alone and is_change(n, change):
            spans.append((n, n + length))


def _is_mixture(kept: NDArray[np.uint8], length: int, share: float, start: int, change: NDArray[np.float64]) -> bool:
    """Whether the pictures from `start` on are mixtures of the first and the last of them."""
    most = share * float(change[start])
    first, last = kept[start].astype(np.float32), kept[start + length].astype(np.float32)
    inner = (length // 4, length // 2, 3 * length // 4)
    return all(_difference(kept[start + n], first + (last - first) * n / length) <= most for n in inner)


def _difference(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Mean absolute difference in grey levels."""
    return float(np.abs(np.subtract(a, b, dtype=np.float32)).mean())


def _stands_out(length: int, n: int, change: NDArray[np.float64]) -> bool:
    """Whether the change over `length` pictures from the nth on exceeds those before and after it by far."""
    if n < length or n + length >= len(change):
        return False
    around = max(GRADUAL_STILL, float(change[n - length]), float(change[n + length]))
    return bool(change[n] >= MIN_GRADUAL_RATIO * around)


def _sticks_out(change: float, neighbours: Sequence[float]) -> bool:
    return change >= max(MIN_CHANGE, MIN_RATIO * max([STILL, *neighbours]))
