"""Results of `bench rd`: the codecs they are about, curves, means over clips, Bjontegaard deltas and margins."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from iwcodec.benchmarks.metrics.bdrate import Comparison, Interval, compare, frontier
from iwcodec.benchmarks.metrics.margins import Margin, margins

OURS, OURS_FACE = "iwcodec", "iwcodec-face"
"""Our codec with `--tune psnr` and with `--tune face`."""
RIVALS = {
    "svtav1": ("svtav1", 1, 1),
    "svtav1-half": ("svtav1", 2, 2),
    "x265": ("x265", 1, 1),
    "vp9": ("vp9", 1, 1),
    "x264": ("x264", 1, 1),
}
"""Name -> codec, `shrink`, `skip` of `encode_rival`. At half size and frame rate AV1 reaches lower rates."""
BASELINES = ("copy", "oracle")
"""Copy of the nearest source, and flow oracle; both use the sources that iwcodec sent. The copy is charged the bytes of
the sources, the oracle all bytes of iwcodec."""
CODECS = (OURS, OURS_FACE, *RIVALS, *BASELINES)
ANCHORS = {"svtav1": ("svtav1",), "svtav1, better of full and half": ("svtav1", "svtav1-half")}
"""Anchor of BD figures -> codecs whose points together form its curve."""
LOW_RATES = (3.0, 12.0)
"""Range of target rates in kbps of the second set of BD figures."""
DELTA_METRICS = ("psnr_rgb", "vmaf")
"""Scores for which BD figures are computed."""

Point = dict[str, Any]
"""One codec at one target rate: codec, asked_kbps, kbps, bytes, scores, recipe, stream, and sources of our codec."""


def main_column(results: dict[str, Any]) -> str:
    """The score that tables and plots show first: PSNR if it was measured."""
    return "psnr_rgb" if "psnr_rgb" in results["metrics"] else str(results["metrics"][0])


def rates_of(results: dict[str, Any]) -> list[float]:
    """All target rates, ascending."""
    return sorted({point["asked_kbps"] for clip in results["clips"].values() for point in clip["points"]})


def codecs_of(results: dict[str, Any]) -> list[str]:
    """All codecs with at least one point, in the order of CODECS."""
    codecs = {point["codec"] for clip in results["clips"].values() for point in clip["points"]}
    return [codec for codec in CODECS if codec in codecs]


def curves(
    results: dict[str, Any], codecs: Sequence[str], column: str, low: bool = False
) -> dict[str, list[tuple[float, float]]]:
    """Clip -> (kbps, quality) points of these codecs together, where the score exists; `low` keeps only LOW_RATES."""
    return {
        name: [
            (point["kbps"], point["scores"][column])
            for point in clip["points"]
            if point["codec"] in codecs
            and point["scores"].get(column) is not None
            and (not low or LOW_RATES[0] <= point["asked_kbps"] <= LOW_RATES[1])
        ]
        for name, clip in results["clips"].items()
    }


def mean_points(results: dict[str, Any], codec: str, column: str) -> list[tuple[float, float, float]]:
    """(target kbps, mean kbps, mean quality) over the clips for each target rate that every clip has.

    Clips on which the score is undefined, as the recall of blinks where nobody blinks, do not count.
    """
    clips = [clip for clip in results["clips"].values() if _is_defined(clip["points"], column)]
    rows = []
    for rate in rates_of(results):
        points = [
            point
            for clip in clips
            for point in clip["points"]
            if point["codec"] == codec and point["asked_kbps"] == rate and point["scores"].get(column) is not None
        ]
        if points and len(points) == len(clips):
            kbps = float(np.mean([point["kbps"] for point in points]))
            rows.append((rate, kbps, float(np.mean([point["scores"][column] for point in points]))))
    return rows


def _is_defined(points: Sequence[Point], column: str) -> bool:
    """Whether a clip can have a score: not if it was computed for its points, and none has a value."""
    return not points or any(point["scores"].get(column, 0) is not None for point in points)


def comparisons(results: dict[str, Any]) -> list[dict[str, Any]]:
    """BD figures of every codec against each of ANCHORS, over all rates and over LOW_RATES."""
    measured = codecs_of(results)
    rows = []
    for anchor, members in ANCHORS.items():
        for column in DELTA_METRICS:
            for codec in measured:
                if codec in members or column not in results["metrics"] or not set(members) <= set(measured):
                    continue
                for low in (False, True):
                    row = _deltas(curves(results, members, column, low), curves(results, [codec], column, low))
                    if row is not None:
                        rates = list(LOW_RATES) if low else None
                        rows.append({"codec": codec, "anchor": anchor, "metric": column, "rates": rates, **row})
    return rows


def _deltas(anchor: dict[str, Any], test: dict[str, Any]) -> dict[str, Any] | None:
    """None if no clip has two frontier points of both."""
    enough = [clip for clip in anchor if min(len(frontier(anchor[clip])), len(frontier(test[clip]))) >= 2]
    if not enough:
        return None
    by_clip = {clip: compare({clip: anchor[clip]}, {clip: test[clip]}) for clip in enough}
    together: Comparison = compare({clip: anchor[clip] for clip in enough}, {clip: test[clip] for clip in enough})
    return {
        "bd_rate_percent": _interval(together.rate),
        "bd_quality": _interval(together.quality),
        "clips": {clip: [_mean(one.rate), _mean(one.quality)] for clip, one in by_clip.items()},
        "left_out": {
            "too few points": sorted(set(anchor) - set(enough)),
            "no common quality": together.no_common_quality,
            "no common rate": together.no_common_rate,
        },
    }


def _mean(interval: Interval | None) -> float | None:
    return None if interval is None else round(interval.mean, 3)


def _interval(interval: Interval | None) -> dict[str, float] | None:
    """Mean and 95 % bootstrap interval over clips."""
    if interval is None:
        return None
    return {
        "mean": round(interval.mean, 3),
        "low": round(interval.low, 3),
        "high": round(interval.high, 3),
        "clips": interval.count,
    }


def margins_of(results: dict[str, Any], column: str) -> list[Margin]:
    """Margins of our codec over the best member of the last of ANCHORS; for scores where higher is better."""
    ours = {
        name: {
            point["asked_kbps"]: (point["kbps"], point["scores"][column])
            for point in clip["points"]
            if point["codec"] == OURS and point["scores"].get(column) is not None
        }
        for name, clip in results["clips"].items()
    }
    *_, members = ANCHORS.values()
    return margins(ours, [curves(results, [codec], column) for codec in members if codec in codecs_of(results)])
