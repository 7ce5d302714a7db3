"""Colour conversion of source pictures."""

import numpy as np
import pytest

from iwcodec.codec.sources.yuv import rgb_to_yuv420, yuv420_to_rgb

COLOURS = ([255, 255, 255], [0, 0, 0], [128, 128, 128], [255, 0, 0], [0, 255, 0], [0, 0, 255])


@pytest.mark.parametrize("colour", COLOURS)
def test_plain_colours_survive_the_conversion(colour: list[int]) -> None:
    plain = np.full((8, 8, 3), colour, np.uint8)
    assert np.abs(yuv420_to_rgb(rgb_to_yuv420(plain)).astype(int) - plain).max() <= 1


def test_luma_comes_first_and_chroma_is_subsampled() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (8, 6, 1)).astype(np.uint8).repeat(3, axis=2)
    planes = rgb_to_yuv420(grey)
    assert planes.shape == (12, 6)
    np.testing.assert_array_equal(planes[:8], grey[..., 0])
    assert (planes[8:] == 128).all()
    np.testing.assert_array_equal(yuv420_to_rgb(planes), grey)
