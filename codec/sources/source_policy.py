"""Which frames of a live stream become sources: those that the receiver's picture of falls short.

The sender keeps the library that the receiver has, rebuilds a frame from it now and then, as the receiver will, and
compares: with the frame, and with what a source would give, which is the quality that sources are coded at. Falling
short is taken with hysteresis; and where a source has not helped (blur, noise, what no picture can mend) the next one
waits longer, twice as long each time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.media.quality import psnr
from iwcodec.codec.media.types import Picture
from iwcodec.codec.motion.types import Quantiser
from iwcodec.codec.sources.library import CAPACITY, Library, pose_distance
from iwcodec.models.runtime.types import Runtime, Source

JUDGE_S = 0.5
"""Between two frames that are judged: rebuilding one takes 35 ms of a core."""
SHORT_DB, NEAR_DB = 7.0, 5.0
"""By how much a rebuilt frame may be worse than a source before more are wanted, and until no more are."""
HELPED_DB = 1.0
"""What a source must bring to the frames after it."""
SAME_POSE = 0.01
"""Mean squared keypoint distance: what is further from a source says nothing of its worth."""
REST_S, MAX_REST_S = 1.0, 16.0
"""Between two sources: where they help, and at most where they do not."""
USUAL_DB = 33.0
"""What a source gives, until one has been coded."""
MEMORY = 0.7
"""Share of what was known of that which the next source leaves."""


class Shortfall:
    """From judgements of rebuilt frames to whether a source is wanted. Times in seconds, on any clock."""

    def __init__(self) -> None:
        self._short = False
        self._added_s: float | None = None
        self._rest_s = REST_S
        self._latest_db = 0.0
        self._expected_db: float | None = None
        """The shortfall up to which the newest source has helped, until a frame has been judged by it."""

    def judge(self, at_s: float, short_db: float, by_newest: bool) -> bool:
        """A frame of that time falls short of a source by so much: is it wanted as one? `by_newest`: whether it
        is in the pose of the newest source; only such a frame says whether that source helped."""
        self._latest_db = short_db
        if by_newest and self._expected_db is not None:
            helped = short_db <= self._expected_db
            self._rest_s = REST_S if helped else min(2 * self._rest_s, MAX_REST_S)
            self._expected_db = None
        self._short = short_db > (NEAR_DB if self._short else SHORT_DB)
        return self._short and (self._added_s is None or at_s - self._added_s >= self._rest_s)

    def added(self, at_s: float) -> None:
        """The frame of that time has become a source."""
        self._added_s = at_s
        self._expected_db = self._latest_db - HELPED_DB


@dataclass(frozen=True)
class Judged:
    picture: Picture
    """As the receiver rebuilds it."""
    psnr_db: float
    nearest: Source
    distance: float
    """In pose, of the nearest source."""


class SourcePolicy:
    """The sender's copy of the receiver's library, and what it lacks."""

    def __init__(self, runtime: Runtime, capacity: int = CAPACITY) -> None:
        self.library = Library(capacity)
        self.source_db = USUAL_DB
        """What a source gives: the coded pictures against the originals, of late."""
        self._runtime = runtime
        self._shortfall = Shortfall()
        self._newest: Source | None = None
        self._judged_s: float | None = None

    def prepare(self, original: Picture, coded: Picture) -> tuple[Source, float]:
        """A coded picture as a source, and how good it is (slow; touches nothing here)."""
        return self._runtime.prepare(coded), psnr(coded, original)

    def add(self, slot: int, prepared: tuple[Source, float], at_s: float) -> None:
        """The frame of that time has become a source."""
        source, quality_db = prepared
        first = not len(self.library)
        self.source_db = quality_db if first else MEMORY * self.source_db + (1 - MEMORY) * quality_db
        self._newest = source
        self.library.add(slot, source)
        self._shortfall.added(at_s)

    def due(self, at_s: float) -> bool:
        """Whether it is time to look at a frame; asked once a frame, and True once for each that is."""
        if self._judged_s is not None and at_s - self._judged_s < JUDGE_S:
            return False
        self._judged_s = at_s
        return True

    def rebuild(self, picture: Picture, sent: NDArray[np.float32], sources: Sequence[Source]) -> Judged:
        """A frame as the receiver gets it, from the keypoints that are sent (slow; touches nothing here)."""
        rebuilt = self._runtime.reconstruct(sent, sources)
        distance = float(pose_distance(sources[0].keypoints, sent))
        return Judged(rebuilt, psnr(rebuilt, picture), sources[0], distance)

    def wants(self, judged: Judged, at_s: float) -> bool:
        """Whether the frame of that time, rebuilt so, is to become a source."""
        by_newest = judged.nearest is self._newest and judged.distance < SAME_POSE
        return self._shortfall.judge(at_s, self.source_db - judged.psnr_db, by_newest)


def as_sent(keypoints: NDArray[np.float32], quantiser: Quantiser) -> NDArray[np.float32]:
    """Keypoints (K, 3), nearly as they come out of a motion packet."""
    return quantiser.dequantise(quantiser.quantise(keypoints))
