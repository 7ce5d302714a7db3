"""Rate-quality curves as pictures: readable in black and white, every curve named where it runs."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CodecError
from .bdrate import frontier


@dataclass(frozen=True)
class Look:
    name: str
    colour: str
    line: str | tuple[float, tuple[float, ...]]
    marker: str
    width: float = 1.2
    filled: bool = True


LOOKS = {
    "iwcodec": Look("iwcodec", "black", "-", "o", 2.2),
    "svtav1": Look("SVT-AV1", "#0060a8", "-", "s"),
    "svtav1-half": Look("SVT-AV1, half size and frame rate", "#0060a8", "--", "s", filled=False),
    "x265": Look("x265", "#b03000", "-.", "^"),
    "vp9": Look("VP9", "#007858", (0, (1, 1)), "D"),
    "x264": Look("x264", "#806000", (0, (6, 2, 1, 2, 1, 2)), "x"),
    "copy": Look("nearest source copied", "#606060", (0, (1, 3)), "+"),
    "oracle": Look("flow oracle", "#606060", (0, (8, 4)), "*", filled=False),
}
AXES = {
    "psnr_rgb": "PSNR over RGB, dB",
    "psnr_y": "PSNR of luma, dB",
    "ssim": "SSIM",
    "ms_ssim": "MS-SSIM",
    "vmaf": "VMAF",
    "flicker": "Flicker, grey levels (less is better)",
    "motion_error": "Motion error, pixels (less is better)",
    "lpips": "LPIPS (less is better)",
    "fid": "FID (less is better)",
    "akd": "Average keypoint distance, pixels (less is better)",
    "missing_faces": "Share of faces lost (less is better)",
    "cvvdp": "ColorVideoVDP, JOD",
}
LOWER_IS_BETTER = ("flicker", "motion_error", "lpips", "fid", "akd", "missing_faces")
TICKS = (1, 2, 3, 4, 6, 8, 12, 20, 40, 60, 100, 200)

Curves = Mapping[str, Sequence[tuple[float, float]]]
"""Codec -> (kbps, quality) in order of kbps."""


def draw(curves: Curves, column: str, title: str, files: Sequence[Path]) -> None:
    """One plot, written to every file; the suffixes decide how.

    Lines join the points that no other of the codec beats; what an encoder does below its floor stands alone.
    """
    plt = _pyplot()
    figure, axes = plt.subplots(figsize=(8, 5.2), layout="constrained")
    _lines(axes, curves, column, 1.0)
    _frame(axes, column)
    axes.set_title(title, loc="left", fontsize=11)
    figure.canvas.draw()
    _name_curves(axes, curves, column)
    _save(figure, files, 150)
    plt.close(figure)


def draw_grid(clips: Mapping[str, Curves], column: str, title: str, files: Sequence[Path]) -> None:
    """A small plot for each clip. The curves are named in the first free field, by what they look like."""
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
        _frame(axes, column, small=True)
        axes.set_title(name, fontsize=8, loc="left")
    key = next(places)
    key.axis("off")
    key.set(xlim=(0, 1), ylim=(-len(LOOKS), 1))
    shown = [codec for codec in LOOKS if any(codec in curves for curves in clips.values())]
    for n, codec in enumerate(shown):
        _plot(key, codec, [(0.0, -n), (0.15, -n)], 0.7)
        key.text(0.2, -n, LOOKS[codec].name, va="center", fontsize=8)
    for axes in places:
        axes.axis("off")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    _save(figure, files, 120)
    plt.close(figure)


def _save(figure: Any, files: Sequence[Path], dpi: int) -> None:
    """The same picture is the same file, whenever it is drawn."""
    for file in files:
        figure.savefig(file, dpi=dpi, metadata={"Date": None} if file.suffix == ".svg" else None)


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError as error:
        raise CodecError("Plots need matplotlib: pip install 'iwcodec[bench]'.") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    # Text stays text in SVG, and ids do not change from run to run.
    pyplot.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "iwcodec", "font.size": 10})
    return pyplot


def _lines(axes: Any, curves: Curves, column: str, scale: float) -> None:
    for codec in sorted(curves, key=lambda name: LOOKS[name].width):
        best = useful(curves[codec], column)
        _plot(axes, codec, best, scale)
        for point in set(curves[codec]) - set(best):
            _plot(axes, codec, [point], scale * 0.7)


def useful(points: Sequence[tuple[float, float]], column: str) -> list[tuple[float, float]]:
    """The frontier, whichever way the metric runs."""
    sign = -1 if column in LOWER_IS_BETTER else 1
    return [(kbps, sign * value) for kbps, value in frontier([(kbps, sign * value) for kbps, value in points])]


def _plot(axes: Any, codec: str, points: Sequence[tuple[float, float]], scale: float) -> None:
    look = LOOKS[codec]
    axes.plot(
        *zip(*points, strict=True),
        color=look.colour,
        linestyle=look.line,
        linewidth=look.width * max(scale, 0.8),
        marker=look.marker,
        markersize=6 * scale,
        markerfacecolor=look.colour if look.filled else "white",
    )


def _frame(axes: Any, column: str, small: bool = False) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    low, high = axes.get_xlim()
    axes.set_xscale("log")
    axes.set_xlim(max(0.5, axes.dataLim.x0 * 0.9), axes.dataLim.x1 * 1.12)
    low, high = axes.get_xlim()
    span = math.log(high / low)
    ticks = [tick for tick in TICKS if low <= tick <= high]
    if small:
        ticks = [tick for tick in ticks if tick in (2, 4, 8, 20, 40, 100)]
    axes.xaxis.set_major_locator(FixedLocator(ticks if span > 0 else [low]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if small:
        axes.tick_params(labelsize=7)
    else:
        axes.set_xlabel("kbps spent (log scale)")
        axes.set_ylabel(AXES.get(column, column))


def _name_curves(axes: Any, curves: Curves, column: str) -> None:
    """Each name goes beside a point of its curve, where it covers least of the other curves and names."""
    joined = {codec: useful(points, column) for codec, points in curves.items()}
    taken: list[tuple[float, float]] = []
    for codec, points in curves.items():
        taken += _along(axes.transData.transform(joined[codec]))
        taken += [(x, y) for x, y in axes.transData.transform([*points])] * 3
    boxes: list[tuple[float, float, float, float]] = []
    area = axes.get_window_extent()
    renderer = axes.figure.canvas.get_renderer()
    for codec in curves:
        look = LOOKS[codec]
        text = axes.text(
            0, 0, look.name, color=look.colour, fontsize=9, fontweight="bold" if look.width > 2 else "normal"
        )
        extent = text.get_window_extent(renderer)
        width, height = extent.width, extent.height
        best: tuple[float, tuple[float, float, float, float]] | None = None
        for rank, (x, y) in enumerate(reversed(axes.transData.transform(joined[codec]).tolist())):
            for left, bottom in (
                (x + 9, y - height / 2),
                (x - width - 9, y + 6),
                (x + 7, y - height - 6),
                (x - width / 2, y + 10),
                (x - width / 2, y - height - 10),
            ):
                box = left, bottom, left + width, bottom + height
                cost = _cost(box, taken, boxes, area) + 2 * rank
                if best is None or cost < best[0]:
                    best = cost, box
        assert best is not None
        boxes.append(best[1])
        text.set_transform(None)
        text.set_position(best[1][:2])
        # Pixels of the screen are not those of a file with another resolution: keep the place in data units.
        text.set_position(axes.transData.inverted().transform(best[1][:2]))
        text.set_transform(axes.transData)
        text.set_in_layout(False)


def _along(places: Any) -> list[tuple[float, float]]:
    """Points every few pixels along a line."""
    found = [tuple(places[0])]
    for (x0, y0), (x1, y1) in itertools.pairwise(places):
        steps = max(1, round(math.hypot(x1 - x0, y1 - y0) / 5))
        found += [(x0 + (x1 - x0) * n / steps, y0 + (y1 - y0) * n / steps) for n in range(1, steps + 1)]
    return found


def _cost(
    box: tuple[float, float, float, float],
    taken: Sequence[tuple[float, float]],
    boxes: Sequence[tuple[float, float, float, float]],
    area: Any,
) -> float:
    left, bottom, right, top = box
    covered = sum(left - 2 <= x <= right + 2 and bottom - 2 <= y <= top + 2 for x, y in taken)
    clashes = sum(left < b[2] + 4 and right > b[0] - 4 and bottom < b[3] + 2 and top > b[1] - 2 for b in boxes)
    outside = (
        max(0.0, area.x0 - left) + max(0.0, right - area.x1) + max(0.0, area.y0 - bottom) + max(0.0, top - area.y1)
    )
    return 5 * covered + 500 * clashes + 10 * outside
