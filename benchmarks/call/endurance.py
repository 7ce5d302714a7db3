"""`iwcodec bench endurance`: a long call between a server and two headless clients, each in its own process.

Over real sockets; measures resources of each process, lengths of its queues and delay of its pictures. Half an hour
shows a leak or a growing queue. Figures are given by time window, because the first minutes fill the source libraries.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Annotated, Any

import numpy as np
import psutil
import typer
from rich.table import Table

from iwcodec.benchmarks.call.film import with_sound
from iwcodec.benchmarks.experiment import publish, surroundings, text_table
from iwcodec.client.demo.server import local_server
from iwcodec.codec.errors import CodecError
from iwcodec.codec.media.video import sample_clip
from iwcodec.codec.terminal import JSON, progress_bar

NAMES = ("Ada", "Bob")
JOIN_S = 60.0
"""Longest wait for the clients to join, and to end."""
WINDOWS, MIN_WINDOW_S = 6, 10.0
"""The call is summarised in this many windows of equal length, fewer if they would be shorter than MIN_WINDOW_S."""


@dataclass
class Client:
    """A client process, and the status reports that it prints every few seconds."""

    process: subprocess.Popen[str]
    reports: list[dict[str, Any]] = field(default_factory=list)

    def listen(self) -> None:
        """Collect reports until the process ends."""
        assert self.process.stdout is not None
        process = psutil.Process(self.process.pid)
        for line in self.process.stdout:
            participants: list[dict[str, Any]] = json.loads(line)["participants"]
            other = next((one for one in participants if one["name"] in NAMES), None)
            if other is not None and "frames_per_s" in other:
                self.reports.append({"at_s": time.monotonic(), **resources(process), **other})


def resources(process: psutil.Process) -> dict[str, float]:
    """Current resources of a process; empty if it has ended."""
    try:
        with process.oneshot():
            handles = process.num_fds() if hasattr(process, "num_fds") else process.num_handles()
            times = process.cpu_times()
            return {
                "memory_mb": process.memory_info().rss / 2**20,
                "handles": handles,
                "threads": process.num_threads(),
                "cpu_s": times.user + times.system,
            }
    except psutil.Error:
        return {}


def measure(clip: Path, minutes: float, progress: Callable[[str, float], None]) -> dict[str, Any]:
    """Run the call. Raises CodecError if a client ends early or no pictures arrive."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        film = with_sound(clip, folder / "film.mp4")
        address = stack.enter_context(local_server())
        serving = psutil.Process(psutil.Process().children()[0].pid)
        clients = [join(f"{address}/r/endurance", name, film, stack) for name in NAMES]
        wait(
            clients, JOIN_S, lambda: all(client.reports for client in clients), lambda share: progress("joining", share)
        )
        first = resources(serving)
        began = time.monotonic()
        wait(clients, 60 * minutes, None, lambda share: progress("in the call", share))
        last = resources(serving)
        for client in clients:
            client.process.terminate()
        ended = [client.process.wait(JOIN_S) for client in clients]
    return {
        "clip": clip.stem,
        "minutes": minutes,
        "server": {"first": first, "last": last},
        "clients": {
            name: {"exit_status": status, "windows": windows(client.reports, began, 60 * minutes)}
            for name, client, status in zip(NAMES, clients, ended, strict=True)
        },
    }


def join(url: str, name: str, film: Path, stack: ExitStack, *options: str) -> Client:
    """Start a client that sends `film`, with further options of `iwcodec call`; the stack ends it."""
    return start(stack, "iwcodec", "call", url, "--headless", "--json", "--video", str(film), "--name", name, *options)


def start(stack: ExitStack, module: str, *words: str) -> Client:
    """Run a Python module that prints reports as `iwcodec call --headless --json` does; the stack ends it."""
    command = [sys.executable, "-m", module, *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    stack.callback(process.kill)
    client = Client(process)
    listening = Thread(target=client.listen, daemon=True)
    listening.start()
    return client


def wait(
    clients: Sequence[Client], longest_s: float, until: Callable[[], bool] | None, progress: Callable[[float], None]
) -> None:
    """Wait until the condition holds, or for `longest_s` without one.

    Raises CodecError if a client ends, or if the condition does not hold in time.
    """
    began = time.monotonic()
    while (elapsed_s := time.monotonic() - began) < longest_s:
        for name, client in zip(NAMES, clients, strict=True):
            if client.process.poll() is not None:
                raise CodecError(f"{name} left the call with exit status {client.process.returncode}.")
        if until is not None and until():
            return
        progress(elapsed_s / longest_s)
        time.sleep(0.5)
    if until is not None:
        raise CodecError(f"No pictures arrived within {longest_s:.0f} s.")


def windows(reports: Sequence[dict[str, Any]], began_s: float, lasted_s: float) -> list[dict[str, Any]]:
    """Summary of the reports in each of up to WINDOWS equal parts of the call."""
    summaries = []
    parts = max(1, min(WINDOWS, int(lasted_s / MIN_WINDOW_S)))
    for n in range(parts):
        start, end = (began_s + lasted_s * k / parts for k in (n, n + 1))
        window = [report for report in reports if start <= report["at_s"] < end and "memory_mb" in report]
        if len(window) > 1:
            summaries.append({"from_min": lasted_s * n / parts / 60, **summary(window)})
    return summaries


def summary(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means, the worst delay, the longest queues, and processor time in cores."""
    queued: Counter[str] = Counter()
    for report in reports:
        queued |= Counter(report["queued"])
    spent_s = (reports[-1]["cpu_s"] - reports[0]["cpu_s"]) / (reports[-1]["at_s"] - reports[0]["at_s"])
    means = ("memory_mb", "handles", "threads", "delay_ms", "frames_per_s", "sources", "sound_waits_ms")
    return {
        **{name: round(float(np.mean([r[name] for r in reports])), 1) for name in means if name in reports[0]},
        "delay_ms_worst": round(max(report["delay_ms"] for report in reports), 1),
        "sent_kbps": round(float(np.mean([report["sent_kbps"]["total"] for report in reports])), 2),
        "cores": round(spent_s, 2),
        "queued_most": dict.fromkeys(reports[0]["queued"], 0) | dict(queued),
        "dropped": reports[-1]["dropped"],
    }


def command(
    clip: Annotated[Path | None, typer.Argument(help="A video of a speaker; default: the bundled clip.")] = None,
    minutes: Annotated[float, typer.Option(help="Length of the call.", min=0.5)] = 30.0,
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.")] = None,
    as_json: JSON = False,
) -> None:
    """A half-hour call of two headless clients: memory, file handles, queues and delay must not grow."""
    with progress_bar(as_json) as progress:
        result = {**surroundings(), **measure(clip or sample_clip(), minutes, progress)}
    publish(result, out, as_json, *(table(name, client["windows"]) for name, client in result["clients"].items()))


def table(name: str, parts: Sequence[dict[str, Any]]) -> Table:
    """One column per window, one row per figure."""
    first = parts[0] if parts else {"queued_most": {}}
    keys = [key for key in first if key not in ("from_min", "dropped", "queued_most")]
    rows = [[key, *(f"{part[key]:.1f}" for part in parts)] for key in keys]
    rows += [[f"most {key}", *(str(part["queued_most"][key]) for part in parts)] for key in first["queued_most"]]
    headings = ["", *(f"{part['from_min']:.0f}" for part in parts)]
    return text_table(f"{name}, by the minute at which each window starts", headings, rows)
