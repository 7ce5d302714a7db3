"""Skip mode: frames that are shown best by an unmodified source.

Reconstruction resamples and corrects a source. Where a speaker rests in the pose of a source, the unmodified source has
lower error, and costs no motion.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from iwcodec.codec.decoder import Decoder
from iwcodec.codec.fit.keypoint_fit import Fitted
from iwcodec.codec.media.quality import psnr
from iwcodec.codec.media.types import Picture
from iwcodec.models.runtime.types import Source

MIN_DB = 28
"""PSNR in dB that the unmodified source must reach."""
HYSTERESIS_DB = 0.05
"""PSNR in dB by which skip mode must be better to start, or worse to end."""
CLEARLY_DB, CHECK_EVERY = 1.0, 5
"""If the last reconstruction was better by CLEARLY_DB, the comparison is made only once in CHECK_EVERY frames."""
BLOCKS, MAX_BLOCK_RATIO = 16, 1.25
"""The picture is divided into BLOCKS x BLOCKS blocks. The largest block error may be at most MAX_BLOCK_RATIO times that
of the reconstruction: a moving mouth is a small part of the picture."""


class SkipMode:
    """Decides on skip mode for the frames of a clip, in order."""

    def __init__(self, decoder: Decoder, every: int = 1) -> None:
        """`decoder` reconstructs frames for comparison. `every`: frames that share one decision, as long as a source
        reaches MIN_DB."""
        self.active = False
        """Whether the last frame was in skip mode."""
        self._decoder = decoder
        self._rebuilt_db, self._frames_since_check, self._every = 0.0, CHECK_EVERY, every

    def choose(self, picture: Picture, fitted: Fitted, candidates: Sequence[Source]) -> Source | None:
        """The source to show unmodified for this frame; None if reconstruction from the fitted keypoints is better."""
        source, quality = max(
            ((source, psnr(source.picture, picture)) for source in candidates), key=lambda pair: pair[1]
        )
        if quality < MIN_DB:
            self.active = False
            return None
        self._frames_since_check += 1
        if self._frames_since_check >= self._every:
            self.active = self._worth_checking(quality) and self._is_better(source, quality, picture, fitted)
        return source if self.active else None

    def _worth_checking(self, quality: float) -> bool:
        return self.active or quality > self._rebuilt_db - CLEARLY_DB or self._frames_since_check >= CHECK_EVERY

    def _is_better(self, source: Source, quality: float, picture: Picture, fitted: Fitted) -> bool:
        assert fitted.source is not None
        rebuilt = self._decoder.reconstruct_from(fitted.keypoints, fitted.source)
        self._rebuilt_db, self._frames_since_check = psnr(rebuilt, picture), 0
        better = quality > self._rebuilt_db + HYSTERESIS_DB * (-1 if self.active else 1)
        return better and max_block_error(source.picture, picture) <= MAX_BLOCK_RATIO * max_block_error(
            rebuilt, picture
        )


def max_block_error(shown: Picture, original: Picture) -> float:
    """Largest mean squared error of a block, summed over the colours."""
    error = np.square(cv2.absdiff(shown, original).astype(np.float32)).sum(2)
    return float(cv2.resize(error, (BLOCKS, BLOCKS), interpolation=cv2.INTER_AREA).max())
