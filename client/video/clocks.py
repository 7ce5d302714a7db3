"""The peer's clock against ours, from reports and their echoes (as in RFC 5905, section 8). Pure; local times in
seconds, times in messages in milliseconds."""

from collections import deque

KEPT_S = 30.0
MAX_TRIP_MS = 10_000


class Clocks:
    def __init__(self) -> None:
        self._last: tuple[int, float] | None = None
        self._samples: deque[tuple[float, float, float]] = deque(maxlen=128)

    def echo(self, now_s: float) -> tuple[int | None, float]:
        """For our next report: the sending time in the peer's last one, and how long ago it came."""
        return (None, 0.0) if self._last is None else (self._last[0], now_s - self._last[1])

    def take(self, now_ms: int, sent_ms: int, echo_ms: int | None, held_ms: int, now_s: float) -> None:
        """A report of the peer: `now_ms` on our stamps' clock, the others as in the report."""
        self._last = sent_ms, now_s
        if echo_ms is None:
            return
        trip_ms = now_ms - echo_ms - held_ms
        if 0 <= trip_ms <= MAX_TRIP_MS:
            self._samples.append((now_s, trip_ms, sent_ms + trip_ms / 2 - now_ms))
        while self._samples and self._samples[0][0] < now_s - KEPT_S:
            self._samples.popleft()

    @property
    def round_trip_s(self) -> float | None:
        """The shortest of late."""
        return min(trip for _, trip, _ in self._samples) / 1000 if self._samples else None

    def local_s(self, stamp_s: float) -> float | None:
        """A time on the peer's clock -> on our stamps' clock, by the report with the shortest round trip."""
        if not self._samples:
            return None
        _, _, ahead_ms = min(self._samples, key=lambda sample: sample[1])
        return stamp_s - ahead_ms / 1000
