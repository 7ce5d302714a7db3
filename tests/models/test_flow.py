"""Optical flow between two pictures."""

import cv2
import numpy as np

from iwcodec.models.flow import FLOW_SIZE, GRID, UNSURE, correspond


def textured(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    return cv2.resize(noise, (2 * FLOW_SIZE, 2 * FLOW_SIZE), interpolation=cv2.INTER_CUBIC)


def test_flow_of_a_shifted_picture_is_the_shift() -> None:
    large = textured(1)
    driving, source = large[40 : 40 + FLOW_SIZE, 40 : 40 + FLOW_SIZE], large[40 : 40 + FLOW_SIZE, 36 : 36 + FLOW_SIZE]
    match = correspond(driving.copy(), source.copy())
    inner = slice(4, GRID - 4)
    assert match.shift.shape == (GRID, GRID, 2)
    assert np.abs(match.shift[inner, inner] - np.float16([4 * 2 / FLOW_SIZE, 0])).max() < 0.005
    assert match.error[inner, inner].max() < 5


def test_flow_between_unrelated_pictures_is_marked_invalid() -> None:
    error = correspond(textured(1)[:FLOW_SIZE, :FLOW_SIZE].copy(), textured(2)[:FLOW_SIZE, :FLOW_SIZE].copy()).error
    assert (error == UNSURE).mean() > 0.3
