"""Play-out: when each frame of a peer is shown, on the sender's clock.

A frame taken at t (sender's clock) is shown at t + delay (ours). The delay is what nearly all frames of the last
seconds needed to come, so it follows jitter, loss that repetitions mend, and clocks that drift; it grows at once and
shrinks slowly, that the picture does not stumble. Frames that never came are interpolated between their neighbours in
keypoint space, or, while there is no neighbour behind them, the last picture is held; what comes too late is dropped.

Pure: time is passed in. All times in seconds.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WINDOW_S = 6.0
"""How long an arrival counts for the delay."""
FASTEST_S = 12.0
"""How long one counts as the fastest, against which the others queued."""
EMPTY_S = 30.0
"""How long one counts as what an empty path takes. Longer than a queue stands: what it is measured by must not be
forgotten while it does."""
SHARE = 0.995
"""Of frames that come in time."""
MARGIN_S = 0.005
MAX_WAIT_S = 0.8
"""Frames that come this much later than the fastest are never waited for."""
SHRINK = 0.08
"""Seconds a second: the picture runs 8 % fast."""
MAX_BRIDGE_S = 0.5
"""A longer hole is not interpolated: the head would glide."""
LATEST_BRIDGE_S = 0.02
"""Interpolated frames are not worth showing later than this."""
MAX_WAITING = 256


@dataclass(frozen=True)
class TimedFrame:
    number: int
    stamp_s: float
    """When it was taken, on the sender's clock."""
    keypoints: NDArray[np.float32]
    reference_source: int | None = None
    """Slot of the source that leads; None: the nearest in pose."""


@dataclass(frozen=True)
class DueFrame:
    frame: TimedFrame
    due_s: float
    """When it has to be seen, on our clock."""
    interpolated: bool


class Playout:
    def __init__(self) -> None:
        self.lead_s = 0.0
        """How long before it is seen a frame has to be taken from here: the time that its reconstruction needs."""
        self._transits: deque[tuple[float, float]] = deque(maxlen=2 * MAX_WAITING)
        self._minima: deque[tuple[float, float]] = deque(maxlen=2 * MAX_WAITING)
        self._empty: deque[tuple[float, float]] = deque()
        """Arrivals that were faster than all after them."""
        self._needed: float | None = None
        self._delay: float | None = None
        self._adapted_s = 0.0
        self._waiting: dict[int, TimedFrame] = {}
        self._seen: dict[int, None] = {}
        self._last: TimedFrame | None = None

    @property
    def delay_s(self) -> float:
        """From being taken to being seen, as the difference of the two clocks; 0 while nothing has come."""
        return self._delay or 0.0

    @property
    def fastest_s(self) -> float | None:
        """The shortest transit of late, as the difference of the two clocks."""
        return min((transit for _, transit in self._minima), default=None)

    @property
    def empty_s(self) -> float:
        """The shortest transit of all that may still count, as the difference of the two clocks; 0 while nothing has
        come."""
        return self._empty[0][1] if self._empty else 0.0

    @property
    def waiting(self) -> int:
        """Frames that have come and are not due."""
        return len(self._waiting)

    def queued_s(self, now_s: float, window_s: float) -> float:
        """How much longer than on an empty path the quickest frame of the last `window_s` took: what queues there."""
        recent = [transit for arrived, transit in self._minima if arrived > now_s - window_s]
        return min(recent) - self.empty_s if recent else 0.0

    def push(self, frames: Iterable[TimedFrame], arrived_s: float) -> int:
        """Take the frames of a message, in order. Returns how many of them came too late; those that came before are
        passed over."""
        late = 0
        new = [frame for frame in frames if frame.number not in self._seen]
        for frame in new:
            self._seen[frame.number] = None
            if self._last is not None and (frame.number <= self._last.number or frame.stamp_s < self._last.stamp_s):
                late += 1
            else:
                self._waiting[frame.number] = frame
        while len(self._seen) > 4 * MAX_WAITING:
            del self._seen[next(iter(self._seen))]
        while len(self._waiting) > MAX_WAITING:
            del self._waiting[min(self._waiting)]
        if new:
            self._learn(new, arrived_s)
        return late

    def relearn(self) -> None:
        """Forget how long frames took: what comes from now on comes under other conditions."""
        self._transits.clear()
        self._minima.clear()
        self._needed = self._delay = None

    def new_path(self) -> None:
        """What comes from now on comes another way."""
        self._minima.clear()
        self._empty.clear()

    def next_s(self, now_s: float) -> float | None:
        """When `pop` will have something; None if only a further message can bring it."""
        first = next(self._timeline(now_s), None)
        return None if first is None else self._due(first[0]) - self.lead_s

    def pop(self, now_s: float) -> DueFrame | None:
        """The newest frame whose time has come; those before it are skipped."""
        self._adapt(now_s)
        ready: tuple[TimedFrame, bool] | None = None
        for item in self._timeline(now_s):
            if self._due(item[0]) - self.lead_s > now_s:
                break
            ready = item
        if ready is None:
            return None
        self._last, interpolated = ready
        self._waiting = {number: frame for number, frame in self._waiting.items() if number > self._last.number}
        return DueFrame(self._last, self._due(self._last), interpolated)

    def _timeline(self, now_s: float) -> Iterator[tuple[TimedFrame, bool]]:
        """What is to be shown, and whether it is interpolated, as far as it is known now."""
        before = self._last
        for number in sorted(self._waiting):
            frame = self._waiting[number]
            if before is not None and frame.stamp_s - before.stamp_s <= MAX_BRIDGE_S:
                for missing in range(before.number + 1, number)[:MAX_WAITING]:
                    between = _between(before, frame, missing)
                    if self._due(between) - self.lead_s >= now_s - LATEST_BRIDGE_S:
                        yield between, True
            yield frame, False
            before = frame

    def _due(self, frame: TimedFrame) -> float:
        return frame.stamp_s + self.delay_s

    def _learn(self, new: list[TimedFrame], arrived_s: float) -> None:
        transits = [arrived_s - frame.stamp_s for frame in new]
        self._transits.extend((arrived_s, transit) for transit in transits)
        self._minima.append((arrived_s, min(transits)))
        while self._empty and self._empty[-1][1] >= min(transits):
            self._empty.pop()
        self._empty.append((arrived_s, min(transits)))
        _forget(self._empty, arrived_s - EMPTY_S)
        _forget(self._transits, arrived_s - WINDOW_S)
        _forget(self._minima, arrived_s - FASTEST_S)
        fastest = min(transit for _, transit in self._minima)
        worth = [transit for _, transit in self._transits if transit <= fastest + MAX_WAIT_S]
        if worth:
            self._needed = float(np.quantile(worth, SHARE)) + MARGIN_S
        self._adapt(arrived_s)

    def _adapt(self, now_s: float) -> None:
        if self._needed is not None:
            shrunk = self.delay_s - SHRINK * max(0.0, now_s - self._adapted_s)
            target = self._needed + self.lead_s
            self._delay = target if self._delay is None else max(target, shrunk)
        self._adapted_s = now_s


def _between(a: TimedFrame, b: TimedFrame, number: int) -> TimedFrame:
    share = (number - a.number) / (b.number - a.number)
    stamp_s = a.stamp_s + share * (b.stamp_s - a.stamp_s)
    keypoints, reference_source = between(a, b, share)
    return TimedFrame(number, stamp_s, keypoints, reference_source)


def between(a: TimedFrame, b: TimedFrame, share: float) -> tuple[NDArray[np.float32], int | None]:
    """Keypoints and leading source, this share of the way from one frame to another. Keypoints carry the source that
    leads: where that changes, those of the nearer frame stay."""
    if a.reference_source != b.reference_source:
        nearer = a if share < 0.5 else b
        return nearer.keypoints, nearer.reference_source
    return a.keypoints + np.float32(share) * (b.keypoints - a.keypoints), a.reference_source


def _forget(arrivals: deque[tuple[float, float]], before_s: float) -> None:
    while arrivals[0][0] < before_s:
        arrivals.popleft()
