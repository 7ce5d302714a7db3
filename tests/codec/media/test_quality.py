"""PSNR, and the order in which frames are sampled."""

import numpy as np
import pytest

from iwcodec.codec.media.quality import PERFECT_DB, psnr, sampling_order, weighted_psnr


def test_weighted_psnr_counts_pixels_by_their_weight() -> None:
    grey, ones = np.full((8, 8, 3), 100, np.uint8), np.ones((8, 8), np.float32)
    off, left = grey.copy(), ones.copy()
    off[:, :4], left[:, 4:] = 104, 0
    assert weighted_psnr(grey, grey, ones) == PERFECT_DB
    assert weighted_psnr(grey, off, ones) == pytest.approx(psnr(grey, off))
    assert weighted_psnr(grey, off, left) == pytest.approx(10 * np.log10(255**2 / 16))
    assert weighted_psnr(grey, off, 1 - left) == PERFECT_DB


def test_psnr_is_over_all_values() -> None:
    grey = np.full((8, 8, 3), 100, np.uint8)
    assert psnr(grey, grey) == PERFECT_DB
    assert psnr(grey, grey + np.uint8(1)) == pytest.approx(20 * np.log10(255))
    off = grey.copy()
    off[..., 0] += 3
    assert psnr(grey, off) == pytest.approx(10 * np.log10(255**2 / 3))


@pytest.mark.parametrize("count", [0, 1, 7, 200, 456, 5000])
def test_every_frame_is_sampled_once(count: int) -> None:
    assert sorted(sampling_order(count)) == list(range(count))


@pytest.mark.parametrize("count", [200, 284, 456, 5000])
@pytest.mark.parametrize("samples", [12, 24, 48, 128])
def test_any_prefix_is_evenly_spread_and_avoids_periods(count: int, samples: int) -> None:
    chosen = sorted(sampling_order(count)[:samples])
    assert np.diff([0, *chosen, count]).max() <= 2 * count / samples
    for stride in (2, 3, 4, 8):
        share = np.mean([number % stride == 0 for number in chosen])
        assert share == pytest.approx(1 / stride, abs=0.05 + 2 / samples)
