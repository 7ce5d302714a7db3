"""Side-by-side pictures: the animation plays at its own rate and shows every column."""

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from iwcodec.benchmarks.comparison_pictures import (
    ANIMATION_FPS,
    ANIMATION_S,
    ANIMATION_SIDE,
    LABEL_HEIGHT,
    evenly_spaced,
    labelled,
    write_animation,
)

needs_webp_reader = pytest.mark.skipif(not hasattr(cv2, "imreadanimation"), reason="needs OpenCV 4.11")


@needs_webp_reader
def test_animation_is_a_looping_webp(tmp_path: Path) -> None:
    """Grey levels change with every frame in the first column and are constant in the second."""
    levels = [20 * n % 240 for n in range(200)]
    changing = [np.full((64, 64, 3), level, np.uint8) for level in levels]
    constant = [np.full((64, 64, 3), 80, np.uint8)] * 200
    write_animation(tmp_path / "a.webp", [changing, constant], ["changing", "constant"], Fraction(24))
    data = (tmp_path / "a.webp").read_bytes()
    assert data[:4] == b"RIFF"
    assert data[8:12] == b"WEBP"
    at = data.index(b"ANIM")
    assert data[at + 12 : at + 14] == b"\0\0", "0 means an endless loop (WebP container specification)"
    found, animation = cv2.imreadanimation(str(tmp_path / "a.webp"))
    assert found
    assert len(animation.frames) == ANIMATION_FPS * ANIMATION_S
    assert abs(sum(animation.durations) - 1000 * ANIMATION_S) < 100
    for n in (0, 30, 71):
        frame = animation.frames[n][..., :3]
        assert frame.shape == (ANIMATION_SIDE + LABEL_HEIGHT, 2 * ANIMATION_SIDE, 3)
        below = frame[LABEL_HEIGHT + 10 :]
        assert abs(float(below[:, : ANIMATION_SIDE - 10].mean()) - levels[2 * n]) < 4
        assert abs(float(below[:, ANIMATION_SIDE + 10 :].mean()) - 80) < 4


@needs_webp_reader
def test_short_clip_is_animated_whole(tmp_path: Path) -> None:
    clip = [np.full((64, 64, 3), 20 * n, np.uint8) for n in range(10)]
    write_animation(tmp_path / "a.webp", [clip], [""], Fraction(10))
    assert len(cv2.imreadanimation(str(tmp_path / "a.webp"))[1].frames) == 10


def test_label_is_above_the_picture() -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    result = labelled(picture, "a text that is much too long for so narrow a picture")
    assert result.shape == (64 + LABEL_HEIGHT, 64, 3)
    assert (result[LABEL_HEIGHT:] == 0).all()
    strip = result[:LABEL_HEIGHT]
    assert strip.min() < 100
    assert (strip[:, -3:] > 200).all(), "the text must fit"


def test_frames_are_evenly_spaced_between_the_ends() -> None:
    assert list(evenly_spaced(60, 6)) == [5, 15, 25, 35, 45, 55]
