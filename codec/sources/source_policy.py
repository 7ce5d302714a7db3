"""Source policy of live streams: a frame becomes a source if the receiver's picture of it is much worse than a source.

The sender keeps the receiver's library. From time to time it reconstructs a frame as the receiver will, and compares
its PSNR with that of coded sources. The deficit is tested with hysteresis. If a new source has not helped, as with blur
or noise, the least interval to the next one doubles.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.media.quality import psnr
from iwcodec.codec.media.types import Picture
from iwcodec.codec.sources.library import CAPACITY, Library, pose_distance
from iwcodec.models.runtime.types import Runtime, Source

JUDGE_INTERVAL_S = 0.5
"""Seconds between judged frames. Reconstructing one takes 35 ms of a core."""
WANTED_DEFICIT_DB, ENOUGH_DEFICIT_DB = 7.0, 5.0
"""PSNR deficit of a reconstructed frame against a coded source above which new sources are wanted, and at which they no
longer are."""
MIN_GAIN_DB = 1.0
"""Decrease of the deficit by which a new source counts as helpful."""
SAME_POSE = 0.01
"""Largest mean squared keypoint distance from a source at which a frame tells whether the source helps."""
MIN_INTERVAL_S, MAX_INTERVAL_S = 1.0, 16.0
"""Least seconds between two sources while they help, and the most it grows to while they do not."""
INITIAL_SOURCE_DB = 33.0
"""Assumed PSNR of coded sources before the first."""
SOURCE_DB_SMOOTHING = 0.7
"""Weight of the old value in the exponential mean of the sources' PSNR."""


class QualityDeficit:
    """Decides by the deficits of judged frames whether a source is wanted. Times are in seconds on any one clock."""

    def __init__(self) -> None:
        self._wanted = False
        self._added_s: float | None = None
        self._interval_s = MIN_INTERVAL_S
        self._latest_db = 0.0
        self._expected_db: float | None = None
        """Largest deficit at which the newest source has helped; None once it has been judged."""

    def judge(self, at_s: float, deficit_db: float, by_newest: bool) -> bool:
        """Return whether the judged frame of time `at_s` is to become a source. `by_newest`: whether it is in the pose
        of the newest source; only such a frame tells whether that source helped."""
        self._latest_db = deficit_db
        if by_newest and self._expected_db is not None:
            helped = deficit_db <= self._expected_db
            self._interval_s = MIN_INTERVAL_S if helped else min(2 * self._interval_s, MAX_INTERVAL_S)
            self._expected_db = None
        self._wanted = deficit_db > (ENOUGH_DEFICIT_DB if self._wanted else WANTED_DEFICIT_DB)
        return self._wanted and (self._added_s is None or at_s - self._added_s >= self._interval_s)

    def added(self, at_s: float) -> None:
        """Note that the frame of time `at_s` has become a source."""
        self._added_s = at_s
        self._expected_db = self._latest_db - MIN_GAIN_DB


@dataclass(frozen=True)
class Judgement:
    """A frame reconstructed as the receiver will."""

    picture: Picture
    psnr_db: float
    nearest: Source
    """First source of the reconstruction."""
    distance: float
    """Pose distance of that source."""


class SourcePolicy:
    """The sender's copy of the receiver's library, and the decision when to add to it."""

    def __init__(self, runtime: Runtime, capacity: int = CAPACITY) -> None:
        """`capacity`: of the library, in sources; the same as the receiver's."""
        self.library = Library(capacity)
        self.source_db = INITIAL_SOURCE_DB
        """Exponential mean of the PSNR of coded sources against the original pictures."""
        self._runtime = runtime
        self._deficit = QualityDeficit()
        self._newest: Source | None = None
        self._judged_s: float | None = None

    def prepare(self, original: Picture, coded: Picture) -> tuple[Source, float]:
        """Return a coded picture as a source, and its PSNR. Slow; changes nothing here."""
        return self._runtime.prepare(coded), psnr(coded, original)

    def add(self, slot: int, prepared: tuple[Source, float], at_s: float) -> None:
        """Add the prepared source of time `at_s` to a slot of the library."""
        source, quality_db = prepared
        weight = SOURCE_DB_SMOOTHING
        first = not len(self.library)
        self.source_db = quality_db if first else weight * self.source_db + (1 - weight) * quality_db
        self._newest = source
        self.library.add(slot, source)
        self._deficit.added(at_s)

    def due(self, at_s: float) -> bool:
        """Return whether the frame of time `at_s` is to be judged. Call once per frame."""
        if self._judged_s is not None and at_s - self._judged_s < JUDGE_INTERVAL_S:
            return False
        self._judged_s = at_s
        return True

    def rebuild(self, picture: Picture, keypoints: NDArray[np.float32], sources: Sequence[Source]) -> Judgement:
        """Reconstruct a frame from its dequantised keypoints (K, 3) and the sources in its attention, as the receiver
        will. Slow; changes nothing here."""
        rebuilt = self._runtime.reconstruct(keypoints, sources)
        distance = float(pose_distance(sources[0].keypoints, keypoints))
        return Judgement(rebuilt, psnr(rebuilt, picture), sources[0], distance)

    def wants(self, judged: Judgement, at_s: float) -> bool:
        """Return whether the judged frame of time `at_s` is to become a source."""
        newest = self._newest is not None and judged.nearest.basis is self._newest.basis  # or a composite of it
        by_newest = newest and judged.distance < SAME_POSE
        return self._deficit.judge(at_s, self.source_db - judged.psnr_db, by_newest)
