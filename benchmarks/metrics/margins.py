"""What one codec has over others at the same rate, clip by clip: where it wins, and where it does not.

A mean over clips hides those that lose. So the worst clip stands beside it, and how many clips lose at all.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from iwcodec.benchmarks.metrics.bdrate import Points, frontier


@dataclass(frozen=True)
class Margin:
    """In the metric's unit, at one rate that was asked for."""

    asked_kbps: float
    mean: float
    worst: float
    worst_clip: str
    worst_kbps: float
    lost: int
    """Clips on which it is below."""
    clips: int
    """On which the others can be had at the rate that was spent."""


def at_rate(points: Points, kbps: float) -> float | None:
    """Quality at a rate, on straight lines over log rate between the points that no other beats; beyond the last point
    the last one's. None below the first."""
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
    """`ours`: clip -> rate asked for -> (kbps spent, quality). Each rival: clip -> points; the best of them counts."""
    made = []
    for rate in sorted({rate for clip in ours.values() for rate in clip}):
        found: list[tuple[float, str, float]] = []
        for clip, curve in ours.items():
            if rate not in curve:
                continue
            kbps, quality = curve[rate]
            theirs = [there for rival in rivals if (there := at_rate(rival.get(clip, ()), kbps)) is not None]
            if theirs:
                found.append((quality - max(theirs), clip, kbps))
        if found:
            worst, clip, kbps = min(found)
            mean = sum(value for value, _, _ in found) / len(found)
            lost = sum(value < 0 for value, _, _ in found)
            made.append(Margin(rate, mean, worst, clip, kbps, lost, len(found)))
    return made
