"""What commands print, and the options that they share."""

import json
import sys
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Annotated, Any, TextIO

import typer
from rich.console import Console
from rich.text import Text

from iwcodec.codec.progress import Update, show_progress

console = Console(stderr=True, highlight=False, markup=False, emoji=False)
"""Without markup, because file names and pip commands may have brackets. On stderr: stdout is for answers."""
answers = Console(
    highlight=False, markup=False, emoji=False, width=None if sys.stdout is not None and sys.stdout.isatty() else 200
)
"""Tables that a command was asked for. In a pipe or file their lines are not wrapped."""

JSON = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on stdout.")]
QUIET = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but warnings and errors.")]
FORCE = Annotated[bool, typer.Option("--force", "-f", help="Overwrite the output file if it exists.")]


def warn(message: str, kind: str = "warning") -> None:
    """Print a warning."""
    console.print(Text(f"{kind}:", "yellow"), message, soft_wrap=True)


def fail(message: str, status: int = 1) -> None:
    """Print an error and exit."""
    console.print(Text("error:", "red"), message, soft_wrap=True)
    sys.exit(status)


def show_json(report: Any, out: TextIO | None = None) -> None:
    """Print a dataclass on stdout, or `out`, without its None values."""
    print(json.dumps(as_dictionary(report), indent=2), file=out)


def progress_bar(quiet: bool) -> AbstractContextManager[Update]:
    """Yield a function that takes the name of the current pass and the share of it that is done (0..1), and shows a
    progress bar, or lines where stderr is no terminal; nothing is shown if `quiet`."""
    return show_progress(console, quiet)


def as_dictionary(report: Any) -> dict[str, Any]:
    """The fields of a dataclass that are not None."""
    return {key: value for key, value in asdict(report).items() if value is not None}
