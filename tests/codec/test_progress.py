"""Progress where stderr is no terminal, and none if it is not wanted."""

import io

from rich.console import Console

from iwcodec.codec.progress import LINE_S, progress_lines, show_progress


def test_a_line_is_shown_now_and_then() -> None:
    now = [100.0]
    lines: list[str] = []
    update = progress_lines(lines.append, lambda: now[0])
    for second in range(26):
        now[0] = 100.0 + second
        update("fitting the motion", second / 25)
    assert lines == ["10 s: fitting the motion, 40%, about 15 s left", "20 s: fitting the motion, 80%, about 5 s left"]
    assert LINE_S == 10


def test_the_time_left_is_that_of_the_present_work() -> None:
    now, lines = [0.0], list[str]()
    update = progress_lines(lines.append, lambda: now[0])
    for now[0], share in ((0, 0.5), (20, 1.0), (30, 0.01), (40, 0.5)):
        update("work", share)
    assert lines == ["20 s: work, 100%, about 0 s left", "30 s: work, 1%", "40 s: work, 50%, about 10 s left"]


def test_quiet_shows_nothing() -> None:
    out = io.StringIO()
    for terminal in (False, True):
        with show_progress(Console(file=out, force_terminal=terminal), quiet=True) as update:
            update("reading", 0.5)
    assert out.getvalue() == ""


def test_a_terminal_shows_a_bar() -> None:
    out = io.StringIO()
    with show_progress(Console(file=out, force_terminal=True, width=100), quiet=False) as update:
        update("reading", 0.5)
        update("fitting the motion", 0.25)
    assert "fitting the motion" in out.getvalue()
