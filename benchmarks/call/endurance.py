"""`iwcodec bench endurance`: a server and two headless clients in processes of their own, on real sockets, for as long
as is asked for; what each takes of the machine, what waits in its queues, and how late its pictures are.

A leak or a queue that grows shows in half an hour: the first minutes fill libraries and histories and are told apart.
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

from iwcodec.benchmarks.experiment import save, surroundings
from iwcodec.client.demo import server
from iwcodec.codec.cli import console, progress_bar
from iwcodec.codec.errors import CodecError
from iwcodec.codec.media.types import AUDIO_RATE
from iwcodec.codec.media.video import at_constant_rate, probe, read_video, sample_clip
from iwcodec.codec.media.writer import VideoWriter

NAMES = ("Ada", "Bob")
JOIN_S = 60.0
WINDOWS, MIN_WINDOW_S = 6, 10.0
"""Parts of the call that are told separately."""
TONE_S, TONE_HZ, TONE_LEVEL = 0.5, 220, 6000


@dataclass
class Client:
    """A process that takes part, and what it says of itself every few seconds."""

    process: subprocess.Popen[str]
    looks: list[dict[str, Any]] = field(default_factory=list)

    def listen(self) -> None:
        """Until it ends."""
        assert self.process.stdout is not None
        seen = psutil.Process(self.process.pid)
        for line in self.process.stdout:
            participants = json.loads(line)["participants"]
            if participants and "frames_per_s" in participants[0]:
                self.looks.append({"at_s": time.monotonic(), **resources(seen), **participants[0]})


def resources(process: psutil.Process) -> dict[str, float]:
    """Of the machine, now; nothing of a process that has gone."""
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


def measure(clip: Path, minutes: float, tell: Callable[[str, float], None]) -> dict[str, Any]:
    """Raises CodecError where a client ends early or no pictures come."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        film = with_sound(clip, folder / "film.mp4")
        address = stack.enter_context(server())
        serving = psutil.Process(psutil.Process().children()[0].pid)
        clients = [join(f"{address}/r/endurance", name, film, stack) for name in NAMES]
        wait(clients, JOIN_S, lambda: all(client.looks for client in clients), lambda share: tell("joining", share))
        first = resources(serving)
        began = time.monotonic()
        wait(clients, 60 * minutes, None, lambda share: tell("in the call", share))
        last = resources(serving)
        for client in clients:
            client.process.terminate()
        ended = [client.process.wait(JOIN_S) for client in clients]
    return {
        "clip": clip.stem,
        "minutes": minutes,
        "server": {"first": first, "last": last},
        "clients": {
            name: {"exit_status": status, "windows": windows(client.looks, began, 60 * minutes)}
            for name, client, status in zip(NAMES, clients, ended, strict=True)
        },
    }


def join(url: str, name: str, film: Path, stack: ExitStack) -> Client:
    words = ["call", url, "--headless", "--json", "--video", str(film), "--name", name]
    process = subprocess.Popen(
        [sys.executable, "-m", "iwcodec", *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    stack.callback(process.kill)
    client = Client(process)
    listening = Thread(target=client.listen, daemon=True)
    listening.start()
    return client


def wait(
    clients: Sequence[Client], longest_s: float, until: Callable[[], bool] | None, tell: Callable[[float], None]
) -> None:
    """Until it is so, or simply so long."""
    began = time.monotonic()
    while (gone := time.monotonic() - began) < longest_s:
        for name, client in zip(NAMES, clients, strict=True):
            if client.process.poll() is not None:
                raise CodecError(f"{name} left the call with exit status {client.process.returncode}.")
        if until is not None and until():
            return
        tell(gone / longest_s)
        time.sleep(0.5)
    if until is not None:
        raise CodecError(f"No pictures came within {longest_s:.0f} s.")


def windows(looks: Sequence[dict[str, Any]], began_s: float, lasted_s: float) -> list[dict[str, Any]]:
    """Means over equal parts of the call; of queues the most, of processor time the share of a core."""
    made = []
    parts = max(1, min(WINDOWS, int(lasted_s / MIN_WINDOW_S)))
    for n in range(parts):
        start, end = (began_s + lasted_s * k / parts for k in (n, n + 1))
        some = [look for look in looks if start <= look["at_s"] < end and "memory_mb" in look]
        if len(some) > 1:
            made.append({"from_min": lasted_s * n / parts / 60, **summary(some)})
    return made


def summary(looks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    queued: Counter[str] = Counter()
    for look in looks:
        queued |= Counter(look["queued"])
    spent_s = (looks[-1]["cpu_s"] - looks[0]["cpu_s"]) / (looks[-1]["at_s"] - looks[0]["at_s"])
    means = ("memory_mb", "handles", "threads", "delay_ms", "frames_per_s", "sources", "sound_waits_ms")
    return {
        **{name: round(float(np.mean([look[name] for look in looks])), 1) for name in means if name in looks[0]},
        "delay_ms_worst": round(max(look["delay_ms"] for look in looks), 1),
        "sent_kbps": round(float(np.mean([look["sent_kbps"]["total"] for look in looks])), 2),
        "cores": round(spent_s, 2),
        "queued_most": dict.fromkeys(looks[0]["queued"], 0) | dict(queued),
        "dropped": looks[-1]["dropped"],
    }


def with_sound(clip: Path, out: Path) -> Path:
    """The clip; with a tone in every second where it has no sound, so that sound is sent all the time."""
    info = probe(clip)
    if info.audio is not None:
        return clip
    with VideoWriter(out, (info.width, info.height), info.fps, audio=True) as writer:
        count = 0
        for picture in at_constant_rate(read_video(clip), info.fps):
            writer.write(picture)
            count += 1
        times = np.arange(round(AUDIO_RATE * count / info.fps)) / AUDIO_RATE
        tone = np.where(times % 1 < TONE_S, TONE_LEVEL * np.sin(2 * np.pi * TONE_HZ * times), 0)
        writer.write_audio(tone.astype(np.int16))
    return out


def command(
    clip: Annotated[Path | None, typer.Argument(help="A video of a speaker; the bundled one if none.")] = None,
    minutes: Annotated[float, typer.Option(help="Length of the call.", min=0.5)] = 30.0,
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the JSON instead of a table.")] = False,
) -> None:
    """A call of two headless clients for half an hour: memory, file handles, queues and delay, which must not grow."""
    with progress_bar(as_json) as tell:
        result = {**surroundings(), **measure(clip or sample_clip(), minutes, tell)}
    if out is not None:
        save(result, out)
    if as_json:
        print(json.dumps(result, indent=1))
        return
    for name, client in result["clients"].items():
        console.print(table(name, client["windows"]))


def table(name: str, parts: Sequence[dict[str, Any]]) -> Table:
    made = Table(title=f"{name}, by the minute from which it is", title_justify="left")
    made.add_column("")
    for part in parts:
        made.add_column(f"{part['from_min']:.0f}", justify="right")
    for key in parts[0] if parts else ():
        if key not in ("from_min", "dropped", "queued_most"):
            made.add_row(key, *(f"{part[key]:.1f}" for part in parts))
    for key in parts[0]["queued_most"] if parts else ():
        made.add_row(f"most {key}", *(str(part["queued_most"][key]) for part in parts))
    return made
