"""Progress of long commands: a bar on a terminal, else a line now and then."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

LINE_S = 10.0
"""Seconds between two lines."""

Update = Callable[[str, float], None]
"""Takes the name of the current pass and the share of it that is done (0..1)."""


@contextmanager
def show_progress(console: Console, quiet: bool) -> Iterator[Update]:
    """Yield a function that shows progress; nothing is shown if `quiet`."""
    if quiet:
        yield lambda name, share: None
    elif console.is_terminal:
        with _bar(console) as update:
            yield update
    else:
        yield progress_lines(lambda line: console.print(line, soft_wrap=True))


@contextmanager
def _bar(console: Console) -> Iterator[Update]:
    columns = (
        TextColumn("{task.description:<24}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        tasks: dict[str, Any] = {}

        def update(name: str, share: float) -> None:
            if name not in tasks:
                for task in tasks.values():
                    bar.update(task, completed=1.0)
                tasks[name] = bar.add_task(name, total=1.0)
            bar.update(tasks[name], completed=share)

        yield update


def progress_lines(show: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> Update:
    """Return a function that shows a line every LINE_S seconds at most; none for what takes less."""
    started = shown = clock()

    def update(name: str, share: float) -> None:
        nonlocal shown
        now = clock()
        if now - shown >= LINE_S:
            shown = now
            show(f"{now - started:.0f} s: {name}, {share:.0%}")

    return update
