"""PSNR, and the frames that it is taken of."""

import numpy as np
import pytest

from iwcodec.codec.media.quality import PERFECT_DB, judging_order, psnr


def test_psnr_is_of_all_values():
    grey = np.full((8, 8, 3), 100, np.uint8)
    assert psnr(grey, grey) == PERFECT_DB
    assert psnr(grey, grey + np.uint8(1)) == pytest.approx(20 * np.log10(255))
    off = grey.copy()
    off[..., 0] += 3
    assert psnr(grey, off) == pytest.approx(10 * np.log10(255**2 / 3))


@pytest.mark.parametrize("count", [0, 1, 7, 200, 456, 5000])
def test_every_frame_comes_once(count: int):
    assert sorted(judging_order(count)) == list(range(count))


@pytest.mark.parametrize("count", [200, 284, 456, 5000])
@pytest.mark.parametrize("judges", [12, 24, 48, 128])
def test_any_beginning_is_spread_over_the_clip_and_in_step_with_nothing(count: int, judges: int):
    chosen = sorted(judging_order(count)[:judges])
    assert np.diff([0, *chosen, count]).max() <= 2 * count / judges
    for stride in (2, 3, 4, 8):
        share = np.mean([number % stride == 0 for number in chosen])
        assert share == pytest.approx(1 / stride, abs=0.05 + 2 / judges)
