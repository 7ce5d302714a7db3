"""Resamples keypoint frames with arbitrary time stamps to the constant frame rate of an .iwc file."""

from collections.abc import Callable
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from iwcodec.client.video.jitter_buffer import TimedFrame, interpolate

MAX_INTERPOLATION_S: Final = 0.5
"""Maximum gap between frames that is interpolated; across a longer one the last frame is repeated."""
MAX_GAP_S: Final = 600.0
"""Maximum gap between stamps; a larger step, in either direction, means that the sender's clock has changed."""

ResampledFrame = tuple[NDArray[np.float32], int | None]
"""Keypoints (K, 3) and the slot of the reference source."""


class KeypointResampler:
    """Constant-rate keypoints from timed frames; the first output frame is the first input frame."""

    def __init__(self, fps: Fraction) -> None:
        self._period = float(1 / fps)
        self._start_s = 0.0
        self._count = 0
        self._last: TimedFrame | None = None
        self._gap_s: float | None = None
        """Time for which the last frame is held before the next one, whose stamps are of another clock."""

    @property
    def start_s(self) -> float | None:
        """Stamp that corresponds to the first output frame on the sender's present clock; None before any frame."""
        return None if self._last is None else self._start_s

    def restart(self, gap_s: float) -> None:
        """The next frame follows `gap_s` after the last one, whatever its stamp: the sender was restarted."""
        self._gap_s = max(0.0, gap_s)

    def add(self, frame: TimedFrame) -> list[ResampledFrame]:
        """Output frames up to the time of this one. A frame older than the last one is ignored."""
        last, self._last = self._last, frame
        if last is None:
            self._start_s, self._count = frame.stamp_s, 1
            return [(frame.keypoints, frame.reference_source)]
        if self._gap_s is not None:
            held, self._gap_s = self.hold((self._count - 1) * self._period + self._gap_s, last), None
            self._start_s = frame.stamp_s - self._count * self._period
            return held + self._until(frame.stamp_s, lambda at_s: (frame.keypoints, frame.reference_source))
        elapsed_s = frame.stamp_s - last.stamp_s
        if not -MAX_GAP_S < elapsed_s < MAX_GAP_S:
            # The sender's clock has changed: continue without a gap.
            self._start_s = frame.stamp_s - self._count * self._period
            return self._until(frame.stamp_s, lambda at_s: (frame.keypoints, frame.reference_source))
        if elapsed_s <= 0:
            self._last = last
            return []
        if elapsed_s > MAX_INTERPOLATION_S:
            return self._until(frame.stamp_s, lambda at_s: (last.keypoints, last.reference_source))
        return self._until(frame.stamp_s, lambda at_s: interpolate(last, frame, (at_s - last.stamp_s) / elapsed_s))

    def hold(self, end_s: float, last: TimedFrame | None = None) -> list[ResampledFrame]:
        """Repeat the last frame (or `last`) until the output lasts `end_s` seconds."""
        last = last or self._last
        if last is None:
            return []
        held = last.keypoints, last.reference_source
        return self._until(self._start_s + min(end_s, self._count * self._period + MAX_GAP_S), lambda at_s: held)

    def _until(self, end_s: float, frame_at: Callable[[float], ResampledFrame]) -> list[ResampledFrame]:
        frames = []
        while (due_s := self._start_s + self._count * self._period) <= end_s + 1e-6:
            frames.append(frame_at(min(due_s, end_s)))
            self._count += 1
        return frames
