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
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from iwcodec.benchmarks.call import namespaces
from iwcodec.benchmarks.call.film import with_sound
from iwcodec.benchmarks.call.participants import FPS, load_camera
from iwcodec.benchmarks.call.simulated_call import OUTAGE, SCENARIOS, SETTLED_S, scenario, seeded, steady
from iwcodec.benchmarks.call.webrtc_call import loopback
from iwcodec.benchmarks.experiment import publish, surroundings, text_table
from iwcodec.codec.media.video import sample_clip
from iwcodec.codec.terminal import JSON, progress_bar
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


def averages(calls: list[dict[str, Any]]) -> dict[str, Any]:
    """By scenario: mean and standard deviation of each figure over clips and seeds.

    `*_to_no_loss` is the mean difference in dB from the same clip without loss, and its standard error over clips.
    """
    out: dict[str, Any] = {}
    for name in SCENARIOS:
        runs = [run for call in calls if name in call for run in call[name].get("runs", [call[name]])]
        if not runs:
            continue
        flat = [{**run, **{f"delay_ms_{share}": ms for share, ms in run["delay_ms"].items()}} for run in runs]
        keys = [key for key in flat[0] if isinstance(flat[0][key], float)]
        values = {key: [run[key] for run in flat] for key in keys}
        out[name] = {key: {"mean": float(np.mean(v)), "sd": float(np.std(v))} for key, v in values.items()}
        for key in ("psnr_db", "psnr_db_at_equal_sources"):
            costs = [
                np.mean([run[key] - call["no loss"]["psnr_db"] for run in call[name].get("runs", [call[name]])])
                for call in calls
                if name in call and "no loss" in call and key in keys
            ]
            if costs:
                error = float(np.std(costs, ddof=1) / np.sqrt(len(costs))) if len(costs) > 1 else None
                out[name][f"{key}_to_no_loss"] = {"mean": float(np.mean(costs)), "standard_error": error}
    steady_kbps = [call["steady"]["kbps"]["total"] for call in calls if "steady" in call]
    if steady_kbps:
        out["steady"] = {"kbps": {"mean": float(np.mean(steady_kbps)), "sd": float(np.std(steady_kbps))}}
    return out


def call_tables(call: dict[str, Any]) -> Iterator[Table]:
    """The results of one clip."""
    if "steady" in call:
        title = f"{call['clip']}: one direction of a steady call at {FPS} frames/s"
        layers = call["steady"]["kbps"].items()
        yield text_table(title, ("layer", "kbps"), ((name.replace("_", ", "), f"{kbps:.2f}") for name, kbps in layers))
    paths = {name: result for name, result in call.items() if isinstance(result, dict) and "psnr_db" in result}
    if paths:
        rows = (
            [
                name,
                f"{r['psnr_db']:.2f}",
                *(f"{r['delay_ms'][share]:.0f}" for share in ("p50", "p95")),
                f"{r['frames_shown_per_s']:.1f}",
                *(f"{r[key]:.2f}" if key in r else "" for key in ("longest_hold_s", "first_picture_s", "back_after_s")),
            ]
            for name, r in paths.items()
        )
        headings = ("", "dB", "p50 ms", "p95 ms", "frames/s", "longest freeze s", "first picture s", "recovery s")
        yield text_table(f"{call['clip']}: paths", headings, rows)
    others = [name for name in ("loopback", "namespaces") if name in call]
    if others:
        yield text_table(f"{call['clip']}: others", ("", "result"), ((name, json.dumps(call[name])) for name in others))


def averages_table(result: dict[str, Any]) -> Table:
    """Averages over clips and seeds."""
    columns, rows = ("psnr_db", "delay_ms_p50", "delay_ms_p95", "frames_shown_per_s", "kbps"), []
    for name, of in result["averages"].items():
        db, *others = (f"{of[key]['mean']:.2f} ± {of[key]['sd']:.2f}" if key in of else "" for key in columns)
        costs = (of.get(f"{key}_to_no_loss") for key in ("psnr_db", "psnr_db_at_equal_sources"))
        rows.append([name, db, *("" if cost is None else f"{cost['mean']:+.2f}" for cost in costs), *others])
    headings = ("", "dB", "dB to no loss", "at equal sources", "p50 ms", "p95 ms", "frames/s", "kbps")
    return text_table("all clips and seeds, mean ± standard deviation", headings, rows)
