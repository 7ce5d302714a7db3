"""`iwcodec bench wire`: bytes of a call on the wire, its delay, and the effect of loss.

Three kinds of measurement:

- simulated (simulated_call.py): real links, SCTP and source coding over simulated paths on a simulated clock. Exact and
  repeatable, for bytes, loss, outages and narrow links. Only the paths take time, computation takes none.
- loopback (webrtc_call.py): two real WebRTC connections (ICE, DTLS, UDP) in this process, in real time. For the delay
  from a camera frame to its picture on the display, computation included, and to check the simulation's byte counts.
- namespaces (namespaces.py): a real server and two real clients, each in a network namespace, in real time. For the
  first picture after joining, signalling and handshakes included, and all traffic including audio. Needs root.
"""

import asyncio
import os
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from iwcodec.benchmarks.call import namespaces
from iwcodec.benchmarks.call.film import with_sound
from iwcodec.benchmarks.call.participants import load_camera
from iwcodec.benchmarks.call.simulated_call import OUTAGE, SCENARIOS, SETTLED_S, scenario, seeded, steady
from iwcodec.benchmarks.call.webrtc_call import loopback
from iwcodec.benchmarks.call.wire_summary import averages, averages_table, call_tables
from iwcodec.benchmarks.experiment import publish, surroundings
from iwcodec.codec.cli import JSON, progress_bar
from iwcodec.codec.media.video import sample_clip
from iwcodec.models.runtime.load import load_runtime


def measure(
    clip: Path,
    seconds: float,
    seeds: int,
    threads: int | None,
    only: Sequence[str] | None,
    progress: Callable[[str, float], None],
) -> dict[str, Any]:
    """All measurements of one clip, or only those named in `only`.

    A scenario with random losses is run once per seed, and again with the sources of the loss-free call. Namespaces
    need root and are measured only if named.
    """
    runtime = load_runtime(threads=threads)
    camera = load_camera(clip, runtime)
    out: dict[str, Any] = {"clip": clip.stem}
    parts: dict[str, Callable[[], Any]] = {
        "steady": lambda: steady(runtime, camera, max(seconds, 2 * SETTLED_S)),
        "loopback": lambda: asyncio.run(loopback(runtime, camera, seconds)),
    }
    for name, path in SCENARIOS.items():
        parts[name] = partial(seeded, runtime, camera, seconds, {"delay_s": 0.02, **path}, seeds, out)
    parts["5 s outage"] = lambda: scenario(runtime, camera, 25.0, {"delay_s": 0.02}, OUTAGE)
    if only and "namespaces" in only:
        parts["namespaces"] = lambda: in_namespaces(clip, seconds, progress)
    for n, (name, part) in enumerate(parts.items()):
        if not only or name in only:
            progress(f"{clip.stem}: {name}", n / len(parts))
            out[name] = part()
    return out


def in_namespaces(clip: Path, seconds: float, progress: Callable[[str, float], None]) -> dict[str, Any]:
    """Measure in network namespaces, with the clip's sound or a tone."""
    with tempfile.TemporaryDirectory() as folder:
        return namespaces.all_cases(with_sound(clip, Path(folder) / "film.mp4"), seconds, progress)


def command(
    clips: Annotated[list[Path] | None, typer.Argument(help="Videos of a speaker; default: the bundled clip.")] = None,
    seconds: Annotated[int, typer.Option(help="Length of each measurement.", min=10, max=3600)] = 20,
    seeds: Annotated[int, typer.Option(help="Runs of each scenario with random losses.", min=1)] = 1,
    threads: Annotated[int | None, typer.Option(help="Threads of the network.", min=1)] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="A part: steady, loopback, namespaces (root) or a scenario; may be repeated."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.")] = None,
    as_json: JSON = False,
) -> None:
    """Bytes of a call on the wire by layer, its delay, and the effect of loss, outages and narrow links."""
    with progress_bar(as_json) as progress:
        calls = [measure(clip, seconds, seeds, threads, only, progress) for clip in clips or [sample_clip()]]
    result = {
        **surroundings(),
        "aiortc": version("aiortc"),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "calls": calls,
    }
    result["averages"] = averages(calls)
    printed = [table for call in calls for table in call_tables(call)]
    publish(result, out, as_json, *printed, *([averages_table(result)] if result["averages"] else []))
