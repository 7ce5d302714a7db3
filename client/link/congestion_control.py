"""Congestion control: adapts what a link sends to what the receiver reports.

The rates form a ladder. Going down, first a message holds more frames (fewer headers, more delay), then motion is
coarser and sources are slower and smaller, then fewer frames are sent per second. A queue on the path, or at our end,
is congestion and goes down. Loss alone goes no further than fewer headers, because a lower rate does not help a bad
radio link. Instead frames are repeated: once, or twice if more than every fifth message is lost. The last rung always
fits, so video never stalls.

Pure: time is passed in, in seconds.
"""

from dataclasses import dataclass, replace

QUEUED_S = 0.15
"""Queueing delay above which two consecutive reports mean congestion."""
FULL_S = 0.4
"""Queueing delay above which a single report means two steps down."""
LOSSY, CLEAN = 0.02, 0.005
"""Smoothed share of lost messages above which frames are repeated, and below which repetition ends."""
HEAVY_LOSS = 0.22
"""Smoothed share of lost messages above which frames are repeated twice."""
SETTLE_S = 1.0
"""After a step down there is no other for this long, nor while the queue shrinks."""
SILENCE_S = 2.5
"""Without a report for this long, the path is considered interrupted in one direction or both."""
FIRST_PATIENCE_S, MAX_PATIENCE_S = 4.0, 60.0
"""Time without congestion before a step up; doubled, up to the latter, whenever a step up fails."""
FAILED_S = 6.0
"""A step up has failed if a step down follows within this time."""


@dataclass(frozen=True)
class SendParameters:
    message_frames: int
    """New frames per motion message, at 25 camera frames per second (send.FRAME_MS)."""
    stride: int
    """Send every Nth camera frame."""
    coarseness: int
    """The quantiser steps are 2 ** coarseness times the usual ones."""
    source_kbps: float
    """Rate limit of sources."""
    repeats: int = 0
    """Each message repeats the frames of this many messages before it."""


LADDER = (
    SendParameters(4, 1, 0, 8.0),
    SendParameters(5, 1, 0, 5.0),
    SendParameters(5, 1, 1, 3.0),
    SendParameters(3, 2, 1, 2.0),
    SendParameters(2, 4, 1, 1.5),
    SendParameters(2, 6, 2, 1.0),
)
"""At 25 frames/s about 10, 8.5, 7, 4.5, 3 and 2 kbps of motion, headers included. The first frame of a message waits
120 ms for the last one on the first rung, then 160, and 240 on the last rung: with fewer frames per second there are
fewer per message, too."""
RUNG_KBPS = (10.0, 8.5, 7.0, 4.5, 3.0, 2.0)
"""Motion on each rung, kbps, headers included."""
LOSS_RUNG = 1
"""The lowest rung that loss alone leads to."""
LOSSY_FRAMES = 2
"""New frames per message on the first rung while frames are repeated; one more on the second. A frame that is repeated
once then arrives no later than the first frame of a message of four, so that loss does not change the delay."""
SMALL_RUNG = 2
"""From this rung on down sources are small, until the first rung is reached again."""


class CongestionControl:
    """Chooses the SendParameters of one link."""

    def __init__(self) -> None:
        self._rung = 0
        self._uncongested_s: float | None = None
        self._patience_s = FIRST_PATIENCE_S
        self._raised_s: float | None = None
        self._lowered_s = -SETTLE_S
        self._bad_reports = 0
        self._queued_s = 0.0
        self._loss = 0.0
        self._repeats = 0
        self.max_kbps: float | None = None
        """Limit of motion and sources together, set by the user; the last rung may exceed it."""
        self.small = False
        """Whether sources must be small."""
        self._reported_s: float | None = None
        self._before_silence: int | None = None

    @property
    def sending(self) -> SendParameters:
        number = self._rung if self.max_kbps is None else max(self._rung, _rung_within(self.max_kbps))
        rung, repeats = LADDER[number], self._repeats
        frames = rung.message_frames
        if self.max_kbps is not None:
            repeats = max(0, min(repeats, int(self.max_kbps / RUNG_KBPS[number]) - 1))
        if repeats and number <= LOSS_RUNG:
            frames = LOSSY_FRAMES + number
        return replace(rung, message_frames=frames, repeats=repeats)

    @property
    def loss(self) -> float:
        """Smoothed share of lost messages, 0..1."""
        return self._loss

    @property
    def congested(self) -> bool:
        """Whether there is a queue on the path, or a rung is in use that only a queue leads to."""
        return self._queued_s > QUEUED_S or self._rung > LOSS_RUNG

    def report(self, now_s: float, lost: float, queued_s: float, blocked: bool = False) -> None:
        """Take a report of the receiver. `lost`: share of the messages since the report before that were lost (0..1);
        `queued_s`: queueing delay on the path; `blocked`: whether messages had to wait at our own end."""
        self._reported_s = now_s
        if self._before_silence is not None:  # the silence was an outage, not congestion
            self._rung, self._before_silence = self._before_silence, None
            self._bad_reports = 0
            self._uncongested_s = now_s
            return
        congested = queued_s > QUEUED_S or blocked
        if not congested:  # losses of a full queue do not call for repetition
            self._loss += 0.2 * (lost - self._loss)
        once = self._loss > (CLEAN if self._repeats else LOSSY)
        twice = self._loss > (HEAVY_LOSS / 2 if self._repeats == 2 else HEAVY_LOSS)
        self._repeats = int(once) + int(twice)
        heavy = self._loss > HEAVY_LOSS and self._rung < LOSS_RUNG
        self._bad_reports = self._bad_reports + 1 if congested or heavy else 0
        drains = queued_s < self._queued_s or now_s - self._lowered_s < SETTLE_S
        self._queued_s = queued_s
        if queued_s > FULL_S and not drains:
            self._step_down(now_s, 2)
        elif self._bad_reports >= 2 and not drains:
            self._step_down(now_s, 1)
        elif self._bad_reports:
            self._uncongested_s = None
        else:
            self._step_up(now_s)

    def silence(self, now_s: float) -> None:
        """Go down to the last rung if reports have stopped. Call it several times a second."""
        if self._reported_s is not None and now_s - self._reported_s > SILENCE_S and self._before_silence is None:
            self._before_silence = self._rung
            self._rung = len(LADDER) - 1

    def _step_down(self, now_s: float, rungs: int) -> None:
        if self._raised_s is not None and now_s - self._raised_s < FAILED_S:
            self._patience_s = min(2 * self._patience_s, MAX_PATIENCE_S)
        self._raised_s = self._uncongested_s = None
        self._lowered_s = now_s
        self._rung = min(self._rung + rungs, len(LADDER) - 1)
        self.small |= self._rung >= SMALL_RUNG
        self._bad_reports = 0

    def _step_up(self, now_s: float) -> None:
        if self._uncongested_s is None:
            self._uncongested_s = now_s
        elif self._rung > 0 and now_s - self._uncongested_s >= self._patience_s:
            if self._rung <= LOSS_RUNG and self._loss > HEAVY_LOSS:
                return
            self._rung -= 1
            self.small &= self._rung > 0
            self._raised_s = self._uncongested_s = now_s
        elif self._raised_s is not None and now_s - self._raised_s >= FAILED_S:
            self._patience_s, self._raised_s = FIRST_PATIENCE_S, None


def _rung_within(max_kbps: float) -> int:
    """The highest rung whose motion and sources fit; the last one if none does."""
    costs = [motion + rung.source_kbps for motion, rung in zip(RUNG_KBPS, LADDER, strict=True)]
    return next((number for number, cost in enumerate(costs) if cost <= max_kbps), len(LADDER) - 1)
