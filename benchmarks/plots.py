"""Plots of rate-quality curves: distinguishable without colour, every curve labelled at its end."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from iwcodec.benchmarks.metrics.bdrate import frontier
from iwcodec.codec.errors import CodecError
from iwcodec.codec.extras import install


@dataclass(frozen=True)
class CurveStyle:
    """How one codec's curve is drawn: matplotlib's colour, line style, marker and line width."""

    name: str
    colour: str
    line: str | tuple[float, tuple[float, ...]]
    marker: str
    width: float = 1.2
    filled: bool = True


CURVE_STYLES = {
    "iwcodec": CurveStyle("iwcodec", "black", "-", "o", 2.2),
    "iwcodec-face": CurveStyle("iwcodec, tuned\nfor the face", "#a00060", "-", "v", 2.2),
    "svtav1": CurveStyle("SVT-AV1", "#0060a8", "-", "s"),
    "svtav1-half": CurveStyle("SVT-AV1, half size\nand frame rate", "#0060a8", "--", "s", filled=False),
    "x265": CurveStyle("x265", "#b03000", "-.", "^"),
    "vp9": CurveStyle("VP9", "#007858", (0, (1, 1)), "D"),
    "x264": CurveStyle("x264", "#806000", (0, (6, 2, 1, 2, 1, 2)), "x"),
    "copy": CurveStyle("nearest source\ncopied", "#606060", (0, (1, 3)), "+"),
    "oracle": CurveStyle("flow oracle", "#606060", (0, (8, 4)), "*", filled=False),
}
AXES = {
    "psnr_rgb": "PSNR over RGB, dB",
    "psnr_y": "PSNR of luma, dB",
    "ssim": "SSIM",
    "ms_ssim": "MS-SSIM",
    "vmaf": "VMAF",
    "flicker": "Flicker, grey levels (less is better)",
    "motion_error": "Motion error, pixels (less is better)",
    "lpips_alex": "LPIPS, AlexNet (less is better)",
    "lpips_vgg": "LPIPS, VGG-16 (less is better)",
    "dists": "DISTS (less is better)",
    "akd": "Average keypoint distance, pixels (less is better)",
    "missing_faces": "Share of faces lost (less is better)",
    "pose_akd": "Distance of the body's keypoints, pixels (less is better)",
    "missing_bodies": "Share of bodies lost (less is better)",
    "csim": "Similarity of identity (CSIM)",
    "eye_r": "Eye opening, correlation",
    "gaze_r": "Gaze, correlation",
    "mouth_open_r": "Mouth opening, correlation",
    "mouth_width_r": "Mouth width, correlation",
    "blink_recall": "Share of blinks kept",
    "blink_false": "Share of open eyes shown closed (less is better)",
    "lips_lmd": "Distance of lips, % of the eyes' distance (less is better)",
    "eyes_lmd": "Distance of eyelids, % of the eyes' distance (less is better)",
    "loudness_r": "Mouth opening against loudness, correlation",
}
LOWER_IS_BETTER = (
    *("flicker", "motion_error", "lpips_alex", "lpips_vgg", "dists", "akd", "missing_faces"),
    *("pose_akd", "missing_bodies"),
    *("blink_false", "lips_lmd", "eyes_lmd"),
)
"""Scores of AXES where lower is better; all others are better when higher."""
TICKS = (1, 2, 3, 4, 6, 8, 12, 20, 40, 60, 100, 200)
SMALL_TICKS = (2, 4, 8, 20, 40, 100)
"""Ticks of the kbps axis, in a plot and in the small plots of a grid."""
LINE_HEIGHT = 0.048
"""Height of one line of a curve's name, as a share of the axes' height."""


def plain_name(codec: str) -> str:
    """The codec's name on one line."""
    return CURVE_STYLES[codec].name.replace("\n", " ")


Curves = Mapping[str, Sequence[tuple[float, float]]]
"""Codec -> (kbps, quality) in order of kbps."""


def draw(curves: Curves, column: str, title: str, files: Sequence[Path]) -> None:
    """Draw one plot and write it to each file, in the format of its suffix.

    Lines join the points on a codec's frontier. Dominated points (an encoder below its lowest useful rate) are drawn
    without a line, and clipped if they lie outside the range of the frontiers.
    """
    plt = _pyplot()
    figure, axes = plt.subplots(figsize=(9, 5.2), layout="constrained")
    _lines(axes, curves, column, 1.0)
    _frame(axes, curves, column)
    axes.set_title(title, loc="left", fontsize=11)
    _name_curves(axes, curves, column)
    _save(figure, files, 150)
    plt.close(figure)


def draw_grid(clips: Mapping[str, Curves], column: str, title: str, files: Sequence[Path]) -> None:
    """Draw one small plot per clip, with a legend in the first free cell of the grid."""
    plt = _pyplot()
    columns = min(4, len(clips) + 1)
    rows = math.ceil((len(clips) + 1) / columns)
    figure, fields = plt.subplots(
        rows, columns, figsize=(3.1 * columns, 2.5 * rows), layout="constrained", squeeze=False
    )
    places = iter(fields.flat)
    for name, curves in clips.items():
        axes = next(places)
        _lines(axes, curves, column, 0.6)
        _frame(axes, curves, column, small=True)
        axes.set_title(name, fontsize=8, loc="left")
    key = next(places)
    key.axis("off")
    key.set(xlim=(-0.03, 1), ylim=(-len(CURVE_STYLES), 1))
    shown = [codec for codec in CURVE_STYLES if any(codec in curves for curves in clips.values())]
    for n, codec in enumerate(shown):
        _plot(key, codec, [(0.0, -n), (0.15, -n)], 0.7)
        key.text(0.2, -n, plain_name(codec), va="center", fontsize=8)
    for axes in places:
        axes.axis("off")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    _save(figure, files, 120)
    plt.close(figure)


def _save(figure: Any, files: Sequence[Path], dpi: int) -> None:
    """Write without a date, so that the same plot always gives the same file."""
    for file in files:
        figure.savefig(file, dpi=dpi, metadata={"Date": None} if file.suffix == ".svg" else None)


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError as error:
        raise CodecError(f"Plots need matplotlib: {install('bench')}.") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    # Text stays text in SVG, and ids do not change from run to run.
    pyplot.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "iwcodec", "font.size": 10})
    return pyplot


def _lines(axes: Any, curves: Curves, column: str, scale: float) -> None:
    for codec in sorted(curves, key=lambda name: CURVE_STYLES[name].width):
        best = useful(curves[codec], column)
        _plot(axes, codec, best, scale)
        for point in set(curves[codec]) - set(best):
            _plot(axes, codec, [point], scale * 0.7)


def useful(points: Sequence[tuple[float, float]], column: str) -> list[tuple[float, float]]:
    """The frontier of (kbps, quality) points, also for scores where lower is better."""
    sign = -1 if column in LOWER_IS_BETTER else 1
    return [(kbps, sign * value) for kbps, value in frontier([(kbps, sign * value) for kbps, value in points])]


def _plot(axes: Any, codec: str, points: Sequence[tuple[float, float]], scale: float) -> None:
    style = CURVE_STYLES[codec]
    axes.plot(
        *zip(*points, strict=True),
        color=style.colour,
        linestyle=style.line,
        linewidth=style.width * max(scale, 0.8),
        marker=style.marker,
        markersize=6 * scale,
        markerfacecolor=style.colour if style.filled else "white",
    )


def _frame(axes: Any, curves: Curves, column: str, small: bool = False) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    joined = [point for points in curves.values() for point in useful(points, column)]
    rates, values = zip(*joined, strict=True)
    axes.set_xscale("log")
    axes.set_xlim(max(0.5, min(rates) * 0.9), max(rates) * 1.1)
    room = 0.05 * (max(values) - min(values)) or 0.5
    axes.set_ylim(min(values) - room, max(values) + room)
    low, high = axes.get_xlim()
    ticks = [tick for tick in (SMALL_TICKS if small else TICKS) if low <= tick <= high]
    axes.xaxis.set_major_locator(FixedLocator(ticks or [rates[0]]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.yaxis.set_major_locator(MaxNLocator(6 if small else 9, steps=[1, 2, 5, 10]))
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if small:
        axes.tick_params(labelsize=7)
    else:
        axes.set_xlabel("kbps spent (log scale)")
        axes.set_ylabel(AXES.get(column, column))


def _name_curves(axes: Any, curves: Curves, column: str) -> None:
    """Write each curve's name to the right of the axes, with a leader line to the curve's end."""
    ends = {codec: useful(points, column)[-1] for codec, points in curves.items()}
    low, high = axes.get_ylim()
    order = sorted(ends, key=lambda codec: ends[codec][1])
    heights = [LINE_HEIGHT * (1 + CURVE_STYLES[codec].name.count("\n")) for codec in order]
    for codec, place in zip(order, spread([(ends[c][1] - low) / (high - low) for c in order], heights), strict=True):
        style = CURVE_STYLES[codec]
        axes.annotate(
            style.name,
            ends[codec],
            (1.03, place),
            textcoords="axes fraction",
            color=style.colour,
            fontsize=9,
            fontweight="bold" if style.width > 2 else "normal",
            va="center",
            linespacing=1.15,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": style.colour, "linewidth": 0.5, "shrinkA": 2, "shrinkB": 5},
        )


def spread(positions: Sequence[float], heights: Sequence[float]) -> list[float]:
    """Move ascending positions in 0..1 as little as possible so that labels of these heights do not overlap.

    Isotonic regression on the positions minus the stacked heights.
    """
    from scipy.optimize import isotonic_regression

    offsets = np.cumsum([0.0, *((a + b) / 2 for a, b in itertools.pairwise(heights))])
    moved = isotonic_regression(positions - offsets).x + offsets
    shift = min(0.0, 1 - moved[-1]) or max(0.0, -moved[0])
    return [float(position) for position in moved + shift]
