"""Jitter buffer of a peer's frames: decides when each frame is shown.

A frame captured at t on the sender's clock is shown at t + delay on ours. The delay covers what nearly all frames of
the last seconds needed, so it follows jitter, losses that repetition repairs, and clock drift. It grows at once and
shrinks slowly, so that the picture does not stutter. Lost frames are interpolated between their neighbours in keypoint
space; without a later neighbour the last picture is held. Late frames are dropped.

Pure: time is passed in. All times are in seconds.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

WINDOW_S = 6.0
"""Window over which transit times determine the delay."""
FASTEST_S = 12.0
"""Window over which the fastest transit is taken."""
EMPTY_S = 30.0
"""Window over which the transit time of an empty path is taken. Longer than a queue persists, because the queue is
measured against it."""
SHARE = 0.995
"""Share of frames, of those in the window, that the delay lets arrive in time."""
MARGIN_S = 0.005
"""Added to the delay, for the timing of the event loop."""
MAX_WAIT_S = 0.8
"""Frames that take this much longer than the fastest do not raise the delay."""
SHRINK = 0.08
"""Rate at which the delay shrinks, seconds per second: the picture runs 8 % fast meanwhile."""
MAX_BRIDGE_S = 0.5
"""Longest gap that is interpolated; across a longer one the head would glide."""
LATEST_BRIDGE_S = 0.02
"""Interpolated frames that are later than this are skipped."""
MAX_WAITING = 256
"""Maximum number of frames in the buffer; the oldest are dropped first."""


@dataclass(frozen=True)
class TimedFrame:
    """A decoded motion frame."""

    number: int
    stamp_s: float
    """Capture time on the sender's clock."""
    keypoints: NDArray[np.float32]
    reference_source: int | None = None
    """Slot of the reference source; None: the nearest in pose."""
    regions: tuple[int | None, ...] = ()
    """Slot of the source that each region shows; None: the reference source."""


@dataclass(frozen=True)
class DueFrame:
    """A frame to render now."""

    frame: TimedFrame
    due_s: float
    """When to show it, on our clock."""
    interpolated: bool


class VideoJitterBuffer:
    def __init__(self) -> None:
        self.render_s = 0.0
        """Time that rendering takes: frames are handed out this long before they are due."""
        self._transits: deque[tuple[float, float]] = deque(maxlen=2 * MAX_WAITING)
        """(arrival, transit) of frames; a transit is a difference of the two clocks."""
        self._minima: deque[tuple[float, float]] = deque(maxlen=2 * MAX_WAITING)
        """(arrival, shortest transit) of messages."""
        self._empty: deque[tuple[float, float]] = deque()
        """(arrival, transit) of messages that were faster than all later ones."""
        self._needed: float | None = None
        self._delay: float | None = None
        self._adapted_s = 0.0
        self._waiting: dict[int, TimedFrame] = {}
        self._known: dict[int, None] = {}
        self._last: TimedFrame | None = None

    @property
    def delay_s(self) -> float:
        """From capture to display, as a difference of the two clocks; 0 before the first frame."""
        return self._delay or 0.0

    @property
    def fastest_s(self) -> float | None:
        """Shortest transit of the last FASTEST_S, as a difference of the two clocks; None before the first frame."""
        return min((transit for _, transit in self._minima), default=None)

    @property
    def empty_s(self) -> float:
        """Shortest transit of the last EMPTY_S, as a difference of the two clocks; 0 before the first frame."""
        return self._empty[0][1] if self._empty else 0.0

    @property
    def waiting(self) -> int:
        """Number of frames in the buffer."""
        return len(self._waiting)

    def queued_s(self, now_s: float, window_s: float) -> float:
        """Queueing delay on the path: how much longer than `empty_s` the fastest frame of the last `window_s` took."""
        recent = [transit for arrived, transit in self._minima if arrived > now_s - window_s]
        return min(recent) - self.empty_s if recent else 0.0

    def push(self, frames: Iterable[TimedFrame], arrived_s: float) -> int:
        """Take the frames of a message, in order. Duplicates are ignored. Returns how many frames were late."""
        late = 0
        new = [frame for frame in frames if frame.number not in self._known]
        for frame in new:
            self._known[frame.number] = None
            if self._last is not None and (frame.number <= self._last.number or frame.stamp_s < self._last.stamp_s):
                late += 1
            else:
                self._waiting[frame.number] = frame
        while len(self._known) > 4 * MAX_WAITING:
            del self._known[next(iter(self._known))]
        while len(self._waiting) > MAX_WAITING:
            del self._waiting[min(self._waiting)]
        if new:
            self._record_transits(new, arrived_s)
        return late

    def relearn(self) -> None:
        """Forget the transit times, after conditions have changed."""
        self._transits.clear()
        self._minima.clear()
        self._needed = self._delay = None

    def new_path(self) -> None:
        """Forget the fastest transits: frames take another network path from now on."""
        self._minima.clear()
        self._empty.clear()

    def next_s(self, now_s: float) -> float | None:
        """When `pop` will return a frame; None if that needs another message."""
        first = next(self._timeline(now_s), None)
        return None if first is None else self._due(first[0]) - self.render_s

    def pop(self, now_s: float) -> DueFrame | None:
        """The newest frame that is due, if any; older ones are skipped."""
        self._adapt_delay(now_s)
        ready: tuple[TimedFrame, bool] | None = None
        for item in self._timeline(now_s):
            if self._due(item[0]) - self.render_s > now_s:
                break
            ready = item
        if ready is None:
            return None
        self._last, interpolated = ready
        self._waiting = {number: frame for number, frame in self._waiting.items() if number > self._last.number}
        return DueFrame(self._last, self._due(self._last), interpolated)

    def _timeline(self, now_s: float) -> Iterator[tuple[TimedFrame, bool]]:
        """The frames to show, as far as they are known now, each with whether it is interpolated."""
        previous = self._last
        for number in sorted(self._waiting):
            frame = self._waiting[number]
            if previous is not None and frame.stamp_s - previous.stamp_s <= MAX_BRIDGE_S:
                for missing in range(previous.number + 1, number)[:MAX_WAITING]:
                    bridge = _interpolated(previous, frame, missing)
                    if self._due(bridge) - self.render_s >= now_s - LATEST_BRIDGE_S:
                        yield bridge, True
            yield frame, False
            previous = frame

    def _due(self, frame: TimedFrame) -> float:
        return frame.stamp_s + self.delay_s

    def _record_transits(self, new: list[TimedFrame], arrived_s: float) -> None:
        transits = [arrived_s - frame.stamp_s for frame in new]
        self._transits.extend((arrived_s, transit) for transit in transits)
        self._minima.append((arrived_s, min(transits)))
        while self._empty and self._empty[-1][1] >= min(transits):
            self._empty.pop()
        self._empty.append((arrived_s, min(transits)))
        _discard_before(self._empty, arrived_s - EMPTY_S)
        _discard_before(self._transits, arrived_s - WINDOW_S)
        _discard_before(self._minima, arrived_s - FASTEST_S)
        fastest = min(transit for _, transit in self._minima)
        bounded = [transit for _, transit in self._transits if transit <= fastest + MAX_WAIT_S]
        if bounded:
            self._needed = float(np.quantile(bounded, SHARE)) + MARGIN_S
        self._adapt_delay(arrived_s)

    def _adapt_delay(self, now_s: float) -> None:
        if self._needed is not None:
            shrunk = self.delay_s - SHRINK * max(0.0, now_s - self._adapted_s)
            target = self._needed + self.render_s
            self._delay = target if self._delay is None else max(target, shrunk)
        self._adapted_s = now_s


def _interpolated(a: TimedFrame, b: TimedFrame, number: int) -> TimedFrame:
    share = (number - a.number) / (b.number - a.number)
    stamp_s = a.stamp_s + share * (b.stamp_s - a.stamp_s)
    return replace(interpolate(a, b, share), number=number, stamp_s=stamp_s)


def interpolate(a: TimedFrame, b: TimedFrame, share: float) -> TimedFrame:
    """The nearer frame, with keypoints at `share` (0..1) of the way from `a` to `b`. Keypoints of different reference
    sources cannot be mixed: if it changes, they are those of the nearer frame, too."""
    nearer = a if share < 0.5 else b
    if a.reference_source != b.reference_source:
        return nearer
    return replace(nearer, keypoints=a.keypoints + np.float32(share) * (b.keypoints - a.keypoints))


def _discard_before(arrivals: deque[tuple[float, float]], before_s: float) -> None:
    while arrivals[0][0] < before_s:
        arrivals.popleft()
