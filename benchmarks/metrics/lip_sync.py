"""Lips against loudness: whether the mouth opens when the speaker is heard (THEval, CVPR 2026, measures this).

SyncNet's scores move by re-encoding alone; the correlation of mouth opening with the level of the sound does not. Read
it beside the original's own: a mouth that stays closed gives 0, and nobody's lips follow loudness perfectly.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from iwcodec.benchmarks.metrics.expression import MIN_FACES, Detector, correlation, measured_frames
from iwcodec.codec.media.types import AUDIO_RATE, Picture, Samples
from iwcodec.codec.sources.expression import expression

WINDOW_S = 0.1
"""Length of sound whose level belongs to a frame, around the frame's middle: about a syllable's half."""
FLOOR_DB = -60.0
"""Level of silence, in dB of full scale."""

Levels = NDArray[np.float64]
"""(frames,): level of the sound in dB of full scale."""


def levels(sound: Iterable[Samples], frames: int, fps: float) -> Levels | None:
    """The level of mono sound at AUDIO_RATE that starts with the first frame, for each frame; None without sound."""
    blocks = list(sound)
    if not blocks:
        return None
    power = np.concatenate(([0.0], np.cumsum(np.square(np.concatenate(blocks) / 32768.0))))
    middles = (np.arange(frames) + 0.5) / fps * AUDIO_RATE
    half = WINDOW_S / 2 * AUDIO_RATE
    start, end = ((middles + side).round().astype(int).clip(0, len(power) - 1) for side in (-half, half))
    mean = (power[end] - power[start]) / np.maximum(end - start, 1)
    return 10 * np.log10(np.maximum(mean, 10 ** (FLOOR_DB / 10)))


def loudness_correlation(detect: Detector, pictures: Sequence[Picture], level: Levels) -> float | None:
    """Correlation of the mouth's opening with the level of the sound; None with too few faces.

    The same frames of a clip are measured as for expression.
    """
    frames = measured_frames(len(pictures))
    faces = [(n, face) for n in frames if (face := detect(pictures[n])) is not None]
    if len(faces) < MIN_FACES:
        return None
    opening = np.array([expression(face)[2] for _, face in faces])
    return correlation(level[[n for n, _ in faces]], opening)
