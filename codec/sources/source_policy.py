"""Source policy of live streams: which frame becomes a source, and when.

The sender keeps the receiver's library. From time to time it reconstructs a frame as the receiver will. If a source of
the frame itself would show it better by a threshold or more, in dB, the frame becomes one. What a source would reach is
the PSNR of sources less what the network loses, as the best of the last frames show. The threshold falls while bytes
are saved up and rises with those of sources: a pose that no source shows has its source at once, and what the budget
leaves goes to the small gains that a recent source brings anyone who moves and speaks.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.media.quality import psnr
from iwcodec.codec.media.types import Picture
from iwcodec.codec.sources.library import CAPACITY, Library
from iwcodec.models.runtime.types import Runtime, Source

JUDGE_INTERVAL_S = 0.4
"""Seconds between judged frames. Reconstructing one takes 35 ms of a core."""
BYTES_PER_S, BURST_BYTES = 170.0, 2500.0
"""Mean rate of sources, and what an idle call saves up for them."""
LOW_THRESHOLD, HIGH_THRESHOLD = 0.3, 4.0
"""Threshold in dB while BURST_BYTES are saved up, and while none are. Below that it goes on rising."""
REMEMBERED_FRAMES = 25
"""Newest judged frames of which the best shows what the network loses: 10 s."""
MAX_LOSS_DB = 2.0
"""Most that the network is taken to lose: where all frames are worse, no source shows them."""
MIN_INTERVAL_S = 1.1
"""Least interval between sources: while one is on its way, frames are as bad as before."""
INITIAL_SOURCE_DB = 33.0
"""Assumed PSNR of coded sources before the first."""
SOURCE_DB_SMOOTHING = 0.7
"""Weight of the old value in the exponential mean of the sources' PSNR."""


@dataclass(frozen=True)
class Judgement:
    """A frame reconstructed as the receiver will."""

    picture: Picture
    psnr_db: float


class Threshold:
    """The threshold, in dB. Times are in seconds on any one clock."""

    def __init__(self) -> None:
        self._saved_bytes = BURST_BYTES
        self._at_s: float | None = None

    def at(self, at_s: float) -> float:
        """Return the threshold at a time."""
        if self._at_s is not None:
            self._saved_bytes = min(BURST_BYTES, self._saved_bytes + max(0.0, at_s - self._at_s) * BYTES_PER_S)
        self._at_s = at_s
        return float(HIGH_THRESHOLD * (LOW_THRESHOLD / HIGH_THRESHOLD) ** (self._saved_bytes / BURST_BYTES))

    def pay(self, size: int, at_s: float) -> None:
        """Note that a source of this size, in bytes, has been sent."""
        self.at(at_s)
        self._saved_bytes -= size


class SourcePolicy:
    """The sender's copy of the receiver's library, and the decision when to add to it."""

    def __init__(self, runtime: Runtime, capacity: int = CAPACITY) -> None:
        """`capacity`: of the library, in sources; the same as the receiver's."""
        self.library = Library(capacity)
        self.source_db = INITIAL_SOURCE_DB
        """Exponential mean of the PSNR of coded sources against the original pictures."""
        self._runtime = runtime
        self._threshold = Threshold()
        self._below_db: deque[float] = deque(maxlen=REMEMBERED_FRAMES)
        """By how much the newest judged frames were below the sources, in dB."""
        self._added_s = -math.inf
        """When the newest source was added."""
        self._judged_s = -math.inf

    def prepare(self, original: Picture, coded: Picture) -> tuple[Source, float]:
        """Return a coded picture as a source, and its PSNR. Slow; changes nothing here."""
        return self._runtime.prepare(coded), psnr(coded, original)

    def add(self, slot: int, prepared: tuple[Source, float], at_s: float, size: int) -> None:
        """Add the prepared source of time `at_s` to a slot of the library. `size`: of its unit, in bytes."""
        source, quality_db = prepared
        weight = SOURCE_DB_SMOOTHING if len(self.library) else 0.0
        self.source_db = weight * self.source_db + (1 - weight) * quality_db
        self.library.add(slot, source)
        self._threshold.pay(size, at_s)
        self._added_s = at_s

    def due(self, at_s: float) -> bool:
        """Return whether the frame of time `at_s` is to be judged. Call once per frame."""
        if at_s - self._judged_s < JUDGE_INTERVAL_S:
            return False
        self._judged_s = at_s
        return True

    def rebuild(self, picture: Picture, keypoints: NDArray[np.float32], sources: Sequence[Source]) -> Judgement:
        """Reconstruct a frame from its dequantised keypoints (K, 3) and the sources in its attention, as the receiver
        will. Slow; changes nothing here."""
        rebuilt = self._runtime.reconstruct(keypoints, sources)
        return Judgement(rebuilt, psnr(rebuilt, picture))

    def wants(self, judged: Judgement, at_s: float) -> bool:
        """Return whether the judged frame of time `at_s` is to become a source."""
        self._below_db.append(self.source_db - judged.psnr_db)
        loss_db = min(max(min(self._below_db), 0.0), MAX_LOSS_DB)
        is_rested = at_s - self._added_s >= MIN_INTERVAL_S
        return is_rested and self._below_db[-1] - loss_db >= self._threshold.at(at_s)
