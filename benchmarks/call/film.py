"""The video that a measured client sends as its camera: a clip with sound."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from iwcodec.client.video.capture import LiveCrop
from iwcodec.codec.media.types import AUDIO_RATE, Picture
from iwcodec.codec.media.video import at_constant_rate, probe, read_video
from iwcodec.codec.media.writer import VideoWriter

TONE_S, TONE_HZ, TONE_LEVEL = 0.5, 220, 6000
"""Length within each second, frequency and amplitude (of 32767) of the tone for a clip without sound."""


def with_sound(clip: Path, out: Path) -> Path:
    """The clip itself if it has sound; else a copy at `out` with a tone in every second, so that audio is sent."""
    info = probe(clip)
    if info.audio is not None:
        return clip
    return _write(clip, out, (info.width, info.height), lambda picture: picture)


def close_up(clip: Path, out: Path, size: int) -> Path:
    """A copy at `out` of the square that a call would send, `size` pixels wide, with a tone in every second: a camera
    that costs little."""
    return _write(clip, out, (size, size), LiveCrop(size, float(probe(clip).fps)))


def _write(clip: Path, out: Path, size: tuple[int, int], crop: Callable[[Picture], Picture]) -> Path:
    fps = probe(clip).fps
    with VideoWriter(out, size, fps, audio=True) as writer:
        count = 0
        for picture in at_constant_rate(read_video(clip), fps):
            writer.write(crop(picture))
            count += 1
        times = np.arange(round(AUDIO_RATE * count / fps)) / AUDIO_RATE
        tone = np.where(times % 1 < TONE_S, TONE_LEVEL * np.sin(2 * np.pi * TONE_HZ * times), 0)
        writer.write_audio(tone.astype(np.int16))
    return out
