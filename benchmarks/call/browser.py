"""`iwcodec bench browser`: the pages of the player and of a call in Chromium, on the real server with a real client.

Everything runs on this machine: the server, the browser with its camera, and the other end. That is `iwcodec call`,
which films a clip and takes a core or more; or what it sent, recorded before and replayed (replay.py), which leaves the
cores to the browser. What a browser loads is counted from an empty cache, headers included.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import av
import numpy as np
import typer
from rich.table import Table

from iwcodec.benchmarks.call.endurance import Client, join, start, wait
from iwcodec.benchmarks.call.film import with_sound
from iwcodec.benchmarks.experiment import publish, surroundings, text_table
from iwcodec.client.demo.server import local_server
from iwcodec.codec.errors import CodecError
from iwcodec.codec.media.video import read_video, sample_clip
from iwcodec.codec.terminal import JSON, progress_bar
from iwcodec.server.http.player import NOT_BUILT, is_built

WEB = Path(__file__).parents[2] / "client" / "web"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
TIMEOUT_S = 180.0
"""Longest wait for a picture."""
CAMERA_FRAMES = 250
"""Frames of the clip that the browser's camera repeats."""
REPLAYED, FILMING = "both ways, other end replayed", "both ways, other end a Python client on the same cores"
COLUMNS = ("playing", "watching", REPLAYED, FILMING)
LABELS = {
    "first_picture_s": "first picture after the address was opened, s",
    "frames_shown_per_s": "frames/s shown",
    "frames_coded_per_s": "frames/s coded",
    "frames_received_per_s": "frames/s that the other end receives of the browser",
    "frames_seen_per_s": "frames/s that the other end shows of the browser",
    "transferred_mb": "transferred from an empty cache, MB",
    "problems": "errors on the console",
}


def browser(built: bool = True) -> str:
    """Return the path of Chromium. Raises CodecError if something is missing. `built`: whether the pages are needed."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise CodecError(f"No browser was found: install one of {', '.join(BROWSERS)}.")
    if shutil.which("node") is None or not (WEB / "node_modules").is_dir():
        raise CodecError("The browser is driven by Node.js from a clone: run `make web` there.")
    if built and not is_built():
        raise CodecError(NOT_BUILT)
    return found


def drive(script: str, request: dict[str, Any]) -> dict[str, Any]:
    """Return the report of a script in client/web/tests/browser. Raises CodecError if it fails."""
    command = ["node", f"tests/browser/{script}"]
    done = subprocess.run(command, cwd=WEB, input=json.dumps(request), capture_output=True, text=True, check=False)
    if done.returncode:
        raise CodecError(f"The browser could not be driven: {done.stderr.strip()[-500:]}")
    report: dict[str, Any] = json.loads(done.stdout)
    if report["error"]:
        raise CodecError(f"The page failed: {report['error']}")
    return report


def write_camera(clip: Path, out: Path) -> Path:
    """Write the beginning of a clip as the Y4M file that Chromium's fake camera repeats."""
    with out.open("wb") as file:
        for n, frame in enumerate(read_video(clip)):
            if n == CAMERA_FRAMES:
                break
            picture = av.VideoFrame.from_ndarray(frame.picture, format="rgb24").reformat(format="yuv420p")
            if n == 0:
                file.write(f"YUV4MPEG2 W{picture.width} H{picture.height} F25:1 Ip C420\n".encode())
            file.write(b"FRAME\n" + picture.to_ndarray().tobytes())
    return out


def measure(clip: Path, seconds: float, progress: Callable[[str, float], None]) -> dict[str, Any]:
    """Play a file; watch a caller; then film, too, beside another end that is replayed, and one that films. Raises
    CodecError."""
    path = browser()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        film, camera = with_sound(clip, folder / "film.mp4"), write_camera(clip, folder / "camera.y4m")
        address = stack.enter_context(local_server())
        progress("playing a file", 0.0)
        request = {"browser": path, "seconds": seconds, "timeoutMs": 1000 * TIMEOUT_S}
        played = drive("player.mjs", {**request, "url": f"{address}/play", "seconds": min(seconds, 6.0)})
        out = {"browser": played["version"], "seconds": seconds, "playing": playing(played)}
        progress("recording the other end", 1 / 5)
        recording = record(f"{address}/r/recorded", film, seconds, folder / "ada.iwc", stack)
        for n, name in enumerate(COLUMNS[1:], 2):
            progress(name, n / 5)
            room, films = f"{address}/r/browser-{n}", name != "watching"
            replayed = "iwcodec.benchmarks.call.replay", room, str(recording), str(film)
            client = start(stack, *replayed) if name == REPLAYED else join(room, "Ada", film, stack)
            url = f"{address}/play/call.html#room=browser-{n}"
            own = {"camera": str(camera), "coded": 1} if films else {}
            report = drive("call.mjs", {**request, "url": url, "name": "Bob", "frames": 1, **own})
            stop(client)
            out[name] = in_call(report, client.reports, films)
    return out


def record(room: str, film: Path, seconds: float, out: Path, stack: ExitStack) -> Path:
    """Record what `iwcodec call` sends of a film, to one that only watches. Raises CodecError."""
    clients = [
        join(room, "Ada", film, stack),
        join(room, "Bob", film, stack, "--no-video", "--no-audio", "--record", str(out)),
    ]
    wait(clients, TIMEOUT_S, lambda: any(one["frames_per_s"] for one in clients[1].reports), lambda share: None)
    wait(clients, seconds, None, lambda share: None)
    for client in reversed(clients):
        stop(client)
    return out


def stop(client: Client) -> None:
    client.process.terminate()
    client.process.wait(TIMEOUT_S)


def playing(report: dict[str, Any]) -> dict[str, Any]:
    """Figures of the player."""
    return {
        "first_picture_s": round(report["firstMs"] / 1000, 2),
        "frames_shown_per_s": round(1000 * report["shown"] / report["playedMs"], 1),
        "transferred_mb": round(report["bytes"] / 1e6, 2),
        "problems": len(report["problems"]),
    }


def in_call(report: dict[str, Any], reports: list[dict[str, Any]], films: bool) -> dict[str, Any]:
    """Figures of the page of a call. `reports`: what the client said, every few seconds."""
    passed_s = (report["after"]["at"] - report["before"]["at"]) / 1000
    rates = {name: round((report["after"][name] - report["before"][name]) / passed_s, 1) for name in ("shown", "coded")}
    out = {
        "first_picture_s": round(report["times"]["firstShown"], 2),
        "frames_shown_per_s": rates["shown"],
        "transferred_mb": round(report["bytes"] / 1e6, 2),
        "problems": len(report["problems"]),
    }
    if films:
        out["frames_coded_per_s"] = rates["coded"]
        for name, counted in (("received", "received_per_s"), ("seen", "frames_per_s")):
            some = [one[counted] for one in reports if one[counted]]
            out[f"frames_{name}_per_s"] = round(float(np.mean(some[len(some) // 2 :] or [0])), 1)
    return out


def command(
    clip: Annotated[Path | None, typer.Argument(help="A video of a speaker; default: the bundled clip.")] = None,
    seconds: Annotated[float, typer.Option(help="Length of each call, once its picture is there.", min=4)] = 20.0,
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.")] = None,
    as_json: JSON = False,
) -> None:
    """What a browser does on this machine: first picture, frames per second, bytes loaded; alone and in calls."""
    with progress_bar(as_json) as progress:
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        result = {**surroundings(), "load": load, **measure(clip or sample_clip(), seconds, progress)}
    publish(result, out, as_json, table(result))


def table(result: dict[str, Any]) -> Table:
    """One column per measurement."""
    columns = [name for name in COLUMNS if name in result]
    rows = [
        [label, *("" if key not in result[name] else str(result[name][key]) for name in columns)]
        for key, label in LABELS.items()
    ]
    return text_table(f"{result['browser']}, load {result['load']}", ["", *columns], rows)
