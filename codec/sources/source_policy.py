"""Source policy of live streams: which frame becomes a source, and when.

The sender keeps the receiver's library. From time to time it reconstructs a frame as the receiver will, and remembers a
thumbnail of it with the squared error that is left. From thumbnails it predicts the error of every remembered frame if
one of the newest were a source. That one becomes a source once the PSNR that it would have brought, squared and summed
over the remembered time, reaches a price: what lasts or recurs is soon worth one, and what passes is not. Squares let a
pose that no source shows come sooner. The price falls while nothing is bought, and rises with the bytes of sources.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.media.quality import psnr
from iwcodec.codec.media.types import Picture
from iwcodec.codec.sources.library import CAPACITY, Library
from iwcodec.models.runtime.types import Runtime, Source

JUDGE_INTERVAL_S = 0.4
"""Seconds between judged frames. Reconstructing one takes 35 ms of a core."""
REMEMBERED_FRAMES = 25
"""Newest judged frames that are remembered: 10 s."""
CANDIDATES = 5
"""Newest judged frames that may become a source: 2 s."""
THUMBNAIL = 32
"""Side of thumbnails in pixels."""
WARPED_ERROR = 0.2
"""Share of the squared error of thumbnails that warping one frame to the other leaves (see client/LAB.md)."""
ERROR_FLOOR = 4.0
"""Squared grey levels that are added to all errors: smaller differences are not worth bytes."""
SOURCE_ERROR = 0.9
"""Share of a source's squared coding error that frames warped from it show."""
BYTES_PER_S, BURST_BYTES = 200.0, 2500.0
"""Mean rate of sources, and what an idle call saves up for them."""
LOW_PRICE, HIGH_PRICE = 8.0, 64.0
"""Price of a source, in squared dB times seconds, while BURST_BYTES are saved up, and while none are. Below that it
goes on rising: a face that no source shows at all need not wait."""
IN_FLIGHT_S, IN_FLIGHT_BYTES_PER_S = 0.3, 2500.0
"""A source has reached receivers this long after it was chosen, and its bytes at this rate later still."""
INITIAL_SOURCE_DB = 33.0
"""Assumed PSNR of coded sources before the first."""
SOURCE_DB_SMOOTHING = 0.7
"""Weight of the old value in the exponential mean of the sources' PSNR."""
SURPRISE_SMOOTHING, MAX_SURPRISE = 0.8, (0.5, 64.0)
"""Weight of the old value in the mean ratio of errors to their prediction, and bounds of that. Where sources do not
help, as with noise, it grows until none is worth its price."""

Thumbnail = NDArray[np.float32]
"""(THUMBNAIL^2 * 3,)"""


@dataclass(frozen=True)
class Judgement:
    """A frame reconstructed as the receiver will."""

    picture: Picture
    psnr_db: float
    nearest: Source
    """First source of the reconstruction."""


class Price:
    """The price of a source, in squared dB times seconds. Times are in seconds on any one clock."""

    def __init__(self) -> None:
        self._saved_bytes = BURST_BYTES
        self._at_s: float | None = None

    def at(self, at_s: float) -> float:
        """Return the price at a time."""
        if self._at_s is not None:
            self._saved_bytes = min(BURST_BYTES, self._saved_bytes + max(0.0, at_s - self._at_s) * BYTES_PER_S)
        self._at_s = at_s
        return float(HIGH_PRICE * (LOW_PRICE / HIGH_PRICE) ** (self._saved_bytes / BURST_BYTES))

    def pay(self, size: int, at_s: float) -> None:
        """Note that a source of this size, in bytes, has been sent."""
        self.at(at_s)
        self._saved_bytes -= size


def thumbnail(picture: Picture) -> Thumbnail:
    """Return the thumbnail of a picture (H, W, 3)."""
    small = cv2.resize(picture, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    return small.reshape(-1).astype(np.float32)


class _Memory:
    """The judged frames of the last seconds."""

    def __init__(self) -> None:
        self.pictures: deque[Picture] = deque(maxlen=CANDIDATES)
        self._thumbnails: deque[Thumbnail] = deque(maxlen=REMEMBERED_FRAMES)
        self._left: deque[float] = deque(maxlen=REMEMBERED_FRAMES)

    def add(self, picture: Picture, small: Thumbnail, left: float) -> None:
        self.pictures.append(picture)
        self._thumbnails.append(small)
        self._left.append(left)

    def distances(self, small: Thumbnail) -> NDArray[np.float64]:
        """Return the squared distances (n,) of the remembered frames from a thumbnail."""
        return _distances(self._thumbnails, small)

    def explain(self, errors: NDArray[np.float64]) -> None:
        """Note the errors (n,) that a new source leaves in the remembered frames."""
        self._left = deque(np.minimum(self._left, errors).tolist(), REMEMBERED_FRAMES)

    def candidates(self) -> list[Thumbnail]:
        return list(self._thumbnails)[-len(self.pictures) :]

    def gain(self, errors: NDArray[np.float64]) -> float:
        """Return by how much these errors (n,) would be better, in squared dB times seconds."""
        left = np.array(self._left)
        return float(np.square(10 * np.log10(left / np.minimum(left, errors))).sum() * JUDGE_INTERVAL_S)


class SourcePolicy:
    """The sender's copy of the receiver's library, and the decision when to add to it."""

    def __init__(self, runtime: Runtime, capacity: int = CAPACITY) -> None:
        """`capacity`: of the library, in sources; the same as the receiver's."""
        self.library = Library(capacity)
        self.source_db = INITIAL_SOURCE_DB
        """Exponential mean of the PSNR of coded sources against the original pictures."""
        self._runtime = runtime
        self._memory, self._price = _Memory(), Price()
        self._surprise = 1.0
        """Mean ratio of the error that frames have to the one predicted."""
        self._in_flight: list[tuple[float, Thumbnail]] = []
        """New sources, with the time at which receivers will have them."""
        self._judged_s: float | None = None

    def prepare(self, original: Picture, coded: Picture) -> tuple[Source, float]:
        """Return a coded picture as a source, and its PSNR. Slow; changes nothing here."""
        return self._runtime.prepare(coded), psnr(coded, original)

    def add(self, slot: int, prepared: tuple[Source, float], at_s: float, size: int) -> None:
        """Add the prepared source of time `at_s` to a slot of the library. `size`: of its unit, in bytes."""
        source, quality_db = prepared
        weight = SOURCE_DB_SMOOTHING
        first = not len(self.library)
        self.source_db = quality_db if first else weight * self.source_db + (1 - weight) * quality_db
        self.library.add(slot, source)
        self._price.pay(size, at_s)
        small = thumbnail(source.picture)
        self._in_flight.append((at_s + IN_FLIGHT_S + size / IN_FLIGHT_BYTES_PER_S, small))
        if self._memory.pictures:
            self._memory.explain(self._errors(small))

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
        return Judgement(rebuilt, psnr(rebuilt, picture), sources[0])

    def judge(self, picture: Picture, judged: Judgement, at_s: float) -> None:
        """Remember a judged frame."""
        small, left = thumbnail(picture), ERROR_FLOOR + _mean_square(judged.psnr_db)
        self._in_flight = [(until_s, of) for until_s, of in self._in_flight if until_s > at_s]
        shown = [thumbnail(judged.nearest.picture), *(of for _, of in self._in_flight)]
        expected, *in_flight = self._predicted(_distances(shown, small)).tolist()
        surprise = self._surprise * left / expected
        weight = SURPRISE_SMOOTHING
        self._surprise = float(np.clip(self._surprise**weight * surprise ** (1 - weight), *MAX_SURPRISE))
        self._memory.add(picture, small, min(left, *in_flight) if in_flight else left)

    def wanted(self, at_s: float) -> Picture | None:
        """Return the picture that is to become a source at time `at_s`, if any: one of the judged frames."""
        gains = [self._memory.gain(self._errors(small)) for small in self._memory.candidates()]
        if not gains or max(gains) < self._price.at(at_s):
            return None
        return self._memory.pictures[int(np.argmax(gains))]

    def _errors(self, small: Thumbnail) -> NDArray[np.float64]:
        """Return the errors (n,) that the remembered frames would have from a source with this thumbnail."""
        return self._predicted(self._memory.distances(small))

    def _predicted(self, distances: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean squared errors (n,) of frames at these squared distances from their sources."""
        shown = SOURCE_ERROR * _mean_square(self.source_db)
        return self._surprise * (ERROR_FLOOR + shown + WARPED_ERROR * distances)


def _distances(thumbnails: Iterable[Thumbnail], small: Thumbnail) -> NDArray[np.float64]:
    """Return the mean squared differences (n,) of thumbnails from one."""
    return np.square(np.stack(list(thumbnails)) - small).mean(1).astype(np.float64)


def _mean_square(quality_db: float) -> float:
    """Squared grey levels of a PSNR."""
    return float(255**2 / 10 ** (quality_db / 10))
