"""The level of sound at frames, and its correlation with the mouth's opening."""

from collections.abc import Callable

import numpy as np
import pytest

from iwcodec.benchmarks.metrics.lip_sync import FLOOR_DB, WINDOW_S, levels, loudness_correlation
from iwcodec.codec.media.types import AUDIO_RATE, Picture, Samples
from iwcodec.codec.sources.face_mesh import Landmarks

FPS = 25


def tone(amplitude: float, seconds: float) -> Samples:
    time = np.arange(round(seconds * AUDIO_RATE)) / AUDIO_RATE
    return (amplitude * 32767 * np.sin(2 * np.pi * 300 * time)).astype(np.int16)


def test_levels_are_decibels_of_full_scale() -> None:
    sound = np.concatenate((tone(1, 1), tone(0.1, 1), np.zeros(AUDIO_RATE, np.int16)))
    level = levels(np.array_split(sound, 7), 4 * FPS, FPS)
    assert level[FPS // 2] == pytest.approx(-3.01, abs=0.02)  # a sine of full scale
    assert level[FPS + FPS // 2] == pytest.approx(-23.01, abs=0.02)
    assert (level[2 * FPS + 2 :] == FLOOR_DB).all()  # silence, then no sound at all
    loud = (WINDOW_S - 1 / FPS) / 2 / WINDOW_S  # share of the first quiet frame's window that lies before the change
    assert level[FPS] == pytest.approx(-3.01 + 10 * np.log10(loud + (1 - loud) * 0.01), abs=0.02)


def test_a_clip_without_sound_has_no_levels() -> None:
    assert levels([], 10, FPS) is None


def test_a_mouth_that_follows_the_sound_correlates() -> None:
    level = np.tile([-60.0, -40.0, -20.0, -30.0], 5)
    picture = [np.full((2, 2, 3), n, np.uint8) for n in range(20)]
    follows, closed = mouth(lambda n: 60 + level[n]), mouth(lambda n: 0)
    assert loudness_correlation(follows, picture, level) == pytest.approx(1)
    assert loudness_correlation(mouth(lambda n: -level[n]), picture, level) == pytest.approx(-1)
    assert loudness_correlation(closed, picture, level) == 0
    assert loudness_correlation(lambda picture: None, picture, level) is None


def mouth(opening: Callable[[int], float]) -> Callable[[Picture], Landmarks]:
    """A detector of a face whose mouth is opened by opening(the picture's number) pixels."""

    def detect(picture: Picture) -> Landmarks:
        face = np.zeros((478, 2), np.float32)
        face[263], face[362], face[133] = (100, 0), (70, 0), (30, 0)
        face[14] = (0, opening(int(picture[0, 0, 0])))
        return face

    return detect
