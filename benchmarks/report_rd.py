"""The sections of the HTML report that show results of `bench rd`."""

import math
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from iwcodec.benchmarks import plots
from iwcodec.benchmarks.metrics.bdrate import frontier
from iwcodec.benchmarks.metrics.margins import Margin
from iwcodec.benchmarks.plots import AXES, CURVE_STYLES, LOWER_IS_BETTER, plain_name
from iwcodec.benchmarks.quality.rd_clip import KEPT_PICTURES, picture_name
from iwcodec.benchmarks.quality.rd_results import (
    ANCHORS,
    OURS,
    Point,
    codecs_of,
    comparisons,
    curves,
    main_column,
    margins_of,
    mean_points,
    rates_of,
)
from iwcodec.benchmarks.report_html import count, figure, origin, svg, table
from iwcodec.codec.errors import CodecError

BESIDE = ("vmaf", "eye_r", "mouth_open_r")
"""Scores whose plots stand beside that of the main one."""
SHOWN_KBPS = (4.0, 8.0, 20.0)
"""Rates at which the page shows pictures; each codec is shown at its nearest point (see `nearest`)."""


def sections(file: Path, results: dict[str, Any], out: Path) -> Iterable[str]:
    """HTML of all sections; writes the plots into `out`, named after `file`. Raises CodecError without points."""
    clips = results["clips"]
    if not any(clip["points"] for clip in clips.values()):
        raise CodecError(f"{file} has no points yet.")
    seconds = sum(clip["seconds"] for clip in clips.values())
    size = results["size"]
    yield f"<h2>Rate against quality: {count(len(clips), 'clip')}, {seconds:.0f} s, {size}x{size}</h2>"
    yield origin(results)
    plotted = _plots(file.stem, results, out)
    first = [column for column in (main_column(results), *BESIDE) if column in plotted]
    if main_column(results) not in plotted:
        yield f"<p class='note'>No codec has {escape(AXES[main_column(results)])} for every clip.</p>"
    yield f'<div class="beside">{"".join(plotted.pop(column) for column in first)}</div>'
    yield from _incomplete_codecs(results)
    rows = results.get("comparisons") or comparisons(results)
    yield from _comparisons(rows)
    yield from _margins(results)
    for name, clip in clips.items():
        folder = file.parent / "pictures" / name
        if clip["may_be_shown"] and (folder / "original-0.png").is_file():
            yield from _pictures(name, clip, folder)
    if plotted:
        yield "<h2>Other metrics</h2>"
        yield from plotted.values()
    yield from _tables(results)
    yield from _bytes(results)
    if len(clips) > 1:
        column = main_column(results)
        files = [out / f"{file.stem}-clips.{suffix}" for suffix in ("png", "svg")]
        plots.draw_grid(_by_clip(results, column), column, f"{AXES[column]} over kbps, by clip", files)
        yield "<h2>Each clip</h2>" + svg(files[1], "each clip")
        yield from _clip_comparisons(rows)
    yield from _settings(results)


def _plots(stem: str, results: dict[str, Any], out: Path) -> dict[str, str]:
    """Score -> its plot, which is STEM.png and STEM.svg for the main one, of the scores that some codec has for every
    clip."""
    plotted = {}
    for column in (name for name in AXES if name in results["metrics"]):
        means = {codec: mean_points(results, codec, column) for codec in codecs_of(results)}
        drawn = {codec: sorted({(kbps, quality) for _, kbps, quality in rows}) for codec, rows in means.items() if rows}
        if drawn:
            name = stem if column == main_column(results) else f"{stem}-{column}"
            files = [out / f"{name}.{suffix}" for suffix in ("png", "svg")]
            plots.draw(drawn, column, _title(results), files)
            plotted[column] = svg(files[1], f"{AXES[column]} over kbps")
    return plotted


def _incomplete_codecs(results: dict[str, Any]) -> Iterable[str]:
    """Names the codecs without points of every clip: means are comparable only over the same clips."""
    counts = {codec: 0 for codec in codecs_of(results)}
    for clip in results["clips"].values():
        for codec in {point["codec"] for point in clip["points"]}:
            counts[codec] += 1
    incomplete = [
        f"{plain_name(c)} ({counts[c]} of {len(results['clips'])})" for c in counts if counts[c] < len(results["clips"])
    ]
    if incomplete:
        yield f"<p class='note'>Excluded from the means, clips are missing: {escape(', '.join(incomplete))}.</p>"


def _title(results: dict[str, Any]) -> str:
    clips, size = results["clips"], results["size"]
    subject = next(iter(clips)) if len(clips) == 1 else f"Mean of {len(clips)} clips"
    return f"{subject}, {size}x{size}, the others in low delay, payload without packet headers"


def _by_clip(results: dict[str, Any], column: str) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Clip -> codec -> its (kbps, quality) points in order of kbps."""
    by_codec = {codec: curves(results, [codec], column) for codec in codecs_of(results)}
    return {
        clip: {codec: sorted(set(points[clip])) for codec, points in by_codec.items() if points[clip]}
        for clip in results["clips"]
    }


def _tables(results: dict[str, Any]) -> Iterable[str]:
    """One table per score: mean quality, and under it the mean rate spent, by target rate."""
    for column in (name for name in AXES if name in results["metrics"]):
        rows = []
        for codec in codecs_of(results):
            points = {asked: (kbps, quality) for asked, kbps, quality in mean_points(results, codec, column)}
            cells = [points.get(rate) for rate in rates_of(results)]
            texts = [
                "" if cell is None else f"{cell[1]:.{_digits(column)}f}<br><small>{cell[0]:.1f}</small>"
                for cell in cells
            ]
            rows.append([escape(plain_name(codec)), *texts])
        yield f"<h2>{escape(AXES[column])}</h2>"
        yield "<p class='note'>Columns are target rates; under each score the kbps really spent.</p>"
        yield table(["", *(f"{rate:g} kbps" for rate in rates_of(results))], rows)


def _digits(column: str) -> int:
    return 4 if column in ("ssim", "ms_ssim", "lpips_alex", "lpips_vgg", "dists") else 2


def _comparisons(rows: Sequence[dict[str, Any]]) -> Iterable[str]:
    yield (
        "<h2>Bjontegaard deltas</h2><p class='note'>Over the range that both curves cover; mean over the clips "
        "that have one, with 95 % bootstrap intervals over clips. Negative rate: fewer bits for the same quality.</p>"
    )
    for anchor in ANCHORS:
        texts = [
            [
                escape(plain_name(row["codec"])),
                escape(row["metric"]),
                "all" if row["rates"] is None else f"{row['rates'][0]:g} to {row['rates'][1]:g} kbps",
                _interval(row["bd_rate_percent"], " %"),
                _interval(row["bd_quality"], ""),
            ]
            for row in rows
            if row["anchor"] == anchor and not _repeats(row, rows)
        ]
        if texts:
            yield f"<h3>Against {escape(anchor)}</h3>"
            yield table(["", "metric", "target rates", "rate", "quality"], texts)


def _margins(results: dict[str, Any]) -> Iterable[str]:
    """Margin over SVT-AV1 at each target rate, for the scores where higher is better."""
    columns = [name for name in AXES if name in results["metrics"] and name not in LOWER_IS_BETTER]
    by_column = {column: margins_of(results, column) for column in columns}
    rates = sorted({margin.asked_kbps for margins in by_column.values() for margin in margins})
    if not rates:
        return
    yield (
        "<h2>Margin over SVT-AV1 at the same rate</h2><p class='note'>Over the better of full and half size, linearly "
        "interpolated over log rate; mean over the clips on which SVT-AV1 reaches the rate. Under it the worst clip, "
        "and on how many clips iwcodec is below.</p>"
    )
    rows = []
    for column, margins in by_column.items():
        by_rate, digits = {margin.asked_kbps: margin for margin in margins}, _digits(column)
        rows.append([escape(AXES[column]), *(_margin(by_rate.get(rate), digits) for rate in rates)])
    yield table(["", *(f"{rate:g} kbps" for rate in rates)], rows)


def _margin(margin: Margin | None, digits: int) -> str:
    if margin is None:
        return ""
    worst = f"{margin.worst:+.{digits}f}, below on {margin.lost} of {margin.clips}"
    return f"{margin.mean:+.{digits}f}<br><small>{worst}</small>"


def _clip_comparisons(rows: Sequence[dict[str, Any]]) -> Iterable[str]:
    """BD figures of our codec for each clip, over all rates."""
    own = [row for row in rows if row["codec"] == OURS and row["rates"] is None]
    if not own:
        return
    clips = sorted({clip for row in own for clip in row["clips"]})
    headings = [f"{escape(row['metric'])} against {escape(row['anchor'])}: rate; quality" for row in own]
    texts = [[escape(clip), *(_pair(row["clips"].get(clip)) for row in own)] for clip in clips]
    yield "<h3>Bjontegaard deltas of iwcodec by clip</h3>" + table(["", *headings], texts)


def _pair(deltas: Sequence[float | None] | None) -> str:
    """BD-rate in per cent and BD-quality of one clip."""
    rate, quality = deltas or (None, None)
    return f"{'-' if rate is None else f'{rate:+.1f} %'}; {'-' if quality is None else f'{quality:+.2f}'}"


def _bytes(results: dict[str, Any]) -> Iterable[str]:
    """Rate of each part of our stream by target rate, mean over the clips that were coded at it."""
    rows = []
    for rate in rates_of(results):
        points = [
            (clip["seconds"], point)
            for clip in results["clips"].values()
            for point in clip["points"]
            if point["codec"] == OURS and point["asked_kbps"] == rate
        ]
        if points:
            kinds = ("sources", "motion", "container")
            spent = [sum(p["bytes"][kind] / 125 / seconds for seconds, p in points) / len(points) for kind in kinds]
            pictures = sum(p["sources"] for _, p in points) / len(points)
            rows.append([f"{rate:g} kbps", *(f"{kbps:.2f}" for kbps in (*spent, sum(spent))), f"{pictures:.1f}"])
    if rows:
        yield "<h2>What iwcodec spends, kbps</h2>"
        yield table(["target", "sources", "motion", "container", "total", "number of sources"], rows)


def _settings(results: dict[str, Any]) -> Iterable[str]:
    """Encoder options of the rivals at the lowest target rate; at others only the rate differs."""
    rows = []
    for codec, setting in results.get("settings", {}).items():
        rate, options = next(iter(setting["options"].items()))
        text = " ".join(f"{key}={value}" for key, value in options.items())
        rows.append(
            [
                escape(plain_name(codec)),
                f"1/{setting['shrink']}",
                f"1/{setting['skip']}",
                f"{rate} kbps: {escape(text)}",
            ]
        )
    if rows:
        yield "<h2>Settings of the encoders</h2>"
        yield "<p class='note'>One thread, one key picture, the target rate as bit rate.</p>"
        yield table(["", "size", "frame rate", "options"], rows)


def _repeats(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> bool:
    """Whether the row for LOW_RATES says the same as the one for all rates."""
    whole = {**row, "rates": None}
    return row["rates"] is not None and whole in rows


def _interval(delta: dict[str, Any] | None, unit: str) -> str:
    if delta is None:
        return "no common range"
    if delta["clips"] == 1:
        return f"{delta['mean']:+.2f}{unit}"
    return (
        f"{delta['mean']:+.2f}{unit} <small>({delta['low']:+.2f} to {delta['high']:+.2f}; "
        f"{count(delta['clips'], 'clip')})</small>"
    )


def _pictures(name: str, clip: dict[str, Any], folder: Path) -> Iterable[str]:
    yield f"<h2>Pictures: {escape(name)}</h2>"
    available = [point for point in clip["points"] if (folder / f"{picture_name(point)}-0.png").is_file()]
    for kbps in SHOWN_KBPS:
        chosen = nearest(available, kbps)
        if not chosen:
            continue
        yield f"<h3>Near {kbps:g} kbps</h3>"
        for frame in range(KEPT_PICTURES):
            figures = [figure(folder / f"original-{frame}.png", "original")]
            for point in chosen:
                scores = ", ".join(
                    f"{point['scores'][c]:.1f} {unit}"
                    for c, unit in (("psnr_rgb", "dB"), ("vmaf", "VMAF"))
                    if point["scores"].get(c) is not None
                )
                text = f"{plain_name(point['codec'])}: {point['kbps']:.1f} kbps; clip: {scores}"
                figures.append(figure(folder / f"{picture_name(point)}-{frame}.png", text))
            yield f'<div class="row">{"".join(figures)}</div>'


def nearest(points: Sequence[Point], kbps: float) -> list[Point]:
    """For each codec the point whose spent rate is nearest by ratio, in the order of CURVE_STYLES.

    Only points on the codec's own frontier count: below its lowest useful rate an encoder can do worse for more bits.
    """
    chosen = []
    for codec in CURVE_STYLES:
        own = [point for point in points if point["codec"] == codec]
        best = frontier([(point["kbps"], point["scores"].get("psnr_rgb", 0.0)) for point in own])
        useful = [point for point in own if (point["kbps"], point["scores"].get("psnr_rgb", 0.0)) in best]
        chosen += sorted(useful, key=lambda point: abs(math.log(point["kbps"] / kbps)))[:1]
    return chosen
