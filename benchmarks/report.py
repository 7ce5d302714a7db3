"""`iwcodec bench report`: plots and one self-contained HTML page from results files, without running a codec."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from iwcodec.benchmarks import experiment, report_rd
from iwcodec.benchmarks.report_html import page
from iwcodec.codec.errors import CodecError
from iwcodec.codec.terminal import console


def command(
    results: Annotated[
        list[Path] | None, typer.Argument(metavar="[RESULTS.json...]", help="Of bench rd; default: bench/rd.json.")
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
    if results.get("what") != "rd":
        raise CodecError(f"{file} holds no results of bench rd.")
    try:
        return list(report_rd.sections(file, results, out))
    except (KeyError, TypeError, IndexError) as error:
        raise CodecError(f"{file} is not laid out as `iwcodec bench` does: {type(error).__name__} {error}.") from error
