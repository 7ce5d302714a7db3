"""Building blocks of the HTML report: page, tables, embedded pictures, and the line that says how results were made."""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import cv2

from iwcodec.codec.errors import CodecError

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1180px; margin: 2em auto; padding: 0 1em; color: #111; }
h1 { font-size: 1.5em; } h2 { font-size: 1.2em; margin-top: 2em; }
table { border-collapse: collapse; margin: .8em 0; font-variant-numeric: tabular-nums; }
th, td { padding: .2em .7em; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; }
img.plot { max-width: 100%; } .beside img.plot { width: 49.5%; } .beside img.plot:only-child { width: auto; }
.scroll { overflow-x: auto; }
.row { display: flex; flex-wrap: wrap; gap: 6px; margin-bottom: 1em; }
figure { margin: 0; width: 218px; } figure img { width: 100%; display: block; } figcaption { font-size: 12px; }
small, .note { color: #555; }
"""


def page(parts: Iterable[str]) -> str:
    """A complete HTML page that needs no other file."""
    head = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>iwcodec benchmarks</title><style>{STYLE}</style>'
    )
    return head + "<h1>iwcodec benchmarks</h1>" + "\n".join(parts) + "</html>\n"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Headings and cells are HTML."""
    head = "".join(f"<th>{heading}</th>" for heading in headings)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def figure(file: Path, text: str) -> str:
    """A picture file, embedded as JPEG, with a caption. Raises CodecError if it cannot be read."""
    picture = cv2.imread(str(file))
    if picture is None:
        raise CodecError(f"{file} is not a picture.")
    data = base64.b64encode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 93])[1].tobytes()).decode()
    return f'<figure><img alt="" src="data:image/jpeg;base64,{data}"><figcaption>{escape(text)}</figcaption></figure>'


def svg(file: Path, alt: str) -> str:
    """A plot, embedded as SVG."""
    data = base64.b64encode(file.read_bytes()).decode()
    return f'<img class="plot" alt="{escape(alt)}" src="data:image/svg+xml;base64,{data}">'


def origin(results: dict[str, Any]) -> str:
    """Command, commit, model, machine, versions and unavailable metrics of a results file."""
    machine, model, unavailable = results["machine"], results["model"], results["missing_metrics"]
    lines = [
        f"<code>{escape(results['command'])}</code>, commit {escape(str(results['commit']))}",
        f"model {escape(model['id'])} ({escape(model['digest'])})",
        f"{escape(str(machine['processor']))}, {machine['cores']} cores, {escape(machine['system'])}, "
        f"Python {escape(machine['python'])}; "
        + ", ".join(f"{escape(name)} {escape(number)}" for name, number in results["versions"].items()),
    ]
    lines += [f"without {escape(name)}: {escape(reason)}" for name, reason in unavailable.items()]
    return '<p class="note">' + "<br>".join(lines) + "</p>"


def count(number: int, noun: str) -> str:
    """The number with its noun, in the plural where needed."""
    return f"{number} {noun}{'s' * (number != 1)}"
