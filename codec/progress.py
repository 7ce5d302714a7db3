"""Progress of long commands: a bar on a terminal, else a line now and then."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

LINE_S = 10.0
"""Seconds between two lines."""

MIN_SHARE = 0.1
"""Share done from which the time left is told."""
Update = Callable[[str, float], None]
"""Takes the name of what is being done and the share of the work that is done (0..1). A lower share than before begins
further work."""


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
        task = bar.add_task("", total=1.0)
        reached = 0.0

        def update(name: str, share: float) -> None:
            nonlocal task, reached
            if share < reached:  # further work, of which less is done
                bar.update(task, completed=1.0)
                task = bar.add_task(name, total=1.0)
            reached = share
            bar.update(task, description=name, completed=share)

        yield update


def progress_lines(show: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> Update:
    """Return a function that shows a line every LINE_S seconds at most; none for what takes less."""
    started = begun = shown = clock()
    reached = 0.0

    def update(name: str, share: float) -> None:
        nonlocal begun, shown, reached
        now = clock()
        if share < reached:  # further work, of which less is done
            begun = now
        reached = share
        if now - shown >= LINE_S:
            shown = now
            left = f", about {(now - begun) * (1 - share) / share:.0f} s left" if share >= MIN_SHARE else ""
            show(f"{now - started:.0f} s: {name}, {share:.0%}{left}")

    return update
