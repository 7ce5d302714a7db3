"""Bjontegaard deltas: the mean difference between two rate-quality curves, with intervals over clips.

After G. Bjontegaard, "Calculation of average PSNR differences between RD-curves", VCEG-M33 (2001), with the piecewise
cubic Hermite interpolation (Fritsch-Carlson slopes) of the JCT-VC and JVET common test conditions instead of one cubic,
which overshoots. Curves are compared only over the range that both cover.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = Sequence[tuple[float, float]]
"""(rate, quality) pairs in any order; rate in any unit above 0, quality in any unit where more is better."""

Array = NDArray[np.float64]


class NoOverlapError(ValueError):
    """The two curves share no range, so nothing can be compared."""


def bd_rate(anchor: Points, test: Points) -> float:
    """Mean rate of `test` over that of `anchor` at equal quality, in per cent: -20 is a fifth fewer bits.

    Both need two points or more and quality that rises with rate (see `frontier`); ValueError otherwise,
    NoOverlapError when no quality is reached by both.
    """
    rates_a, qualities_a = _curve(anchor)
    rates_b, qualities_b = _curve(test)
    return float(np.expm1(_mean_gap(qualities_a, np.log(rates_a), qualities_b, np.log(rates_b), "quality")) * 100)


def bd_quality(anchor: Points, test: Points) -> float:
    """Mean quality of `test` less that of `anchor` at equal rate (BD-PSNR, if quality is PSNR). Errors as `bd_rate`."""
    rates_a, qualities_a = _curve(anchor)
    rates_b, qualities_b = _curve(test)
    return _mean_gap(np.log(rates_a), qualities_a, np.log(rates_b), qualities_b, "rate")


def frontier(points: Points) -> list[tuple[float, float]]:
    """The points that no other one beats, in order of rate. An encoder at its floor gives many points of little use."""
    kept: list[tuple[float, float]] = []
    for rate, quality in sorted(points, key=lambda point: (point[0], -point[1])):
        if not kept or quality > kept[-1][1]:
            kept.append((rate, quality))
    return kept


@dataclass(frozen=True)
class Interval:
    mean: float
    low: float
    high: float
    count: int


def bootstrap(values: Sequence[float], level: float = 0.95, draws: int = 10_000, seed: int = 0) -> Interval:
    """Mean of per-clip values and its percentile bootstrap interval: how far it would move with other such clips."""
    if not values:
        raise ValueError("no values")
    sample = np.asarray(values, np.float64)
    picks = np.random.default_rng(seed).integers(0, len(sample), (draws, len(sample)))
    low, high = np.quantile(sample[picks].mean(1), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(sample.mean()), float(low), float(high), len(sample))


@dataclass(frozen=True)
class Comparison:
    """`rate` in per cent, `quality` in its unit, over the clips where the curves overlap; None where none does."""

    rate: Interval | None
    quality: Interval | None
    no_common_quality: list[str]
    """Clips left out of `rate`."""
    no_common_rate: list[str]
    """Clips left out of `quality`."""


def compare(anchor: Mapping[str, Points], test: Mapping[str, Points]) -> Comparison:
    """Both deltas over clips (name -> points), each curve reduced to its frontier. Both sides need the same clips."""
    if set(anchor) != set(test):
        raise ValueError(f"clips differ: {', '.join(sorted(set(anchor) ^ set(test)))}")
    rates: list[float] = []
    qualities: list[float] = []
    no_quality: list[str] = []
    no_rate: list[str] = []
    for clip in sorted(anchor):
        a, b = frontier(anchor[clip]), frontier(test[clip])
        for function, values, left_out in ((bd_rate, rates, no_quality), (bd_quality, qualities, no_rate)):
            try:
                values.append(function(a, b))
            except NoOverlapError:
                left_out.append(clip)
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
    return (_integral(x_b, y_b, low, high) - _integral(x_a, y_a, low, high)) / float(high - low)


def _integral(x: Array, y: Array, low: float, high: float) -> float:
    """Of the piecewise cubic through (x, y), exactly: each piece is integrated as a polynomial."""
    slopes = _slopes(x, y)
    total = 0.0
    for i, width in enumerate(np.diff(x)):
        start, end = max(low, x[i]) - x[i], min(high, x[i + 1]) - x[i]
        if end <= start:
            continue
        secant = (y[i + 1] - y[i]) / width
        square = (3 * secant - 2 * slopes[i] - slopes[i + 1]) / width
        cube = (slopes[i] + slopes[i + 1] - 2 * secant) / width**2
        area = np.polyint([cube, square, slopes[i], y[i]])
        total += float(np.polyval(area, end) - np.polyval(area, start))
    return total


def _slopes(x: Array, y: Array) -> Array:
    """F. N. Fritsch and J. Butland, SIAM J. Sci. Stat. Comput. 5 (1984): weighted harmonic means, no overshoot."""
    widths = np.diff(x)
    secants = np.diff(y) / widths
    if len(x) == 2:
        return np.repeat(secants, 2)
    slopes = np.zeros(len(x))
    before, after = widths[:-1] + 2 * widths[1:], 2 * widths[:-1] + widths[1:]
    same = secants[:-1] * secants[1:] > 0
    slopes[1:-1][same] = ((before + after) / (after / secants[1:] + before / secants[:-1]))[same]
    slopes[0] = _end_slope(widths[0], widths[1], secants[0], secants[1])
    slopes[-1] = _end_slope(widths[-1], widths[-2], secants[-1], secants[-2])
    return slopes


def _end_slope(width: float, next_width: float, secant: float, next_secant: float) -> float:
    slope = ((2 * width + next_width) * secant - width * next_secant) / (width + next_width)
    if slope * secant <= 0:
        return 0.0
    if secant * next_secant <= 0 and abs(slope) > 3 * abs(secant):
        return 3 * secant
    return slope
