"""`iwcodec bench`: measurements of this codec, compared with conventional codecs."""

from functools import partial
from importlib import import_module
from typing import Any

import typer

from iwcodec.codec.cli.app import register

COMMANDS = {
    "rd": "quality.rd",
    "report": "report",
    "speed": "performance.speed",
    "encode": "performance.encode_time",
    "sources": "quality.sources",
    "motion": "quality.motion",
    "tables": "quality.tables",
    "paper": "quality.paper",
    "attention": "performance.attention.command",
    "wire": "call.wire",
    "endurance": "call.endurance",
    "flood": "call.flood",
    "browser": "call.browser",
    "browser-sending": "call.browser_sending",
    "weights": "weights",
}
"""Sub-command -> module of this package that has it as `command`."""

app = typer.Typer(help="Measure rate, quality and speed, and compare with other codecs.", no_args_is_help=True)


def _load(module: str) -> Any:
    return import_module(f"{__package__}.{module}").command


for _name, _module in COMMANDS.items():
    register(_name, partial(_load, _module), app)
