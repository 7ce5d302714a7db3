"""Shots of a video: where one ends and another begins, at once (a cut) or gradually (a dissolve or fade).

The thresholds lie between what single shots of moving speakers reach (every eighth of 383 clips) and what changes of
shot do.
"""

from collections.abc import Sequence

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
GRADUAL_S = (0.5, 1.0)
"""Seconds that a dissolve may take."""
MIN_GRADUAL_CHANGE, MIN_GRADUAL_RATIO, GRADUAL_STILL = 25.0, 4.0, 2.0
"""As above, for the change during a dissolve against that in as many seconds before and after it. Speakers reach a
ratio of 3."""


class ShotDetector:
    """Finds the changes of shot of a video, picture by picture."""

    def __init__(self, fps: float = 25.0) -> None:
        self._fps = fps
        self._last: NDArray[np.int16] | None = None
        self._changes: list[float] = []
        self._kept: list[NDArray[np.uint8]] = []

    def add(self, picture: Picture, repeated: bool = False) -> bool:
        """Take the next picture; return whether it seems to be the first after a cut, as far as the pictures before it
        tell. A `repeated` picture costs nothing."""
        if repeated and self._kept:
            self._changes.append(0.0)
            self._kept.append(self._kept[-1])
            return False
        small = cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        self._kept.append(cv2.resize(small, (KEPT_SIDE, KEPT_SIDE), interpolation=cv2.INTER_AREA))
        levels = small.astype(np.int16)
        change = 0.0 if self._last is None else float(np.abs(levels - self._last).mean())
        self._last = levels
        self._changes.append(change)
        return _sticks_out(change, self._changes[-1 - NEIGHBOURS : -1])

    def shots(self) -> list[int]:
        """Numbers of the first pictures of all shots; of a dissolve the middle."""
        changes, reach = self._changes, NEIGHBOURS
        cuts = {
            n
            for n in range(1, len(changes))
            if _sticks_out(changes[n], [*changes[max(0, n - reach) : n], *changes[n + 1 : n + 1 + reach]])
        }
        for seconds in GRADUAL_S:
            cuts |= self._dissolves(max(2, round(seconds * self._fps)), cuts)
        return [0, *sorted(cuts)]

    def _dissolves(self, length: int, cuts: set[int]) -> set[int]:
        """Middles of gradual changes within `length` pictures that hold no cut."""
        if len(self._kept) <= 2 * length:
            return set()
        kept = np.stack(self._kept)
        change = np.array(
            [np.abs(a.astype(np.int16) - b).mean() for a, b in zip(kept[length:], kept[:-length], strict=True)]
        )
        found: set[int] = set()
        for n in np.argsort(-change).tolist():
            if change[n] < MIN_GRADUAL_CHANGE:
                break
            if (
                n < length
                or n + length >= len(change)
                or any(n - length < cut <= n + 2 * length for cut in cuts | found)
            ):
                continue
            around = max(GRADUAL_STILL, float(change[n - length]), float(change[n + length]))
            if change[n] >= MIN_GRADUAL_RATIO * around:
                found.add(n + length // 2)
        return found


def _sticks_out(change: float, neighbours: Sequence[float]) -> bool:
    return change >= max(MIN_CHANGE, MIN_RATIO * max([STILL, *neighbours]))
