"""Cuts are found; flashes, fades and movement are none."""

import cv2
import numpy as np
import pytest

from iwcodec.codec.media.shots import ShotDetector
from iwcodec.codec.media.types import Picture
from support.media.clips import plain


def textured(seed: int, shift: int = 0, level: float = 1.0) -> Picture:
    """A picture of blocks that moves by `shift` pixels."""
    blocks = np.random.default_rng(seed).integers(0, 256, (9, 16, 3), np.uint8)
    return (np.roll(blocks.repeat(8, 0).repeat(8, 1), shift, axis=1) * level).astype(np.uint8)


def shots_of(pictures: list[Picture]) -> list[int]:
    detector = ShotDetector()
    for picture in pictures:
        detector.add(picture)
    return detector.shots()


def test_cuts_are_found() -> None:
    black = [plain((0, 0, 0), 128, 72)] * 12
    first = [textured(1, n // 4) for n in range(24)]
    second = [textured(2, n // 4) for n in range(12)]
    assert shots_of([*black, *first, *second, *black]) == [0, 12, 36, 48]
    assert shots_of([*first[:6], *second]) == [0, 6]


def test_a_faint_title_on_black_is_a_shot() -> None:
    title = plain((0, 0, 0), 128, 72)
    title[30:40, 20:110] = 90
    assert shots_of([plain((0, 0, 0), 128, 72)] * 10 + [title] * 10) == [0, 10]


def test_flashes_are_no_cuts() -> None:
    still = [textured(1)] * 10
    for length in (1, 2, 4):
        assert shots_of([*still, *[plain((255, 255, 255), 128, 72)] * length, *still]) == [0]


def test_movement_is_no_cut() -> None:
    assert shots_of([textured(1, 3 * n) for n in range(50)]) == [0]


def swaying(seed: int, number: int) -> Picture:
    """A soft picture that moves to and fro within two seconds."""
    blobs = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), np.uint8)
    return np.roll(cv2.resize(blobs, (128, 72)), round(4 * np.sin(number / 8)), axis=1)


@pytest.mark.parametrize("length", [25, 50, 75])
def test_slow_dissolves_between_moving_pictures_change_the_shot(length: int) -> None:
    """The changes before and after them are not much smaller."""
    shares = [min(max((n - 60) / length, 0.0), 1.0) for n in range(120 + length)]
    mixed = [swaying(1, n) * (1 - share) + swaying(4, n).astype(float) * share for n, share in enumerate(shares)]
    shots = shots_of([np.rint(picture).astype(np.uint8) for picture in mixed])
    assert len(shots) == 2
    assert 60 <= shots[1] <= 60 + length


@pytest.mark.parametrize("length", [6, 12, 20])
def test_dissolves_and_fades_change_the_shot(length: int) -> None:
    for first, second in ((textured(1), textured(2)), (textured(1) * 0, textured(1))):
        steps = [np.rint(first + (second.astype(float) - first) * n / length).astype(np.uint8) for n in range(length)]
        shots = shots_of([*[first] * 30, *steps, *[second] * 30])
        assert len(shots) == 2
        assert 30 <= shots[1] <= 30 + length


def test_the_first_picture_of_a_shot_is_known_at_once() -> None:
    detector = ShotDetector()
    seen = [detector.add(picture) for picture in [textured(1)] * 6 + [textured(2)] * 6]
    assert [n for n, cut in enumerate(seen) if cut] == [6]


def test_repeated_pictures_are_not_compared() -> None:
    detector, picture = ShotDetector(), textured(1)
    detector.add(picture)
    assert not detector.add(textured(2), repeated=True)
    assert detector.shots() == [0]


def test_nothing_and_one_picture_are_one_shot() -> None:
    assert shots_of([]) == [0]
    assert shots_of([textured(1)]) == [0]
