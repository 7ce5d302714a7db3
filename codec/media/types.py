"""Pictures, samples and the description of a media file."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
"""RGB (H, W, 3)."""
Samples = NDArray[np.int16]
"""Mono sound (n,) at AUDIO_RATE."""
AUDIO_RATE = 48_000
"""Samples a second: the clock rate of Opus (RFC 7845, section 4)."""


@dataclass(frozen=True)
class Tracks:
    """Which streams of a file are read, counted from 1; None: the best."""

    video: int | None = None
    audio: int | None = None


@dataclass(frozen=True)
class AudioInfo:
    """The sound of a file."""

    codec: str
    rate: int
    """Samples a second."""
    channels: int
    start_s: float
    """Start in seconds after the first picture; negative: before it."""


@dataclass(frozen=True)
class MediaInfo:
    """A video file as `read_video` delivers it."""

    width: int
    """Pixels, after rotation and with square pixels; `height` likewise."""
    height: int
    fps: Fraction
    """Densest usual rate, 1 to 120, rounded to a standard rate that is close."""
    duration_s: float | None
    """Length of the pictures; None if the file does not say it."""
    frames: int | None
    """Estimated number of pictures at `fps`."""
    rotation: int
    """Rotation in the metadata, in degrees clockwise: 0, 90, 180 or 270, before any left-right mirroring."""
    audio: AudioInfo | None
    stated_s: float | None = None
    """Length that the file's header states, which may be more than the file holds."""
    leaps: int = 0
    """Leaps of the file's clock."""
    sound_end_s: float | None = None
    """End of the sound in seconds after the first picture; None without sound or if unknown."""
    sound_is_unknown: bool = False
    """Whether there is sound, but none that can be decoded."""


@dataclass(frozen=True)
class VideoFrame:
    """One decoded picture."""

    time_s: float
    picture: Picture
    duration_s: float = 0.0
    """0: unknown."""


@dataclass
class Tally:
    """Counts pictures while a video is read."""

    pictures: int = 0
    damaged: int = 0
    """Pictures that could not be decoded, or not completely."""
    end_s: float = 0.0
    """Seconds at which the last picture ends."""
