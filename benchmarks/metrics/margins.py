"""Quality margin of one codec over others at the same rate, clip by clip.

A mean over clips hides the clips on which a codec loses, so the worst clip and the number of lost clips are kept too.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from iwcodec.benchmarks.metrics.bdrate import Points, frontier


@dataclass(frozen=True)
class Margin:
    """Margin at one target rate, in the metric's unit."""

    asked_kbps: float
    mean: float
    worst: float
    worst_clip: str
    worst_kbps: float
    lost: int
    """Number of clips with a negative margin."""
    clips: int
    """Number of clips on which at least one other codec reaches the rate spent."""


def at_rate(points: Points, kbps: float) -> float | None:
    """Quality at a rate: linear interpolation over log rate along the frontier.

    Above the last point its quality holds; below the first point None.
    """
    best = frontier(points)
    if not best or kbps < best[0][0]:
        return None
    for (low, worse), (high, better) in pairwise(best):
        if kbps <= high:
            return worse + (better - worse) * math.log(kbps / low) / math.log(high / low)
    return best[-1][1]


def margins(
    ours: Mapping[str, Mapping[float, tuple[float, float]]], rivals: Sequence[Mapping[str, Points]]
) -> list[Margin]:
    """Margin at each target rate over the best of the rivals at the rate we spent.

    `ours`: clip -> target kbps -> (kbps spent, quality). Each rival: clip -> (kbps, quality) points.
    """
    results = []
    for rate in sorted({rate for clip in ours.values() for rate in clip}):
        differences: list[tuple[float, str, float]] = []
        for clip, curve in ours.items():
            if rate not in curve:
                continue
            kbps, quality = curve[rate]
            theirs = [value for rival in rivals if (value := at_rate(rival.get(clip, ()), kbps)) is not None]
            if theirs:
                differences.append((quality - max(theirs), clip, kbps))
        if differences:
            worst, clip, kbps = min(differences)
            mean = sum(value for value, _, _ in differences) / len(differences)
            lost = sum(value < 0 for value, _, _ in differences)
            results.append(Margin(rate, mean, worst, clip, kbps, lost, len(differences)))
    return results
