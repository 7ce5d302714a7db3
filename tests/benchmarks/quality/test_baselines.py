"""Baselines: the copy picks the best source, the flow oracle finds the motion."""

import cv2
import numpy as np
import pytest

from iwcodec.benchmarks.quality.baselines import flow_oracle, nearest_copy
from iwcodec.codec.media.quality import psnr
from iwcodec.codec.media.types import Picture


def texture(size: int = 128) -> Picture:
    noise = np.random.default_rng(0).integers(0, 256, (size // 8, size // 8, 3), np.uint8)
    return cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)


def moved(picture: Picture, dx: float, dy: float, zoom: float = 1.0) -> Picture:
    size = len(picture)
    centre = size / 2 * (1 - zoom)
    matrix = np.array([[zoom, 0, centre + dx], [0, zoom, centre + dy]])
    return cv2.warpAffine(picture, matrix, (size, size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def test_copy_picks_the_nearest_source() -> None:
    sources = [moved(texture(), shift, 0) for shift in (-8, 0, 8)]
    copies = list(nearest_copy((moved(texture(), shift, 0) for shift in (-7, 1, 7, 0)), sources))
    assert [next(i for i, s in enumerate(sources) if s is copy) for copy in copies] == [0, 1, 2, 1]


@pytest.mark.parametrize("grid", [64, 32])
def test_oracle_undoes_a_smooth_warp(grid: int) -> None:
    picture = moved(texture(), 5, -3, zoom=1.03)
    sources = [texture(), 255 - texture()]
    (best,) = flow_oracle([picture], sources, grid)
    (copy,) = nearest_copy([picture], sources)
    assert psnr(best, picture) > psnr(copy, picture) + 8


def test_oracle_picks_the_best_of_a_few_after_warping() -> None:
    # The blurred source is nearest before warping, because blur hides the motion; after warping the sharp one is.
    picture = moved(texture(), 6, 4)
    sharp, blurred = texture(), cv2.GaussianBlur(texture(), (0, 0), 9)
    assert psnr(blurred, picture) > psnr(sharp, picture)
    (best,) = flow_oracle([picture], [sharp, blurred], nearest=2)
    (only,) = flow_oracle([picture], [sharp, blurred], nearest=1)
    assert psnr(best, picture) > psnr(only, picture) + 5


def test_oracle_reproduces_a_source() -> None:
    (best,) = flow_oracle([texture()], [texture()])
    assert psnr(best, texture()) > 45


def test_no_sources_raise() -> None:
    with pytest.raises(ValueError, match="no sources"):
        list(nearest_copy([texture()], []))
