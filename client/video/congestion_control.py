"""How much a link is given to carry, from what its receiver reports.

A ladder of ways to send: first more frames a message (fewer headers, more delay), then coarser motion and slower and
smaller sources, then fewer frames a second. What queues on the way, or at our end, is congestion and goes down; loss by
itself goes no further than cheaper headers, for a bad radio does not get better by that, but frames are repeated: once,
and where more than every fifth message is lost, twice. The last rung always fits: there is no stall. Pure: time is
passed in, in seconds.
"""

from dataclasses import dataclass, replace

QUEUED_S = 0.15
"""A queue on the way that is longer than this, in two reports running, is congestion."""
FULL_S = 0.4
"""A queue longer than this, in one report, goes down two rungs at once."""
LOSSY, CLEAN = 0.02, 0.005
"""Smoothed share of lost messages from which on frames are repeated, and below which no longer."""
HEAVY_LOSS = 0.22
SETTLE_S = 1.0
"""After a step down its effect is waited for; and while the queue shrinks, there is no other."""
SILENCE_S = 2.5
"""Without a report for so long nothing gets through, or nothing comes back."""
FIRST_PATIENCE_S, MAX_PATIENCE_S = 4.0, 60.0
"""How long all has to be well before the next rung up is tried; doubled whenever that fails."""
FAILED_S = 6.0
"""A step up that has to be taken back this soon has failed."""


@dataclass(frozen=True)
class Sending:
    message_frames: int
    stride: int
    """Every how manieth camera frame is sent."""
    coarseness: int
    """The quantiser's steps are 2 ** coarseness times the usual ones."""
    source_kbps: float
    repeats: int = 0
    """Each message holds the frames of so many before it, too."""


LADDER = (
    Sending(4, 1, 0, 8.0),
    Sending(5, 1, 0, 5.0),
    Sending(5, 1, 1, 3.0),
    Sending(3, 2, 1, 2.0),
    Sending(2, 4, 1, 1.5),
    Sending(2, 6, 2, 1.0),
)
"""At 25 frames/s about 10, 8.5, 7, 4.5, 3 and 2 kbps of motion, headers included. The first frame of a message waits
for its last for 120 ms, then 160, on the last rung 240: fewer frames a second are fewer a message, too."""
LOSS_RUNG = 1
LOSSY_FRAMES = 2
"""In a message of the first rung, and one more of the second, where frames are repeated: repeated once, a frame is then
there no later after it was taken than the first one of a message of four, so that loss does not change the delay."""
SMALL_RUNG = 2
"""From here on down sources are small, until the first rung is reached again."""


class RateControl:
    def __init__(self) -> None:
        self._rung = 0
        self._well_since: float | None = None
        self._patience_s = FIRST_PATIENCE_S
        self._raised_s: float | None = None
        self._lowered_s = -SETTLE_S
        self._bad_reports = 0
        self._queued_s = 0.0
        self._loss = 0.0
        self._repeats = 0
        self.small = False
        """Whether sources have to be small ones."""
        self._reported_s: float | None = None
        self._before_silence: int | None = None

    @property
    def sending(self) -> Sending:
        rung = LADDER[self._rung]
        frames = rung.message_frames
        if self._repeats and self._rung <= LOSS_RUNG:
            frames = LOSSY_FRAMES + self._rung
        return replace(rung, message_frames=frames, repeats=self._repeats)

    @property
    def loss(self) -> float:
        """Smoothed share of lost messages, 0..1."""
        return self._loss

    @property
    def congested(self) -> bool:
        """Whether there is a queue on the way, or was but for having gone down further than losses alone would."""
        return self._queued_s > QUEUED_S or self._rung > LOSS_RUNG

    def report(self, now_s: float, lost: float, queued_s: float, blocked: bool = False) -> None:
        """A receiver's report: share of the messages since the last one that did not come (0..1), the queue on the
        way; and whether messages had to wait at our own end."""
        self._reported_s = now_s
        if self._before_silence is not None:  # it was an outage, not a narrow link
            self._rung, self._before_silence = self._before_silence, None
            self._bad_reports = 0
            self._well_since = now_s
            return
        congested = queued_s > QUEUED_S or blocked
        if not congested:  # what a full queue loses is not mended by sending more
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
            self._well_since = None
        else:
            self._step_up(now_s)

    def silence(self, now_s: float) -> None:
        """To be called now and then: reports may have stopped coming."""
        if self._reported_s is not None and now_s - self._reported_s > SILENCE_S and self._before_silence is None:
            self._before_silence = self._rung
            self._rung = len(LADDER) - 1

    def _step_down(self, now_s: float, rungs: int) -> None:
        if self._raised_s is not None and now_s - self._raised_s < FAILED_S:
            self._patience_s = min(2 * self._patience_s, MAX_PATIENCE_S)
        self._raised_s = self._well_since = None
        self._lowered_s = now_s
        self._rung = min(self._rung + rungs, len(LADDER) - 1)
        self.small |= self._rung >= SMALL_RUNG
        self._bad_reports = 0

    def _step_up(self, now_s: float) -> None:
        if self._well_since is None:
            self._well_since = now_s
        elif self._rung > 0 and now_s - self._well_since >= self._patience_s:
            if self._rung <= LOSS_RUNG and self._loss > HEAVY_LOSS:
                return
            self._rung -= 1
            self.small &= self._rung > 0
            self._raised_s = self._well_since = now_s
        elif self._raised_s is not None and now_s - self._raised_s >= FAILED_S:
            self._patience_s, self._raised_s = FIRST_PATIENCE_S, None
