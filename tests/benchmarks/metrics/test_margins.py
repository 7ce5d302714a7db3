"""Margins over other codecs at the same rate."""

import pytest

from iwcodec.benchmarks.metrics.margins import at_rate, margins


def test_quality_is_interpolated_linearly_over_log_rate() -> None:
    points = [(4.0, 30.0), (16.0, 34.0), (8.0, 29.0)]  # the last point is dominated by the first
    assert at_rate(points, 8.0) == pytest.approx(32.0)
    assert at_rate(points, 4.0) == 30.0
    assert at_rate(points, 99.0) == 34.0
    assert at_rate(points, 3.9) is None
    assert at_rate([], 3.9) is None


def test_margin_is_over_the_best_rival_and_names_the_worst_clip() -> None:
    ours = {"a": {4.0: (4.0, 31.0), 8.0: (8.0, 33.0)}, "b": {4.0: (4.0, 29.0)}, "c": {4.0: (3.0, 25.0)}}
    full = {"a": [(4.0, 30.0), (16.0, 34.0)], "b": [(4.0, 29.5)], "c": [(4.0, 20.0)]}
    half = {"a": [(2.0, 28.0), (8.0, 30.5)], "b": [(2.0, 28.0)]}
    first, second = margins(ours, [full, half])
    assert (first.clips, first.lost, first.worst_clip) == (2, 1, "b")  # no rival reaches the low rate of clip c
    assert first.worst == pytest.approx(-0.5)
    assert first.mean == pytest.approx((1.0 - 0.5) / 2)
    assert (second.asked_kbps, second.clips) == (8.0, 1)
    assert second.mean == pytest.approx(1.0)  # 32 dB of the first rival, 30.5 of the second
