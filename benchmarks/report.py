"""`iwcodec bench report`: plots and one self-contained HTML page from results files, without running a codec."""

from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from iwcodec.benchmarks import experiment, report_rd
from iwcodec.benchmarks.performance import speed
from iwcodec.benchmarks.quality import ablation, motion, sources, tables
from iwcodec.benchmarks.report_html import origin, page, table
from iwcodec.codec.cli import console
from iwcodec.codec.errors import CodecError

TABLE_RESULTS: dict[str, Callable[[dict[str, Any]], list[Table]]] = {
    "speed": speed.tables,
    "sources": lambda results: [sources.table([sources.Coded(**row) for row in results["clips"]])],
    "motion": lambda results: [motion.table(results)],
    "tables": lambda results: [tables.reconstruction_table(results)],
    "ablation": lambda results: [ablation.table(results)],
}
"""Kind of results ("what") -> the tables that its command prints; the report shows the same."""


def command(
    results: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RESULTS.json...]", help="Of bench rd, speed, sources, motion, tables, ablation."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for plots and page; default: that of the results.")] = None,
) -> None:
    """Draw the plots (PNG and SVG) and write report.html. Runs no codec."""
    files = results or [Path("bench") / "rd.json"]
    console.print(f"Report: {run(files, out or files[0].parent)}")


def run(files: Sequence[Path], out: Path) -> Path:
    """Write the plots and report.html into `out`; returns the page. Raises CodecError for a file without results."""
    loaded = [(file, experiment.load(file)) for file in files]
    try:
        out.mkdir(parents=True, exist_ok=True)
        parts = [part for file, results in loaded for part in _sections(file, results, out)]
        target = out / "report.html"
        target.write_text(page(parts))
    except OSError as error:
        raise CodecError(f"The report cannot be written to {out}: {error.strerror}.") from error
    return target


def _sections(file: Path, results: dict[str, Any], out: Path) -> Iterable[str]:
    try:
        if results.get("what") == "rd":
            return list(report_rd.sections(file, results, out))
        if results.get("what") in TABLE_RESULTS:
            return list(_tables(results))
    except (KeyError, TypeError, IndexError) as error:
        raise CodecError(f"{file} is not laid out as `iwcodec bench` does: {type(error).__name__} {error}.") from error
    raise CodecError(f"{file} holds no results of bench {', '.join(['rd', *TABLE_RESULTS])}.")


def _tables(results: dict[str, Any]) -> Iterable[str]:
    """The tables that the command itself prints."""
    yield f"<h2>iwcodec bench {escape(results['what'])}</h2>"
    yield origin(results)
    for printed in TABLE_RESULTS[results["what"]](results):
        yield f"<h3>{escape(str(printed.title))}</h3>" + table(
            [escape(str(column.header)) for column in printed.columns],
            zip(*([escape(str(cell)) for cell in column.cells] for column in printed.columns), strict=True),
        )
