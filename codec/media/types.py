"""."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

Samples = NDArray[np.int16]

AUDIO_RATE = 48_000  # Hz: Opus knows no other clock (RFC 7845, section 4)


@dataclass(frozen=True)
class AudioInfo:
    """The sound of a file: its codec's name, sampling rate in Hz, channels, and start in seconds after the
    first picture (negative: before it)."""

    codec: str
    rate: int
    channels: int
    start_s: float


@dataclass(frozen=True)
class MediaInfo:
    """A video file as :func:`read_video` will deliver it.

    ``width`` and ``height`` hold after rotation and with square pixels. ``fps`` is the mean rate, between 1
    and 120, close to a usual rate rounded to it. ``duration_s`` is None for a file that does not say;
    ``frames`` estimates how many pictures that makes at ``fps``. ``rotation`` is what the file's metadata
    asks for, in degrees clockwise: 0, 90, 180 or 270 (before any mirroring from left to right).
    """

    width: int
    height: int
    fps: Fraction
    duration_s: float | None
    frames: int | None
    rotation: int
    audio: AudioInfo | None


@dataclass(frozen=True)
class VideoFrame:
    """One decoded picture, uint8 RGB (H, W, 3), and its time in seconds."""

    time_s: float
    picture: Picture
