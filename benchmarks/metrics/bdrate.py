"""Bjontegaard deltas: the mean difference between two rate-quality curves, with bootstrap intervals over clips.

G. Bjontegaard, "Calculation of average PSNR differences between RD-curves", VCEG-M33 (2001), with the piecewise cubic
Hermite interpolation of the JCT-VC and JVET common test conditions (scipy's PchipInterpolator) instead of a single
cubic, which overshoots. Curves are compared only over the range that both cover.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.errors import CodecError
from iwcodec.codec.extras import install

Points = Sequence[tuple[float, float]]
"""(rate, quality) pairs in any order; rate in any unit above 0, quality in any unit where more is better."""

Array = NDArray[np.float64]


class NoOverlapError(ValueError):
    """The two curves have no common range to compare over."""


def bd_rate(anchor: Points, test: Points) -> float:
    """BD-rate: mean rate difference of `test` from `anchor` at equal quality in per cent; -20 means 20 % fewer bits.

    Both curves need at least two points and quality that rises with rate (see `frontier`). Raises ValueError
    otherwise, NoOverlapError if the curves have no common quality range, CodecError without scipy.
    """
    rates_a, qualities_a = _curve(anchor)
    rates_b, qualities_b = _curve(test)
    return float(np.expm1(_mean_gap(qualities_a, np.log(rates_a), qualities_b, np.log(rates_b), "quality")) * 100)


def bd_quality(anchor: Points, test: Points) -> float:
    """Mean quality of `test` minus that of `anchor` at equal rate (BD-PSNR for PSNR). Raises as `bd_rate`."""
    rates_a, qualities_a = _curve(anchor)
    rates_b, qualities_b = _curve(test)
    return _mean_gap(np.log(rates_a), qualities_a, np.log(rates_b), qualities_b, "rate")


def frontier(points: Points) -> list[tuple[float, float]]:
    """The Pareto-optimal points in order of rate. Below its lowest useful rate an encoder gives many that are not."""
    kept: list[tuple[float, float]] = []
    for rate, quality in sorted(points, key=lambda point: (point[0], -point[1])):
        if not kept or quality > kept[-1][1]:
            kept.append((rate, quality))
    return kept


@dataclass(frozen=True)
class Interval:
    """Mean of `count` values and its confidence interval."""

    mean: float
    low: float
    high: float
    count: int


def bootstrap(values: Sequence[float], level: float = 0.95, draws: int = 10_000, seed: int = 0) -> Interval:
    """Mean of per-clip values with its percentile bootstrap interval. Raises ValueError without values."""
    if not values:
        raise ValueError("no values")
    sample = np.asarray(values, np.float64)
    picks = np.random.default_rng(seed).integers(0, len(sample), (draws, len(sample)))
    low, high = np.quantile(sample[picks].mean(1), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(sample.mean()), float(low), float(high), len(sample))


@dataclass(frozen=True)
class Comparison:
    """Deltas over the clips whose curves overlap, `rate` in per cent, `quality` in its unit; None if none overlaps."""

    rate: Interval | None
    quality: Interval | None
    no_common_quality: list[str]
    """Clips excluded from `rate`."""
    no_common_rate: list[str]
    """Clips excluded from `quality`."""


def compare(anchor: Mapping[str, Points], test: Mapping[str, Points]) -> Comparison:
    """Both deltas over clips (name -> points), each curve reduced to its frontier.

    Raises ValueError unless both sides have the same clips.
    """
    if set(anchor) != set(test):
        raise ValueError(f"clips differ: {', '.join(sorted(set(anchor) ^ set(test)))}")
    rates: list[float] = []
    qualities: list[float] = []
    no_quality: list[str] = []
    no_rate: list[str] = []
    for clip in sorted(anchor):
        a, b = frontier(anchor[clip]), frontier(test[clip])
        for function, values, excluded in ((bd_rate, rates, no_quality), (bd_quality, qualities, no_rate)):
            try:
                values.append(function(a, b))
            except NoOverlapError:
                excluded.append(clip)
    return Comparison(
        bootstrap(rates) if rates else None, bootstrap(qualities) if qualities else None, no_quality, no_rate
    )


def _curve(points: Points) -> tuple[Array, Array]:
    rates, qualities = np.array(sorted(points), np.float64).reshape(-1, 2).T
    if len(rates) < 2:
        raise ValueError(f"a curve needs two points or more, not {len(rates)}")
    if rates[0] <= 0 or not np.isfinite(qualities).all():
        raise ValueError("rates must be above 0 and qualities finite")
    if (np.diff(rates) <= 0).any() or (np.diff(qualities) <= 0).any():
        raise ValueError("quality must rise with rate; use frontier() first")
    return rates, qualities


def _mean_gap(x_a: Array, y_a: Array, x_b: Array, y_b: Array, name: str) -> float:
    low, high = max(x_a[0], x_b[0]), min(x_a[-1], x_b[-1])
    if low >= high:
        raise NoOverlapError(f"the curves have no {name} in common")
    try:
        from scipy.interpolate import PchipInterpolator
    except ImportError as error:
        raise CodecError(f"Bjontegaard deltas need scipy: {install('bench')}.") from error
    area_a, area_b = (float(PchipInterpolator(x, y).integrate(low, high)) for x, y in ((x_a, y_a), (x_b, y_b)))
    return (area_b - area_a) / float(high - low)
