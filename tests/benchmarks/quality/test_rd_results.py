"""Results of `bench rd`: Bjontegaard deltas and means over clips."""

from typing import Any

import pytest

pytest.importorskip("scipy")

from iwcodec.benchmarks.quality.rd_results import comparisons, mean_points


def made_up(curves: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    points = [
        {"codec": codec, "asked_kbps": asked, "kbps": kbps, "scores": {"psnr_rgb": quality}}
        for codec, curve in curves.items()
        for asked, (kbps, quality) in zip((3.0, 12.0, 40.0), curve, strict=True)
    ]
    return {"metrics": ["psnr_rgb"], "clips": {"a": {"points": points}, "b": {"points": points}}}


def test_comparisons_are_bjontegaard_deltas() -> None:
    anchor = [(4.0, 30.0), (8.0, 33.0), (32.0, 39.0)]
    half = [(kbps / 2, quality) for kbps, quality in anchor]
    rows = comparisons(made_up({"svtav1": anchor, "x265": half}))
    everywhere, low = rows
    assert (everywhere["codec"], everywhere["anchor"], everywhere["rates"]) == ("x265", "svtav1", None)
    assert everywhere["bd_rate_percent"] == {"mean": -50, "low": -50, "high": -50, "clips": 2}
    assert low["rates"] == [3, 12]
    assert low["bd_rate_percent"]["mean"] == -50
    assert low["bd_quality"] is None
    assert low["left_out"]["no common rate"] == ["a", "b"]


def test_mean_points_need_a_point_of_every_clip() -> None:
    results = made_up({"x264": [(4.0, 30.0), (8.0, 33.0), (32.0, 39.0)]})
    results["clips"]["b"]["points"] = results["clips"]["b"]["points"][:1]
    assert mean_points(results, "x264", "psnr_rgb") == [(3.0, 4.0, 30.0)]


def test_clips_on_which_a_score_is_undefined_do_not_count() -> None:
    """As the recall of blinks where nobody blinks. A score that was not computed is missing instead."""
    results = made_up({"x264": [(4.0, 30.0), (8.0, 33.0), (32.0, 39.0)]})
    without_blinks = [
        {**point, "kbps": 99.0, "scores": {"psnr_rgb": None}} for point in results["clips"]["a"]["points"]
    ]
    results["clips"]["b"]["points"] = without_blinks
    assert mean_points(results, "x264", "psnr_rgb")[0] == (3.0, 4.0, 30.0)
    results["clips"]["b"]["points"] = [{**point, "scores": {}} for point in without_blinks]
    assert mean_points(results, "x264", "psnr_rgb") == []
