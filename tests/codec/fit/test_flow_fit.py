"""Keypoints from optical flow alone."""

import numpy as np

from iwcodec.codec.fit.alignment import reference, small_grey, unknowns
from iwcodec.codec.fit.flow_fit import FlowFit
from support.codec.textured_source import SIZE, K, moved, textured_source


def test_a_known_shift_is_found() -> None:
    source = textured_source()
    start = unknowns(source.keypoints)
    values = FlowFit().solve(reference(source), small_grey(moved(9, -5)), start)
    shift = (values - start).reshape(3, K) * (SIZE / 2)
    assert np.abs(np.median(shift, axis=1)[:2] - (9, -5)).max() < 0.5
    np.testing.assert_allclose(shift[2], 0, atol=1e-3)


def test_an_unrelated_picture_leaves_the_start() -> None:
    source = textured_source()
    noise = np.random.default_rng(1).integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)
    start = unknowns(source.keypoints)
    values = FlowFit().solve(reference(source), small_grey(noise), start)
    assert np.abs(values - start).mean() < 0.03
