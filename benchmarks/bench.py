"""`iwcodec bench`: what the product can do, measured beside what people would use instead."""

from functools import partial
from importlib import import_module
from typing import Any

import typer

from ..cli import register

COMMANDS = (
    "rd",
    "report",
    "speed",
    "sources",
    "motion",
    "tables",
    "ablation",
    "attention",
    "wire",
    "endurance",
)
"""Modules of this package whose `command` becomes `iwcodec bench NAME`."""

app = typer.Typer(help="Measure rate, quality and speed beside other codecs.", no_args_is_help=True)


def _load(name: str) -> Any:
    return import_module(f".{name}", __package__).command


for _name in COMMANDS:
    register(_name, partial(_load, _name), app)
