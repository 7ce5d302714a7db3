"""Crop modes, and cutting the square out of a picture."""

import numpy as np
import pytest

from iwcodec.codec.errors import CodecError
from iwcodec.codec.media.crop.square import Crop, centre_square, crop_resize, parse_crop


def test_crop_modes() -> None:
    assert parse_crop("face", 640, 360) is None
    assert parse_crop("none", 640, 360) == Crop(140, 0, 360)
    assert parse_crop("face", 512, 512) == Crop(0, 0, 512)
    assert parse_crop("100, 20,300", 640, 360) == Crop(100, 20, 300)
    assert parse_crop("10,20,300", 512, 512) == Crop(10, 20, 300)
    assert centre_square(33, 101) == Crop(0, 34, 33)


@pytest.mark.parametrize(
    ("mode", "word"),
    [
        ("middle", "not a crop"),
        ("", "not a crop"),
        ("1,2", "not a crop"),
        ("-1,0,100", "not a crop"),
        ("1,2,3,4", "not a crop"),
        ("0,0,8", "at least"),
        ("300,0,360", "inside"),
        ("0,1,360", "inside"),
        ("0,0,999999", "inside"),
    ],
)
def test_invalid_crops_are_refused(mode: str, word: str) -> None:
    with pytest.raises(CodecError, match=word):
        parse_crop(mode, 640, 360)


def test_crop_resize_cuts_out_exactly_the_square() -> None:
    picture = np.zeros((60, 80, 3), np.uint8)
    picture[10:50, 20:60] = (200, 100, 50)
    for size in (20, 40, 64):
        square = crop_resize(picture, Crop(20, 10, 40), size)
        assert square.shape == (size, size, 3)
        assert square.flags.c_contiguous
        assert (square == (200, 100, 50)).all()


def test_crop_resize_shrinks_by_averaging() -> None:
    checks = np.indices((64, 64)).sum(axis=0) % 2 * 255
    picture = np.repeat(checks[..., None], 3, axis=2).astype(np.uint8)
    assert np.abs(crop_resize(picture, Crop(0, 0, 64), 16).astype(int) - 127.5).max() <= 1


def test_crop_resize_repeats_the_edge_outside() -> None:
    picture = np.zeros((20, 40, 3), np.uint8)
    picture[0] = 200
    square = crop_resize(picture, Crop(-5, -10, 50), 50)
    assert (square[:11] == 200).all()
    assert (square[11:] == 0).all()
