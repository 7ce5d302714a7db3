"""Checks of the public API's arguments: what has the wrong type is refused at once, in one sentence."""

import os
from pathlib import Path
from typing import Any

from iwcodec.codec.errors import OptionError
from iwcodec.models.runtime.types import ModelInfo, Runtime


def check_type(name: str, value: Any, *kinds: type | None) -> None:
    """Raise OptionError unless the argument `name` is of one of the `kinds`; None among them stands for None."""
    if not any(value is None if kind is None else isinstance(value, kind) for kind in kinds):
        known = " or ".join("None" if kind is None else kind.__name__ for kind in kinds)
        raise OptionError(f"{name} must be {known}, not {type(value).__name__}.")


def check_number(name: str, value: Any, low: float, high: float) -> None:
    """Raise OptionError unless the argument `name` is a number from `low` to `high`."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
        raise OptionError(f"{name} must be from {low} to {high}, not {value!r}.")


def check_runtime(value: Any) -> Runtime:
    """Return the network. Raises OptionError for anything else."""
    if isinstance(value, type) or not isinstance(getattr(value, "info", None), ModelInfo):
        raise OptionError(f"runtime must be what load_runtime() returns, not {_named(value)}.")
    runtime: Runtime = value
    return runtime


def check_path(name: str, value: Any) -> Path:
    """Return the argument `name` as a path. Raises OptionError for what is neither text nor a path."""
    try:
        path = os.fspath(value)
    except TypeError:
        path = None
    if not isinstance(path, str):
        raise OptionError(f"{name} must be the path of a file, not {_named(value)}.")
    return Path(path)


def check_callback(name: str, value: Any) -> None:
    """Raise OptionError unless the argument `name` is a function or None."""
    if value is not None and not callable(value):
        raise OptionError(f"{name} must be a function, not {_named(value)}.")


def _named(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
