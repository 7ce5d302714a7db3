"""Where nothing moves: frames that are shown best by a source as it lies.

Whatever is rebuilt from a source was resampled and corrected. Where a speaker rests in a pose that a source has, the
source itself is nearer to the frame, and costs no motion.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from iwcodec.codec.decoder import Decoder
from iwcodec.codec.fit.keypoint_fit import Fitted
from iwcodec.codec.media.quality import psnr
from iwcodec.codec.media.types import Picture
from iwcodec.models.runtime.types import Source

CALM_DB = 28
"""PSNR that a source has to have as it lies."""
MARGIN_DB = 0.05
"""By which it, or what is rebuilt, has to be better than the other to follow it."""
CLEARLY_DB, LOOK_EVERY = 1.0, 5
"""Where what was rebuilt last was better by so much, what is rebuilt is only looked at once in so many frames."""
PARTS, WORSE = 16, 1.25
"""Of PARTS x PARTS parts of a picture the one that is furthest off may be so many times as far off as with what is
rebuilt, at most: a mouth that moves is little of the whole."""


class SkipMode:
    """Tells them among the frames of a clip, which come in order."""

    def __init__(self, decoder: Decoder, every: int = 1) -> None:
        """`every`: how many frames share what was found in the first of them, where a source is calm enough."""
        self.still = False
        """Whether the last frame was one."""
        self._decoder = decoder
        self._rebuilt_db, self._unseen, self._every = 0.0, LOOK_EVERY, every

    def nearer(self, picture: Picture, found: Fitted, candidates: Sequence[Source]) -> Source | None:
        """The source that is nearer to a picture as it lies than what is rebuilt from the keypoints found; None where
        there is none."""
        source, quality = max(
            ((source, psnr(source.picture, picture)) for source in candidates), key=lambda known: known[1]
        )
        if quality < CALM_DB:
            self.still = False
            return None
        self._unseen += 1
        if self._unseen >= self._every:
            self.still = self._worth_a_look(quality) and self._is_nearer(source, quality, picture, found)
        return source if self.still else None

    def _worth_a_look(self, quality: float) -> bool:
        return self.still or quality > self._rebuilt_db - CLEARLY_DB or self._unseen >= LOOK_EVERY

    def _is_nearer(self, source: Source, quality: float, picture: Picture, found: Fitted) -> bool:
        assert found.source is not None
        rebuilt = self._decoder.rebuild(found.keypoints, found.source)
        self._rebuilt_db, self._unseen = psnr(rebuilt, picture), 0
        nearer = quality > self._rebuilt_db + MARGIN_DB * (-1 if self.still else 1)
        return nearer and furthest(source.picture, picture) <= WORSE * furthest(rebuilt, picture)


def furthest(shown: Picture, picture: Picture) -> float:
    """Squared error, summed over the colours, of the part that is furthest off."""
    off = np.square(cv2.absdiff(shown, picture).astype(np.float32)).sum(2)
    return float(cv2.resize(off, (PARTS, PARTS), interpolation=cv2.INTER_AREA).max())
