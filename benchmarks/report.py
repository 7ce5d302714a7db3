"""`iwcodec bench report`: plots and one self-contained HTML page from results, without running a codec."""

import base64
import math
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Annotated, Any

import cv2
import typer
from rich.table import Table

from iwcodec.benchmarks import experiment, plots
from iwcodec.benchmarks.metrics.bdrate import frontier
from iwcodec.benchmarks.metrics.margins import Margin
from iwcodec.benchmarks.plots import AXES, LOOKS, LOWER_IS_BETTER, plain_name
from iwcodec.benchmarks.quality import ablation, motion, sources, tables
from iwcodec.benchmarks.quality.rd import (
    ANCHORS,
    OURS,
    PICTURES,
    Point,
    codecs_of,
    comparisons,
    margins_of,
    mean_points,
    picture_name,
    rates_of,
)
from iwcodec.codec.cli import console
from iwcodec.codec.errors import CodecError

SHOWN_KBPS = (4.0, 8.0, 20.0)
"""Rates at which the page shows pictures: every codec's point whose spent rate is nearest (by ratio)."""

SMALL: dict[str, Callable[[dict[str, Any]], list[Table]]] = {
    "sources": lambda results: [sources.table([sources.Coded(**row) for row in results["clips"]])],
    "motion": lambda results: [motion.table(results)],
    "tables": lambda results: [tables.reconstruction_table(results), tables.sparsity_table(results)],
    "ablation": lambda results: [ablation.table(results)],
}
"""Results that are tables and nothing else."""

SUMS = ("stages_ms", "watched_ms", "unwatched_ms")

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1180px; margin: 2em auto; padding: 0 1em; color: #111; }
h1 { font-size: 1.5em; } h2 { font-size: 1.2em; margin-top: 2em; }
table { border-collapse: collapse; margin: .8em 0; font-variant-numeric: tabular-nums; }
th, td { padding: .2em .7em; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; }
img.plot { max-width: 100%; } .scroll { overflow-x: auto; }
.row { display: flex; flex-wrap: wrap; gap: 6px; margin-bottom: 1em; }
figure { margin: 0; width: 218px; } figure img { width: 100%; display: block; } figcaption { font-size: 12px; }
small, .note { color: #555; }
"""


def command(
    results: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RESULTS.json...]", help="Of bench rd, speed, sources, motion, tables, ablation."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for plots and page; by default that of the results.")] = None,
) -> None:
    """Draw the plots (PNG and SVG) and write report.html. Runs no codec."""
    files = results or [Path("bench") / "rd.json"]
    page = run(files, out or files[0].parent)
    console.print(f"Report: {page}")


def run(files: Sequence[Path], out: Path) -> Path:
    """Writes the plots and the page; returns the page. Raises CodecError for files that hold no results."""
    loaded = [(file, experiment.load(file)) for file in files]
    try:
        out.mkdir(parents=True, exist_ok=True)
        parts = [part for file, results in loaded for part in _sections(file, results, out)]
        page = out / "report.html"
        page.write_text(_page(parts))
    except OSError as error:
        raise CodecError(f"The report cannot be written to {out}: {error.strerror}.") from error
    return page


def _sections(file: Path, results: dict[str, Any], out: Path) -> Iterable[str]:
    try:
        if results.get("what") == "rd":
            return list(_rd(file, results, out))
        if results.get("what") == "speed":
            return list(_speed(results))
        if results.get("what") in SMALL:
            return list(_small(results))
    except (KeyError, TypeError, IndexError) as error:
        raise CodecError(f"{file} is not as `iwcodec bench` writes it: {type(error).__name__} {error}.") from error
    raise CodecError(f"{file} holds no results of bench {', '.join(['rd', 'speed', *SMALL])}.")


def _small(results: dict[str, Any]) -> Iterable[str]:
    """As the command itself shows them."""
    shown = SMALL[results["what"]](results)
    yield f"<h2>iwcodec bench {escape(results['what'])}</h2>"
    yield _origin(results)
    for drawn in shown:
        yield f"<h3>{escape(str(drawn.title))}</h3>" + _table(
            [escape(str(column.header)) for column in drawn.columns],
            zip(*([escape(str(cell)) for cell in column.cells] for column in drawn.columns), strict=True),
        )


def _page(parts: Iterable[str]) -> str:
    head = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>iwcodec benchmarks</title><style>{STYLE}</style>'
    )
    return head + "<h1>iwcodec benchmarks</h1>" + "\n".join(parts) + "</html>\n"


def _rd(file: Path, results: dict[str, Any], out: Path) -> Iterable[str]:
    clips = results["clips"]
    if not any(clip["points"] for clip in clips.values()):
        raise CodecError(f"{file} holds no points yet.")
    seconds = sum(clip["seconds"] for clip in clips.values())
    size = results["size"]
    yield f"<h2>Rate against quality: {_count(len(clips), 'clip')}, {seconds:.0f} s, {size}x{size}</h2>"
    yield _origin(results)
    first, *others = _plots(file.stem, results, out)
    yield first
    yield from _left_out(results)
    rows = results.get("comparisons") or comparisons(results)
    yield from _comparisons(rows)
    yield from _margins(results)
    for name, clip in clips.items():
        folder = file.parent / "pictures" / name
        if clip["may_be_shown"] and (folder / "original-0.png").is_file():
            yield from _pictures(name, clip, folder)
    if others:
        yield "<h2>Other metrics</h2>"
        yield from others
    yield from _tables(results)
    yield from _bytes(results)
    if len(clips) > 1:
        column = main_column(results)
        files = [out / f"{file.stem}-clips.{suffix}" for suffix in ("png", "svg")]
        plots.draw_grid(_by_clip(results, column), column, f"{AXES[column]} over kbps, by clip", files)
        yield "<h2>Each clip</h2>" + _svg(files[1], "each clip")
        yield from _clip_comparisons(rows)
    yield from _settings(results)


def main_column(results: dict[str, Any]) -> str:
    return "psnr_rgb" if "psnr_rgb" in results["metrics"] else str(results["metrics"][0])


def _plots(stem: str, results: dict[str, Any], out: Path) -> Iterable[str]:
    """Of every metric; the main one is STEM.png and STEM.svg, and comes first."""
    main = main_column(results)
    for column in sorted((name for name in AXES if name in results["metrics"]), key=lambda name: name != main):
        curves = {}
        for codec in codecs_of(results):
            if found := mean_points(results, codec, column):
                curves[codec] = sorted({(kbps, quality) for _, kbps, quality in found})
        if curves:
            name = stem if column == main else f"{stem}-{column}"
            files = [out / f"{name}.{suffix}" for suffix in ("png", "svg")]
            plots.draw(curves, column, _title(results), files)
            yield _svg(files[1], f"{AXES[column]} over kbps")
        elif column == main:
            yield f"<p class='note'>No codec has {escape(AXES[column])} of every clip.</p>"


def _left_out(results: dict[str, Any]) -> Iterable[str]:
    """Means are of all clips or they could not be compared."""
    counts = {codec: 0 for codec in codecs_of(results)}
    for clip in results["clips"].values():
        for codec in {point["codec"] for point in clip["points"]}:
            counts[codec] += 1
    some = [
        f"{plain_name(c)} ({counts[c]} of {len(results['clips'])})" for c in counts if counts[c] < len(results["clips"])
    ]
    if some:
        yield f"<p class='note'>Not in the means, for want of clips: {escape(', '.join(some))}.</p>"


def _origin(results: dict[str, Any]) -> str:
    machine = results["machine"]
    lines = [
        f"<code>{escape(results['command'])}</code>, commit {escape(str(results['commit']))}",
        f"{escape(str(machine['processor']))}, {machine['cores']} cores, {escape(machine['system'])}, "
        f"Python {escape(machine['python'])}; "
        + ", ".join(f"{escape(name)} {escape(number)}" for name, number in results["versions"].items()),
    ]
    if "model" in results:
        lines.insert(1, f"model {escape(results['model']['id'])} ({escape(results['model']['digest'])})")
    lines += [f"without {escape(name)}: {escape(why)}" for name, why in results.get("missing_metrics", {}).items()]
    return '<p class="note">' + "<br>".join(lines) + "</p>"


def _title(results: dict[str, Any]) -> str:
    clips, size = results["clips"], results["size"]
    what = next(iter(clips)) if len(clips) == 1 else f"Mean of {len(clips)} clips"
    return f"{what}, {size}x{size}, the others in low delay, payload without packet headers"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _svg(file: Path, alt: str) -> str:
    data = base64.b64encode(file.read_bytes()).decode()
    return f'<img class="plot" alt="{escape(alt)}" src="data:image/svg+xml;base64,{data}">'


def _by_clip(results: dict[str, Any], column: str) -> dict[str, dict[str, list[tuple[float, float]]]]:
    clips = {}
    for name, clip in results["clips"].items():
        curves: dict[str, list[tuple[float, float]]] = {}
        for codec in codecs_of(results):
            points = {
                (point["kbps"], point["scores"][column])
                for point in clip["points"]
                if point["codec"] == codec and point["scores"].get(column) is not None
            }
            if points:
                curves[codec] = sorted(points)
        clips[name] = curves
    return clips


def _tables(results: dict[str, Any]) -> Iterable[str]:
    for column in (name for name in AXES if name in results["metrics"]):
        rows = []
        for codec in codecs_of(results):
            found = {asked: (kbps, quality) for asked, kbps, quality in mean_points(results, codec, column)}
            cells = [found.get(rate) for rate in rates_of(results)]
            texts = [
                "" if cell is None else f"{cell[1]:.{_digits(column)}f}<br><small>{cell[0]:.1f}</small>"
                for cell in cells
            ]
            rows.append([escape(plain_name(codec)), *texts])
        yield f"<h2>{escape(AXES[column])}</h2>"
        yield "<p class='note'>Under each figure the kbps really spent; columns are what was asked for.</p>"
        yield _table(["", *(f"{rate:g} kbps" for rate in rates_of(results))], rows)


def _digits(column: str) -> int:
    return 4 if column in ("ssim", "ms_ssim", "lpips") else 2


def _comparisons(rows: Sequence[dict[str, Any]]) -> Iterable[str]:
    yield (
        "<h2>Bjontegaard deltas</h2><p class='note'>Over what both curves cover, mean of the clips where that is "
        "something, with 95 % bootstrap intervals over clips. Negative rate: fewer bits for the same quality.</p>"
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
            yield _table(["", "metric", "rates asked", "rate", "quality"], texts)


def _margins(results: dict[str, Any]) -> Iterable[str]:
    """Where ours wins and where it does not, at the rates that were asked for."""
    columns = [name for name in AXES if name in results["metrics"] and name not in LOWER_IS_BETTER]
    found = {column: margins_of(results, column) for column in columns}
    rates = sorted({margin.asked_kbps for some in found.values() for margin in some})
    if not rates:
        return
    yield (
        "<h2>Over SVT-AV1 at the rate that was spent</h2><p class='note'>The better of full and half size, on straight "
        "lines over log rate between its points; mean of the clips on which it gets that low. Under it the worst clip, "
        "and on how many clips ours is below.</p>"
    )
    rows = []
    for column, some in found.items():
        by_rate, digits = {margin.asked_kbps: margin for margin in some}, _digits(column)
        rows.append([escape(AXES[column]), *(_margin(by_rate.get(rate), digits) for rate in rates)])
    yield _table(["", *(f"{rate:g} kbps" for rate in rates)], rows)


def _margin(margin: Margin | None, digits: int) -> str:
    if margin is None:
        return ""
    worst = f"{margin.worst:+.{digits}f}, below on {margin.lost} of {margin.clips}"
    return f"{margin.mean:+.{digits}f}<br><small>{worst}</small>"


def _clip_comparisons(rows: Sequence[dict[str, Any]]) -> Iterable[str]:
    """Of our own curve, over all rates."""
    own = [row for row in rows if row["codec"] == OURS and row["rates"] is None]
    if not own:
        return
    clips = sorted({clip for row in own for clip in row["clips"]})
    headings = [f"{escape(row['metric'])} against {escape(row['anchor'])}: rate; quality" for row in own]
    texts = [[escape(clip), *(_pair(row["clips"].get(clip)) for row in own)] for clip in clips]
    yield "<h3>Bjontegaard deltas of iwcodec by clip</h3>" + _table(["", *headings], texts)


def _pair(found: Sequence[float | None] | None) -> str:
    """Rate in per cent and quality of one clip."""
    rate, quality = found or (None, None)
    return f"{'-' if rate is None else f'{rate:+.1f} %'}; {'-' if quality is None else f'{quality:+.2f}'}"


def _bytes(results: dict[str, Any]) -> Iterable[str]:
    """Where our bits go: means over clips that have the rate."""
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
        yield _table(["asked", "sources", "motion", "container", "together", "number of sources"], rows)


def _settings(results: dict[str, Any]) -> Iterable[str]:
    """As the encoders were set; for each the settings of the lowest rate, where only rates differ."""
    rows = []
    for codec, how in results.get("settings", {}).items():
        rate, options = next(iter(how["options"].items()))
        text = " ".join(f"{key}={value}" for key, value in options.items())
        rows.append(
            [escape(plain_name(codec)), f"1/{how['shrink']}", f"1/{how['skip']}", f"{rate} kbps: {escape(text)}"]
        )
    if rows:
        yield "<h2>Settings of the encoders</h2>"
        yield "<p class='note'>One thread, one key picture, the rate asked for as bit rate.</p>"
        yield _table(["", "size", "frame rate", "options"], rows)


def _repeats(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> bool:
    """Whether the low rates are all there are."""
    whole = {**row, "rates": None}
    return row["rates"] is not None and whole in rows


def _interval(found: dict[str, Any] | None, unit: str) -> str:
    if found is None:
        return "nothing in common"
    if found["clips"] == 1:
        return f"{found['mean']:+.2f}{unit}"
    return (
        f"{found['mean']:+.2f}{unit} <small>({found['low']:+.2f} to {found['high']:+.2f}; "
        f"{_count(found['clips'], 'clip')})</small>"
    )


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{heading}</th>" for heading in headings)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _pictures(name: str, clip: dict[str, Any], folder: Path) -> Iterable[str]:
    yield f"<h2>Pictures: {escape(name)}</h2>"
    there = [point for point in clip["points"] if (folder / f"{picture_name(point)}-0.png").is_file()]
    for kbps in SHOWN_KBPS:
        chosen = nearest(there, kbps)
        if not chosen:
            continue
        yield f"<h3>Near {kbps:g} kbps</h3>"
        for frame in range(PICTURES):
            figures = [_figure(folder / f"original-{frame}.png", "original")]
            for point in chosen:
                scores = ", ".join(
                    f"{point['scores'][c]:.1f} {unit}"
                    for c, unit in (("psnr_rgb", "dB"), ("vmaf", "VMAF"))
                    if point["scores"].get(c) is not None
                )
                text = f"{plain_name(point['codec'])}: {point['kbps']:.1f} kbps; clip: {scores}"
                figures.append(_figure(folder / f"{picture_name(point)}-{frame}.png", text))
            yield f'<div class="row">{"".join(figures)}</div>'


def nearest(points: Sequence[Point], kbps: float) -> list[Point]:
    """Of each codec the point whose spent rate is nearest by ratio, in the order of LOOKS. Points that another of the
    codec beats at no higher rate are left out: below its floor an encoder can do worse for more."""
    found = []
    for codec in LOOKS:
        own = [point for point in points if point["codec"] == codec]
        best = frontier([(point["kbps"], point["scores"].get("psnr_rgb", 0.0)) for point in own])
        useful = [point for point in own if (point["kbps"], point["scores"].get("psnr_rgb", 0.0)) in best]
        found += sorted(useful, key=lambda point: abs(math.log(point["kbps"] / kbps)))[:1]
    return found


def _figure(file: Path, text: str) -> str:
    picture = cv2.imread(str(file))
    if picture is None:
        raise CodecError(f"{file} is no picture.")
    data = base64.b64encode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 93])[1].tobytes()).decode()
    return f'<figure><img alt="" src="data:image/jpeg;base64,{data}"><figcaption>{escape(text)}</figcaption></figure>'


def _speed(results: dict[str, Any]) -> Iterable[str]:
    yield f"<h2>Speed: {_count(results['threads'], 'thread')}, {results['size']}x{results['size']}</h2>"
    yield _origin(results)
    if "pools" in results:
        yield f"<p class='note'>Threads: {escape(', '.join(f'{k} {n}' for k, n in results['pools'].items()))}.</p>"
    keys = ("p50_ms", "p95_ms", "p99_ms", "per_s")
    rows = [
        [escape(row["stage"]), str(row["sources"] or ""), *(f"{row[key]:.2f}" for key in keys)]
        for row in results["stages"]
    ]
    yield _table(["stage", "sources", "p50, ms", "p95, ms", "p99, ms", "a second"], rows)
    inside = [
        [escape(row["part"]), str(row["sources"]), f"{row['ms']:.2f}", f"{row['share']:.0%}"]
        for row in results["parts"]
    ]
    yield "<h3>Inside the network, for one frame</h3>" + _table(["part", "sources", "ms", "share"], inside)
    sums = [[str(row["sources"]), *(f"{row[key]:.2f}" for key in SUMS)] for row in results.get("sums", [])]
    if sums:
        yield _table(["sources", "stages together, ms", "their frame, ms", "a frame by itself, ms"], sums)
    yield _table(
        ["ratio of medians", ""], [[escape(name), f"{value:.2f}"] for name, value in results["ratios"].items()]
    )
    memory = [[escape(name), f"{value:.0f} MB"] for name, value in results["memory_mb"].items()]
    if results["soak"] is not None:
        soak = results["soak"]
        memory.append([f"early in {soak['frames']} frames", f"{soak['early_mb']:.0f} MB"])
        memory.append([f"after {soak['frames']} frames", f"{soak['late_mb']:.0f} MB"])
    yield _table(["memory", ""], memory)
