"""Offset between the peer's clock and ours, from reports and their echoes (as in RFC 5905, section 8).

Pure: time is passed in. Local times are in seconds, times in messages in milliseconds.
"""

from collections import deque

WINDOW_S = 30.0
"""Age from which on a sample is discarded."""
MAX_ROUND_TRIP_MS = 10_000
"""A longer measured round trip is discarded as implausible."""


class Clocks:
    def __init__(self) -> None:
        self._last_report: tuple[int, float] | None = None
        """(sent_ms of the peer's last report, when it arrived)"""
        self._samples: deque[tuple[float, float, float]] = deque(maxlen=128)
        """(arrival s, round trip ms, by how much the peer's clock is ahead of ours ms)"""

    def echo(self, now_s: float) -> tuple[int | None, float]:
        """For our next report: `sent_ms` of the peer's last report, None if there was none, and its age in seconds."""
        return (None, 0.0) if self._last_report is None else (self._last_report[0], now_s - self._last_report[1])

    def take(self, now_ms: int, sent_ms: int, echo_ms: int | None, held_ms: int, now_s: float) -> None:
        """Take a report of the peer. `now_ms` is its arrival on the clock of our own messages; the others are its
        fields (messages.Report)."""
        self._last_report = sent_ms, now_s
        if echo_ms is None:
            return
        round_trip_ms = now_ms - echo_ms - held_ms
        if 0 <= round_trip_ms <= MAX_ROUND_TRIP_MS:
            self._samples.append((now_s, round_trip_ms, sent_ms + round_trip_ms / 2 - now_ms))
        while self._samples and self._samples[0][0] < now_s - WINDOW_S:
            self._samples.popleft()

    @property
    def round_trip_s(self) -> float | None:
        """The shortest round trip of the last WINDOW_S; None before the first sample."""
        return min(trip for _, trip, _ in self._samples) / 1000 if self._samples else None

    def local_s(self, stamp_s: float) -> float | None:
        """Convert a time on the peer's clock to the clock of our own messages, using the sample with the shortest
        round trip; None before the first sample."""
        if not self._samples:
            return None
        _, _, ahead_ms = min(self._samples, key=lambda sample: sample[1])
        return stamp_s - ahead_ms / 1000
