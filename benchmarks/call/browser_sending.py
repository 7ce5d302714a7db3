"""`iwcodec bench browser-sending`: what a browser's picture costs and shows, beside that of `iwcodec call`.

Chromium codes a clip with the page's own modules on a simulated clock (client/web/tests/browser/simulated_worker.ts).
Its messages then travel over a simulated association to a Python client, which films, too. A Python client sends the
same clip over the same path.
"""

import asyncio
import base64
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from iwcodec.benchmarks.call.browser import browser, drive
from iwcodec.benchmarks.call.participants import (
    FPS,
    Camera,
    DeferredReconstruction,
    End,
    PrecomputedDetection,
    make_end,
)
from iwcodec.benchmarks.call.simulated_call import SETTLED_S, by_layer
from iwcodec.benchmarks.call.simulation import (
    ImmediateExecutor,
    SimulatedConnection,
    SimulatedPath,
    connection_pair,
    simulate,
)
from iwcodec.benchmarks.experiment import publish, surroundings, text_table
from iwcodec.benchmarks.metrics import expression
from iwcodec.benchmarks.metrics.mesh.face_mesh import FaceMesh
from iwcodec.client.link.link import Link
from iwcodec.client.link.messages import MOTION_CHANNEL, MotionMessage
from iwcodec.client.video.video_sender import VideoSender
from iwcodec.codec.file.clip import open_footage
from iwcodec.codec.file.options import EncodeOptions
from iwcodec.codec.media.quality import psnr
from iwcodec.codec.media.types import Picture
from iwcodec.codec.terminal import JSON, progress_bar
from iwcodec.models.runtime.load import load_runtime
from iwcodec.models.runtime.types import Runtime
from iwcodec.server.http.player import files_of, write_site

MAX_S = 20.0
"""Seconds used of a clip."""
DELAY_S = 0.02
"""One way, as simulated_worker.ts has it."""
START_S = 1000.0
"""Where the simulated clock begins."""
COMPARED_FROM_S = 10.0
"""From here on pictures are compared: the first seconds are those of a library that is still empty."""
COMPARED_EVERY = 4
"""Every Nth camera frame is compared."""
LAYERS = ("motion", "sources", "acknowledgements", "total")
SCORES = ("eye_r", "gaze_r", "mouth_open_r", "mouth_width_r", "blink_recall", "blink_false", "lips_lmd", "eyes_lmd")


@dataclass(frozen=True)
class Message:
    """A message of the browser."""

    at_s: float
    channel: int
    data: bytes


def clip_pictures(clip: Path, size: int) -> list[Picture]:
    """The pictures of the first MAX_S of a video at FPS, cropped to the face."""
    footage = open_footage(clip, EncodeOptions(size=size, duration_s=MAX_S), lambda name, share: None)
    pictures, fps = list(footage.pictures()), float(footage.info.fps)
    count = int(len(pictures) * FPS / fps)
    return [pictures[min(len(pictures) - 1, round(n * fps / FPS))] for n in range(count)]


def browser_messages(path: str, pictures: Sequence[Picture]) -> tuple[str, list[Message]]:
    """The browser's version, and what it sends of these pictures. Raises CodecError."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "none").mkdir()
        write_site(folder, files_of(folder / "none"))
        with (folder / "camera.rgb").open("wb") as file:
            for picture in pictures:
                file.write(picture.tobytes())
        report = drive("simulated.mjs", {"browser": path, "folder": name, "fps": FPS})
    messages = [
        Message(one["atMs"] / 1000, one["channel"], base64.b64decode(one["data"])) for one in report["messages"]
    ]
    return report["version"], messages


@dataclass
class Replay:
    """An end whose video is that of the browser; it films nothing itself."""

    link: Link
    messages: Sequence[Message]

    async def film(self) -> None:
        """Send each message at its time, with what the receiving half has to say, as links do."""
        loop = asyncio.get_running_loop()
        for message in self.messages:
            await asyncio.sleep(max(0.0, START_S + message.at_s - loop.time()))
            data = message.data
            if message.channel == MOTION_CHANNEL:
                newest = self.link.incoming.motion.acknowledged
                acknowledged = None if newest is None else newest & 0xFF
                data = replace(MotionMessage.from_bytes(data), acknowledged=acknowledged).to_bytes()
            self.link._channels.send(message.channel, data)
            if message.channel == MOTION_CHANNEL:
                self.link.outgoing.send_pending()


@dataclass
class Received:
    """What one end received, and what that took."""

    captured: list[tuple[float, int]]
    """(capture time, number of the picture)."""
    end: End
    shown: DeferredReconstruction
    counts: list[dict[str, int]]
    """Bytes sent so far by layer, once a second."""


def received(runtime: Runtime, camera: Camera, duration_s: float, messages: Sequence[Message] | None) -> Received:
    """A call in which the browser's messages are sent, or (None) a Python client films. The receiver films, too."""
    deferred, sending = DeferredReconstruction(runtime), PrecomputedDetection(runtime, camera)
    there = SimulatedPath(delay_s=DELAY_S)
    counts: list[dict[str, int]] = []

    async def work() -> Received:
        connections = connection_pair(there, SimulatedPath(delay_s=DELAY_S, seed=2))
        executor = ImmediateExecutor()
        a: Replay | End
        if messages is None:
            a = make_end(connections[0], sending, executor, camera, deferred)
        else:
            a = replaying(connections[0], sending, deferred, messages)
        b = make_end(connections[1], sending, executor, camera, deferred)
        tasks = [asyncio.create_task(task) for task in (a.film(), b.film(), b.watch())]
        for connection in connections:
            await connection.start()
        for _ in range(int(duration_s)):
            await asyncio.sleep(1)
            counts.append({**by_layer(connections[0].sctp), "packets": there.packets, "total": there.bytes})
        for end, connection in zip((a, b), connections, strict=True):
            await end.link.close()
            await connection.close()
        for task in tasks:
            if not task.cancel():
                task.result()  # of what failed
        captured = [(START_S + n / FPS, n) for n in range(int(duration_s * FPS))]
        return Received(a.captured if isinstance(a, End) else captured, b, deferred, counts)

    return simulate(work())


def replaying(
    connection: SimulatedConnection, runtime: Runtime, deferred: Runtime, messages: Sequence[Message]
) -> Replay:
    """The end that sends the browser's messages. Its clock is theirs."""
    sender = VideoSender(runtime, ImmediateExecutor())
    sender._epoch_s = START_S
    return Replay(Link(connection, sender, deferred, ImmediateExecutor()), messages)  # type: ignore[arg-type]


def figures(camera: Camera, call: Received, last: int) -> dict[str, Any]:
    """Rates in kbps from SETTLED_S on; PSNR and expression from COMPARED_FROM_S on, delay taken out. `last`: number of
    the last picture of the clip."""
    first, end = call.counts[round(SETTLED_S) - 1], call.counts[-1]
    lasted_s = len(call.counts) - SETTLED_S
    rates = {layer: round((end[layer] - first[layer]) * 8 / 1000 / lasted_s, 2) for layer in LAYERS}
    delay_s = float(np.median([shown.delay_s for at, shown in call.end.shown if at > START_S + SETTLED_S]))
    late_s, times = delay_s + 0.5 / FPS, [at for at, _ in call.end.shown]
    originals, decoded = [], []
    for at, number in call.captured[::COMPARED_EVERY]:
        if at < START_S + COMPARED_FROM_S or number > last or at + late_s > times[-1]:
            continue
        shown = call.end.shown[max(0, int(np.searchsorted(times, at + late_s + 0.001)) - 1)][1]
        originals.append(camera.frame(number))
        decoded.append(call.shown.rebuild(shown.picture))
    mesh = FaceMesh()
    scores = asdict(expression.measure([mesh(one) for one in originals], [mesh(one) for one in decoded]))
    return {
        "kbps": rates,
        "packets_per_s": round((end["packets"] - first["packets"]) / lasted_s, 1),
        "delay_ms": round(1000 * delay_s),
        "psnr_db": round(float(np.mean([psnr(a, b) for a, b in zip(originals, decoded, strict=True)])), 2),
        **{name: None if scores[name] is None else round(scores[name], 2) for name in SCORES},
    }


def measure(clip: Path, path: str) -> tuple[str, dict[str, Any]]:
    """The browser's version, and the figures of both senders."""
    runtime = load_runtime(threads=1)
    pictures = clip_pictures(clip, runtime.info.size)
    camera, last = Camera(pictures, runtime), len(pictures) - 1
    duration_s = len(pictures) / FPS
    version, messages = browser_messages(path, pictures)
    calls = {"iwcodec call": None, "browser": messages}
    return version, {
        name: figures(camera, received(runtime, camera, duration_s, sent), last) for name, sent in calls.items()
    }


def command(
    clips: Annotated[list[Path], typer.Argument(help="Videos of a speaker, of ten seconds or more.")],
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.")] = None,
    as_json: JSON = False,
) -> None:
    """What a browser's picture costs and shows, beside that of `iwcodec call`, on a simulated clock."""
    path, result = browser(built=False), {**surroundings(), "clips": {}}
    with progress_bar(as_json) as progress:
        for n, clip in enumerate(clips):
            progress(clip.stem, n / len(clips))
            result["browser"], result["clips"][clip.stem] = measure(clip, path)
    publish(result, out, as_json, table(result))


def table(result: dict[str, Any]) -> Table:
    """One column per clip and sender."""
    columns = [(clip, sender, of) for clip, senders in result["clips"].items() for sender, of in senders.items()]
    rows = [[f"{layer}, kbps", *(str(of["kbps"][layer]) for _, _, of in columns)] for layer in LAYERS]
    rows += [[name, *(str(of[name]) for _, _, of in columns)] for name in ("psnr_db", "delay_ms", *SCORES)]
    return text_table(result["browser"], ["", *(f"{clip}: {sender}" for clip, sender, _ in columns)], rows)
