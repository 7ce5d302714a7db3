"""Bjontegaard deltas against published worked examples, and on curves with an exact result."""

import numpy as np
import pytest

pytest.importorskip("scipy")

from iwcodec.benchmarks.metrics.bdrate import NoOverlapError, Points, bd_quality, bd_rate, bootstrap, compare, frontier

# JCTVC-E137 (2011), the examples by which VMAF's and Android CTS's calculators are tested: rate in kbps, luma PSNR,
# and the BD-rate published with them.
E137: list[tuple[Points, Points, float]] = [
    (
        [(108048.8736, 43.6471), (61279.976, 40.3953), (33905.6656, 37.247), (18883.6928, 34.2911)],
        [(108061.2784, 43.6768), (61299.9936, 40.4232), (33928.7472, 37.2761), (18910.912, 34.3147)],
        -0.465215420752807,
    ),
    (
        [(40433.8848, 37.5761), (7622.7456, 35.3756), (2394.488, 33.8977), (1017.6184, 32.0603)],
        [(40370.12, 37.5982), (7587.0024, 35.4025), (2390.0944, 33.9194), (1017.0984, 32.0822)],
        -1.8779823450567612,
    ),
]
ANCHOR: Points = [(9487.76, 40.037), (4593.60, 38.615), (2486.44, 36.845), (1358.24, 34.851)]
TEST: Points = [(9787.80, 40.121), (4469.00, 38.651), (2451.52, 36.970), (1356.24, 34.987)]


@pytest.mark.parametrize(("anchor", "test", "expected"), E137)
def test_published_examples(anchor: Points, test: Points, expected: float) -> None:
    assert bd_rate(anchor, test) == pytest.approx(expected, rel=1e-9)


def test_deltas_equal_mean_differences_of_scipy_integrals() -> None:
    interpolate = pytest.importorskip("scipy.interpolate")
    for anchor, test in [*((a, t) for a, t, _ in E137), (ANCHOR, TEST)]:
        (r1, q1), (r2, q2) = np.array(sorted(anchor)).T, np.array(sorted(test)).T
        low, high = max(q1[0], q2[0]), min(q1[-1], q2[-1])
        areas = [interpolate.PchipInterpolator(q, np.log(r)).integrate(low, high) for r, q in ((r1, q1), (r2, q2))]
        assert bd_rate(anchor, test) == pytest.approx(100 * np.expm1((areas[1] - areas[0]) / (high - low)), rel=1e-9)
        low, high = np.log(max(r1[0], r2[0])), np.log(min(r1[-1], r2[-1]))
        areas = [interpolate.PchipInterpolator(np.log(r), q).integrate(low, high) for r, q in ((r1, q1), (r2, q2))]
        assert bd_quality(anchor, test) == pytest.approx((areas[1] - areas[0]) / (high - low), rel=1e-9)


def test_exact_cases() -> None:
    assert bd_rate(ANCHOR, ANCHOR) == pytest.approx(0, abs=1e-9)
    assert bd_rate(ANCHOR, [(rate / 2, quality) for rate, quality in ANCHOR]) == pytest.approx(-50)
    assert bd_quality(ANCHOR, [(rate, quality + 1.5) for rate, quality in ANCHOR]) == pytest.approx(1.5)
    assert bd_rate([(1, 1), (2, 2)], [(2, 1), (4, 2)]) == pytest.approx(100)


def test_only_the_common_range_is_compared() -> None:
    line = [(float(2**k), float(k)) for k in range(8)]
    assert bd_rate(line[:5], [(rate * 1.1, quality) for rate, quality in line[3:]]) == pytest.approx(10)


def test_curves_without_a_common_range_raise() -> None:
    with pytest.raises(NoOverlapError, match="quality"):
        bd_rate([(1, 20), (2, 22)], [(1, 30), (2, 32)])
    with pytest.raises(NoOverlapError, match="rate"):
        bd_quality([(1, 20), (2, 22)], [(3, 20), (4, 22)])


def test_invalid_curves_raise() -> None:
    for points in ([], [(1, 2)], [(0, 1), (1, 2)], [(1, 2), (2, 1)], [(1, 1), (1, 2)], [(1, 1), (2, float("inf"))]):
        with pytest.raises(ValueError, match=r"must|needs"):
            bd_rate(points, ANCHOR)


def test_frontier_drops_dominated_points() -> None:
    points = [(5.0, 30.0), (4.0, 31.0), (6.0, 33.0), (6.0, 32.0), (7.0, 33.0)]
    assert frontier(points) == [(4.0, 31.0), (6.0, 33.0)]


def test_bootstrap_covers_the_mean_and_is_deterministic() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for trial in range(100):
        interval = bootstrap(list(rng.normal(3, 1, 20)), draws=500, seed=trial)
        hits += interval.low <= 3 <= interval.high
    assert 85 <= hits <= 99
    assert bootstrap([1.0, 2.0, 4.0]) == bootstrap([1.0, 2.0, 4.0])
    assert bootstrap([5.0]).low == bootstrap([5.0]).high == 5
    with pytest.raises(ValueError, match="no values"):
        bootstrap([])


def test_compare_lists_the_clips_it_excludes() -> None:
    low: Points = [(1, 20), (2, 22)]
    result = compare(
        {"a": ANCHOR, "b": ANCHOR, "far": low},
        {"a": TEST, "b": TEST, "far": [(rate, quality + 9) for rate, quality in low]},
    )
    assert result.rate.mean == pytest.approx(bd_rate(ANCHOR, TEST))
    assert result.rate.count == 2
    assert result.no_common_quality == ["far"]
    assert result.no_common_rate == []
    assert result.quality.count == 3
    assert compare({"far": low}, {"far": [(9, 40), (10, 41)]}).rate is None
    with pytest.raises(ValueError, match="clips differ: b"):
        compare({"a": ANCHOR}, {"a": TEST, "b": TEST})
