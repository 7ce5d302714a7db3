"""Flicker and motion error on pictures with a known result."""

import numpy as np
import pytest

from iwcodec.benchmarks.metrics.temporal import flicker, motion_error
from support.metrics.pictures import shifted, texture


def test_flicker_is_change_where_the_original_is_still() -> None:
    still, half = texture(), texture()
    half[:, :96] = texture(seed=5)[:, :96]
    brighter = still + np.uint8(6)
    assert flicker((still, still), (still, still)) == 0
    assert flicker((still, still), (still, brighter)) == pytest.approx(6)
    # The decoded left half follows a real change; only the right half, which changes without reason, counts.
    blinking = half.copy()
    blinking[:, 96:] += np.uint8(4)
    assert flicker((still, half), (still, blinking)) == pytest.approx(4, abs=0.3)
    assert flicker((still, 255 - still), (still, still)) is None or flicker((still, 255 - still), (still, still)) == 0


def test_motion_error_is_the_missing_motion() -> None:
    a, b = texture(), shifted(texture(), 3)
    assert motion_error((a, b), (a, b)) == 0
    assert motion_error((a, b), (a, a)) == pytest.approx(3, abs=0.3)
    assert motion_error((a, b), (a, shifted(texture(), 2))) == pytest.approx(1, abs=0.3)
