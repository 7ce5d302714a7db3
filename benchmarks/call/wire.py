"""`iwcodec bench wire`: what a call costs on the wire, how late it is, and what loss does to it.

Three instruments, each for what it can measure:

- simulated: the real links, SCTP and source coding over simulated paths on a simulated clock (simulation.py). Exact and
  repeatable; for bytes, loss, outages and narrow links. Nothing takes time but the paths.
- loopback: two real WebRTC connections (ICE, DTLS, UDP) in this process, in real time. For the delay from the camera's
  frame to the picture shown, the network's time included, and to check the simulation's bytes against the datagrams.
- shaped: the same with every datagram passed through a simulated path. For the first picture after joining, ICE and
  DTLS handshakes included: in real time, and on the simulated clock, where nothing takes time but the paths.
- namespaces: a server and two clients as they are used, each in a network namespace (namespaces.py), in real time. For
  the first picture, signalling included, and all that goes over the wire, sound included. Needs root.
"""

import asyncio
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import numpy as np
import typer
from aiortc import RTCPeerConnection
from aiortc.rtcsctptransport import SCTP_COMMON_HEADER_LENGTH
from OpenSSL import SSL
from rich.table import Table

from iwcodec.benchmarks.call import namespaces, simulation
from iwcodec.benchmarks.call.endurance import with_sound
from iwcodec.benchmarks.call.simulation import AtOnce, SimulatedConnection, connection_pair, simulate
from iwcodec.benchmarks.experiment import save, surroundings
from iwcodec.client.transport.sctp import IP_UDP, BundlingSctpTransport, make_connection
from iwcodec.client.video.link import Link, LinkState, Shown
from iwcodec.client.video.video_sender import VideoSender
from iwcodec.codec.cli import console, progress_bar
from iwcodec.codec.file.clip import EncodeOptions, frame_input
from iwcodec.codec.fit.keypoint_fit import Fitted, KeypointFit, Rebuild
from iwcodec.codec.media.quality import psnr
from iwcodec.codec.media.types import Picture
from iwcodec.codec.media.video import sample_clip
from iwcodec.models.runtime.load import load_runtime
from iwcodec.models.runtime.types import Keypoints, Runtime, Source

FPS = 25
MAX_FRAMES = 250
"""Of a clip; it is played forwards and backwards, so that there is no cut."""
SETTLED_S = 5.0
"""The steady state is measured from here on."""
JUDGED = 80
"""Pictures of a scenario that are really rebuilt and compared."""


class Camera:
    """A clip's frames for ever, and what the detector says of them, found once."""

    def __init__(self, pictures: Sequence[Picture], runtime: Runtime) -> None:
        self._pictures = [*pictures, *pictures[-2:0:-1]]
        self.keypoints = {id(picture): runtime.detect(picture) for picture in pictures}

    def frame(self, number: int) -> Picture:
        return self._pictures[number % len(self._pictures)]


class Filming:
    """A runtime that knows already what it would find in the camera's frames."""

    def __init__(self, runtime: Runtime, camera: Camera) -> None:
        self.info, self.device = runtime.info, runtime.device
        self._runtime = runtime
        self._camera = camera

    def detect(self, picture: Picture) -> Keypoints:
        known = self._camera.keypoints.get(id(picture))
        return self._runtime.detect(picture) if known is None else known

    def prepare(self, picture: Picture) -> Source:
        return self._runtime.prepare(picture)

    def reconstruct(self, keypoints: Keypoints, sources: Sequence[Source], suppression: float = 0.0) -> Picture:
        return self._runtime.reconstruct(keypoints, sources, suppression)


class Deferred:
    """A runtime that only notes what is to be rebuilt: a picture that says where the note is. What a scenario shows is
    then rebuilt in part, after it."""

    def __init__(self, runtime: Runtime) -> None:
        self.info, self.device = runtime.info, runtime.device
        self.detect, self.prepare = runtime.detect, runtime.prepare
        self._runtime = runtime
        self._notes: list[tuple[Keypoints, list[Source], float]] = []

    def reconstruct(self, keypoints: Keypoints, sources: Sequence[Source], suppression: float = 0.0) -> Picture:
        self._notes.append((keypoints, list(sources), suppression))
        return np.array([len(self._notes) - 1], np.int64).view(np.uint8)

    def rebuild(self, noted: Picture) -> Picture:
        """What was noted; a still of the scene is no note."""
        if noted.ndim == 3:
            return noted
        return self._runtime.reconstruct(*self._notes[int(noted.view(np.int64)[0])])


class PlannedFeed(VideoSender):
    """Knows when its pictures became sources. With a plan it does not judge: the frames of those times become
    sources, whatever the link makes of it, so that calls over different paths compare at equal sources."""

    def __init__(
        self,
        runtime: Runtime,
        executor: Executor,
        plan: Sequence[float] | None = None,
        fit: KeypointFit | None = None,
    ) -> None:
        super().__init__(runtime, executor, fit=fit)
        self.added_at: list[float] = []
        """Capture times."""
        self._plan = plan

    async def _judge(self, picture: Picture, keypoints: Keypoints, sources: list[Source], captured_s: float) -> None:
        if self._plan is None:
            await super()._judge(picture, keypoints, sources, captured_s)
        elif any(abs(captured_s - at) < 0.5 / FPS for at in self._plan):
            await self._add_source(picture, captured_s)

    async def _add_source(self, picture: Picture, captured_s: float) -> None:
        self.added_at.append(captured_s)
        await super()._add_source(picture, captured_s)


class Unfitted(KeypointFit):
    def frame(
        self, picture: Picture, detected: Keypoints, sources: Sequence[Source], rebuild: Rebuild | None = None
    ) -> Fitted:
        return self.skip(detected)


class IdleFeed(PlannedFeed):
    """Next to no work: the first picture is its only source, and keypoints are sent as they are found."""

    def __init__(self, runtime: Runtime, executor: Executor) -> None:
        super().__init__(runtime, executor, fit=Unfitted())

    async def _judge(self, picture: Picture, keypoints: Keypoints, sources: list[Source], captured_s: float) -> None:
        if not self.added_at:
            await self._add_source(picture, captured_s)


@dataclass
class End:
    """One participant: a camera, a feed, a link, and what was seen."""

    feed: PlannedFeed
    link: Link
    camera: Camera
    captured: list[tuple[float, int]] = field(default_factory=list)
    """When each frame was taken, and its number in the camera."""
    shown: list[tuple[float, Shown]] = field(default_factory=list)

    async def film(self) -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        for number in range(1 << 30):
            await asyncio.sleep(max(0.0, start + number / FPS - loop.time()))
            now = loop.time()
            self.captured.append((now, number))
            await self.feed.push(self.camera.frame(number), now)

    async def watch(self) -> None:
        loop = asyncio.get_running_loop()
        async for shown in self.link.frames():
            self.shown.append((loop.time(), shown))


def make_end(
    connection: Any,
    runtime: Runtime,
    executor: Executor,
    camera: Camera,
    shows: Runtime | None = None,
    plan: Sequence[float] | None = None,
) -> End:
    """`shows`: the runtime of what is received, where it is another one."""
    feed = PlannedFeed(runtime, executor, plan)
    return End(feed, Link(connection, feed, shows or runtime, executor), camera)


def run_simulated(
    runtime: Runtime,
    camera: Camera,
    there: simulation.Path,
    back: simulation.Path,
    duration_s: float,
    look: Callable[[End, End, list[SimulatedConnection]], None] | None = None,
    plan: Sequence[float] | None = None,
) -> tuple[End, End, Deferred, list[SimulatedConnection]]:
    """A call of two filming ends; `look` is called every second."""
    deferred, filming = Deferred(runtime), Filming(runtime, camera)

    async def work() -> tuple[End, End, Deferred, list[SimulatedConnection]]:
        connections = connection_pair(there, back)
        a, b = (make_end(connection, filming, AtOnce(), camera, deferred, plan) for connection in connections)
        tasks = [asyncio.create_task(task) for end in (a, b) for task in (end.film(), end.watch())]
        for connection in connections:
            await connection.start()
        for _ in range(round(duration_s)):
            await asyncio.sleep(1)
            if look is not None:
                look(a, b, connections)
        for end, connection in zip((a, b), connections, strict=True):
            await end.link.close()
            await connection.close()
        for task in tasks:
            task.cancel()
        return a, b, deferred, connections

    return simulate(work())


def steady(runtime: Runtime, camera: Camera, duration_s: float) -> dict[str, Any]:
    """Both sides film over a wide link: kbps by layer of one direction, from all packets between SETTLED_S and the end,
    and over the whole call, its beginning included."""
    counts: list[dict[str, int]] = []

    def look(a: End, b: End, connections: list[SimulatedConnection]) -> None:
        counts.append(dict(by_layer(connections[0].sctp), packets=there.packets, total=there.bytes))

    there = simulation.Path(delay_s=0.02)
    a, b, _, _ = run_simulated(runtime, camera, there, simulation.Path(delay_s=0.02, seed=2), duration_s, look)
    first, last = counts[round(SETTLED_S) - 1], counts[-1]
    lasted_s = duration_s - SETTLED_S
    kbps = {layer: (last[layer] - first.get(layer, 0)) * 8 / 1000 / lasted_s for layer in last if layer != "packets"}
    return {
        "kbps": kbps,
        "kbps_with_the_beginning": last["total"] * 8 / 1000 / duration_s,
        "packets_per_s": (last["packets"] - first["packets"]) / lasted_s,
        "frames_shown_per_s": len([1 for at, _ in b.shown if at > 1000 + SETTLED_S]) / lasted_s,
        "sources": a.link.sequence.next if a.link.sequence else 0,
    }


def by_layer(transport: Any) -> dict[str, int]:
    """Bytes that a transport has sent. Packets of acknowledgements alone count among them whole."""
    sent, around = transport.sent, transport._around
    packets = sent["packets"] // around
    return {
        "motion": sent[1],
        "sources": sent[2],
        "control": sent[3],
        "acknowledgements": sent["acknowledgements"],
        "sctp": sent["sctp"] + packets * SCTP_COMMON_HEADER_LENGTH,
        "dtls": packets * (around - SCTP_COMMON_HEADER_LENGTH - IP_UDP),
        "udp_ip": packets * IP_UDP,
    }


def scenario(
    runtime: Runtime,
    camera: Camera,
    duration_s: float,
    path: dict[str, Any],
    outage: tuple[float, float] | None = None,
    seed: int = 0,
    plan: Sequence[float] | None = None,
) -> dict[str, Any]:
    """The same path both ways, with chances of its own for every seed. Quality is that of what is on the display when
    each frame of the camera is due. `plan`: capture times of the sources, as another call chose them."""
    start = 1000.0
    outages = () if outage is None else ((start + outage[0], start + outage[1]),)
    paths = [simulation.Path(**path, outages=outages, seed=2 * seed + way) for way in (1, 2)]
    a, b, deferred, _ = run_simulated(runtime, camera, paths[0], paths[1], duration_s, plan=plan)
    settled = start + SETTLED_S
    delays = [shown.delay_s for at, shown in b.shown if at > settled] or [float("nan")]
    usual_s = float(np.median(delays))
    out: dict[str, Any] = {
        "first_picture_s": b.shown[0][0] - start,
        "psnr_db": quality(a, b, deferred, usual_s, settled),
        "delay_ms": {name: 1000 * float(np.percentile(delays, share)) for name, share in (("p50", 50), ("p95", 95))},
        "frames_shown_per_s": len([1 for at, _ in b.shown if at > settled]) / (duration_s - SETTLED_S),
        "longest_hold_s": max(q - p for p, q in pairwise([at for at, _ in b.shown if at > settled])),
        "kbps": paths[0].bytes * 8 / 1000 / duration_s,
        "sources_at_s": a.feed.added_at,
    }
    if outage is not None:
        back = start + outage[1]
        again = (at for at, s in b.shown if at > back and s.due_s - s.delay_s > back - 0.5)
        out["back_after_s"] = next(again, float("inf")) - back
    return out


def quality(a: End, b: End, deferred: Deferred, delay_s: float, from_s: float) -> float:
    """Mean PSNR between JUDGED camera frames of `a` and what `b` shows `delay_s` and half a frame after each: in the
    middle of its time on the display, where a millisecond of jitter does not decide which of two frames is seen."""
    times = [at for at, _ in b.shown]
    late_s = delay_s + 0.5 / FPS
    due = [(taken + late_s, number) for taken, number in a.captured if from_s <= taken + late_s <= a.captured[-1][0]]
    values = []
    for at, number in due[:: max(1, len(due) // JUDGED)]:
        on_display = b.shown[max(0, int(np.searchsorted(times, at + 0.001)) - 1)][1]
        values.append(psnr(deferred.rebuild(on_display.picture), a.camera.frame(number)))
    return float(np.mean(values))


async def connect(a: RTCPeerConnection, b: RTCPeerConnection, prepare: Callable[[], None], signalling_s: float) -> None:
    """Offer and answer, each taking `signalling_s`; `prepare` is called when both have sockets."""
    await a.setLocalDescription(await a.createOffer())
    await asyncio.sleep(signalling_s)
    await b.setRemoteDescription(a.localDescription)
    await b.setLocalDescription(await b.createAnswer())
    prepare()
    await asyncio.sleep(signalling_s)
    await a.setRemoteDescription(b.localDescription)


async def loopback(runtime: Runtime, camera: Camera, duration_s: float) -> dict[str, Any]:
    """One side films, the other shows, in real time. Delay: from the frame being handed to the feed until its picture
    is on the display."""
    connections = [make_connection([]) for _ in range(2)]
    datagrams = [0, 0]
    started = time.monotonic()
    with ThreadPoolExecutor(4) as executor:
        a, b = (make_end(connection, runtime, executor, camera) for connection in connections)
        tasks = [asyncio.create_task(task) for task in (a.film(), b.watch())]
        await connect(connections[0], connections[1], lambda: None, 0.0)
        while b.link.state != LinkState.LIVE:
            await asyncio.sleep(0.01)
        transports: list[Any] = [connection.sctp for connection in connections]
        for n, transport in enumerate(transports):
            count_datagrams(transport, datagrams, n)
        before = [sum(transport.sent.values()) for transport in transports]
        taken: dict[int, int] = {}
        for _ in range(round(duration_s)):
            await asyncio.sleep(1)
            taken.update(a.link._motion_out.captured)
        counted = [sum(t.sent.values()) - start for t, start in zip(transports, before, strict=True)]
        for end in (a, b):
            await end.link.close()
        for connection in connections:
            await connection.close()
        for task in tasks:
            task.cancel()
    assert a.feed._epoch_s is not None
    settled = [(at, shown) for at, shown in b.shown if shown.number in taken and at > started + SETTLED_S]
    delays = [1000 * (at - a.feed._epoch_s) - taken[shown.number] for at, shown in settled]
    return {
        "frames": len(delays),
        "delay_ms": {name: float(np.percentile(delays, s)) for name, s in (("p50", 50), ("p95", 95), ("p99", 99))},
        "estimated_delay_ms_p50": 1000 * float(np.median([shown.delay_s for _, shown in settled])),
        "frames_shown_per_s": len(delays) / (settled[-1][0] - settled[0][0]),
        "reconstruction_ms_p50": 1000 * float(np.median(b.link._leads)),
        "bytes_counted_to_bytes_in_datagrams": [c / d for c, d in zip(counted, datagrams, strict=True)],
    }


def count_datagrams(transport: BundlingSctpTransport, into: list[int], n: int) -> None:
    """Add the size of every datagram of a connection, UDP and IP included, to `into[n]`."""
    ice = transport.transport.transport
    send = ice._send

    async def counting(data: bytes) -> None:
        into[n] += len(data) + IP_UDP
        await send(data)

    ice._send = counting


class ShapedSocket:
    """A datagram socket whose packets take a simulated path first."""

    def __init__(self, socket: Any, path: simulation.Path) -> None:
        self._socket = socket
        self._path = path

    def sendto(self, data: bytes, address: Any) -> None:
        self._path.send(
            len(data) + IP_UDP, lambda: None if self._socket.is_closing() else self._socket.sendto(data, address)
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


async def join_shaped(
    runtime: Runtime,
    camera: Camera,
    kbps: float,
    delay_s: float,
    executor: Executor,
    make_feed: Callable[[Runtime, Executor], PlannedFeed] = PlannedFeed,
) -> dict[str, float]:
    """Seconds from making the newcomer's connection to the channels and to the first picture, at the newcomer; the
    other has been filming. Signalling takes the same way."""
    paths = [simulation.Path(kbps=kbps, delay_s=delay_s, seed=seed) for seed in (1, 2)]
    now = asyncio.get_running_loop().time
    there = make_feed(runtime, executor)
    filming = End(there, None, camera)  # type: ignore[arg-type]
    task = asyncio.create_task(filming.film())
    await asyncio.sleep(2.0)
    started = now()
    connections = [make_connection([]) for _ in range(2)]
    feed = make_feed(runtime, executor)
    newcomer = End(feed, Link(connections[0], feed, runtime, executor), camera)
    link = Link(connections[1], there, runtime, executor)
    tasks = [task, asyncio.create_task(newcomer.film()), asyncio.create_task(newcomer.watch())]

    def shape() -> None:
        for connection, path in zip(connections, paths, strict=True):
            assert connection.sctp is not None
            for protocol in connection.sctp.transport.transport._connection._protocols:
                shaped: Any = ShapedSocket(protocol.transport, path)
                protocol.transport = shaped

    await connect(connections[0], connections[1], shape, delay_s)
    while newcomer.link.state in (LinkState.CONNECTING, LinkState.RECONNECTING):
        await asyncio.sleep(0.01)
    opened = now()
    while not newcomer.shown and now() - started < 30:
        await asyncio.sleep(0.01)
    shown = newcomer.shown[0][0] if newcomer.shown else float("nan")
    for each in (newcomer.link, link):
        await each.close()
    for connection in connections:
        await connection.close()
    for task in tasks:
        task.cancel()
    return {"channels_open_s": opened - started, "first_picture_s": shown - started}


async def join_in_real_time(runtime: Runtime, camera: Camera, kbps: float, delay_s: float) -> dict[str, float]:
    with ThreadPoolExecutor(4) as executor:
        return await join_shaped(runtime, camera, kbps, delay_s, executor)


def join_simulated(runtime: Runtime, camera: Camera, kbps: float, delay_s: float) -> dict[str, float]:
    """Likewise, but for what processors take: real datagrams, that arrive when the simulated clock says so. OpenSSL's
    clock is another one, and nothing gets lost: it repeats nothing."""
    with mock.patch.object(SSL.Connection, "DTLSv1_get_timeout", return_value=None):
        return simulate(join_shaped(Filming(runtime, camera), camera, kbps, delay_s, AtOnce(), IdleFeed))


def load_camera(clip: Path, runtime: Runtime) -> Camera:
    video = frame_input(clip, EncodeOptions(size=runtime.info.size), lambda name, share: None)
    pictures = []
    for picture in video.pictures():
        pictures.append(picture)
        if len(pictures) == MAX_FRAMES:
            break
    return Camera(pictures, runtime)


SCENARIOS: dict[str, dict[str, Any]] = {
    "no loss": {},
    "10 % loss": {"loss": 0.1},
    "30 % loss": {"loss": 0.3},
    "reordering and duplicates": {"reordered": 0.1, "duplicates": 0.1, "jitter_s": 0.03},
    "30 kbps, 100 ms": {"kbps": 30.0, "delay_s": 0.05},
    "12 kbps, 100 ms": {"kbps": 12.0, "delay_s": 0.05},
}
OUTAGE = (10.0, 15.0)
CHANCES = {"loss", "reordered", "duplicates", "jitter_s"}
"""What of a path is another one with another seed."""
AVERAGED = (
    "first_picture_s",
    "psnr_db",
    "psnr_db_at_equal_sources",
    "delay_ms",
    "frames_shown_per_s",
    "longest_hold_s",
    "kbps",
)


def measure(
    clip: Path,
    seconds: float,
    seeds: int,
    threads: int | None,
    only: Sequence[str] | None,
    tell: Callable[[str, float], None],
) -> dict[str, Any]:
    """Everything, for one clip. A path with chances is taken once for each seed, and once more at equal sources. The
    namespaces, which need root, only where they are asked for."""
    runtime = load_runtime(threads=threads)
    camera = load_camera(clip, runtime)
    out: dict[str, Any] = {"clip": clip.stem}
    parts: dict[str, Callable[[], Any]] = {
        "steady": lambda: steady(runtime, camera, max(seconds, 2 * SETTLED_S)),
        "loopback": lambda: asyncio.run(loopback(runtime, camera, seconds)),
        "shaped": lambda: asyncio.run(join_in_real_time(runtime, camera, 30.0, 0.05)),
        "shaped, simulated": lambda: join_simulated(runtime, camera, 30.0, 0.05),
    }
    for name, path in SCENARIOS.items():
        parts[name] = partial(seeded, runtime, camera, seconds, {"delay_s": 0.02, **path}, seeds, out)
    parts["5 s outage"] = lambda: scenario(runtime, camera, 25.0, {"delay_s": 0.02}, OUTAGE)
    if only and "namespaces" in only:
        parts["namespaces"] = lambda: in_namespaces(clip, seconds, tell)
    for n, (name, part) in enumerate(parts.items()):
        if not only or name in only:
            tell(f"{clip.stem}: {name}", n / len(parts))
            out[name] = part()
    return out


def in_namespaces(clip: Path, seconds: float, tell: Callable[[str, float], None]) -> dict[str, Any]:
    """With sound: the clip's, or a tone every second."""
    with tempfile.TemporaryDirectory() as folder:
        return namespaces.all_cases(with_sound(clip, Path(folder) / "film.mp4"), seconds, tell)


def seeded(
    runtime: Runtime, camera: Camera, seconds: float, path: dict[str, Any], seeds: int, before: dict[str, Any]
) -> dict[str, Any]:
    """A scenario over so many seeds: the figures of the first and, under "runs", what each of them says; of a path
    with chances also at the sources of the call without loss, where that is in `before`."""
    if not CHANCES & path.keys():
        return scenario(runtime, camera, seconds, path)
    plan = before.get("no loss", {}).get("sources_at_s")
    runs = []
    for seed in range(seeds):
        run = scenario(runtime, camera, seconds, path, seed=seed)
        if plan is not None:
            equal = scenario(runtime, camera, seconds, path, seed=seed, plan=plan)
            run["psnr_db_at_equal_sources"] = equal["psnr_db"]
        runs.append(run)
    return {**runs[0], "runs": [{name: run[name] for name in AVERAGED if name in run} for run in runs]}


def averages(calls: list[dict[str, Any]]) -> dict[str, Any]:
    """By scenario: mean and standard deviation over clips and seeds, and what it costs against the same clip without
    loss, in decibels: the mean of the differences, and that of their standard error over clips."""
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


def wire(
    clips: Annotated[list[Path] | None, typer.Argument(help="Videos of a speaker; the bundled one if none.")] = None,
    seconds: Annotated[int, typer.Option(help="Length of each measurement.", min=10, max=3600)] = 20,
    seeds: Annotated[int, typer.Option(help="Runs of each path with chances.", min=1)] = 1,
    threads: Annotated[int | None, typer.Option(help="Of the network.", min=1)] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="A part: steady, loopback, shaped, namespaces (root) or a scenario; may be repeated."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the JSON instead of a table.")] = False,
) -> None:
    """Bytes of a call on the wire by layer, its delay, and what loss, outages and narrow links do to it."""
    with progress_bar(as_json) as tell:
        calls = [measure(clip, seconds, seeds, threads, only, tell) for clip in clips or [sample_clip()]]
    result = {
        **surroundings(),
        "aiortc": version("aiortc"),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "calls": calls,
    }
    result["averages"] = averages(calls)
    if out is not None:
        save(result, out)
    if as_json:
        print(json.dumps(result, indent=1))
        return
    for call in calls:
        show(call)
    show_averages(result["averages"])


command = wire


def show(call: dict[str, Any]) -> None:
    if "steady" in call:
        table = Table(title=f"{call['clip']}: one way of a steady call at {FPS} frames/s", title_justify="left")
        table.add_column("layer")
        table.add_column("kbps", justify="right")
        for layer, kbps in call["steady"]["kbps"].items():
            table.add_row(layer.replace("_", ", "), f"{kbps:.2f}")
        console.print(table)
    rows = {name: result for name, result in call.items() if isinstance(result, dict) and "psnr_db" in result}
    if rows:
        table = Table(title=f"{call['clip']}: paths", title_justify="left")
        for heading in ("", "dB", "p50 ms", "p95 ms", "frames/s", "longest hold s", "first picture s", "back after s"):
            table.add_column(heading, justify="right" if heading else "left")
        for name, r in rows.items():
            back = f"{r['back_after_s']:.2f}" if "back_after_s" in r else ""
            table.add_row(
                name,
                f"{r['psnr_db']:.2f}",
                f"{r['delay_ms']['p50']:.0f}",
                f"{r['delay_ms']['p95']:.0f}",
                f"{r['frames_shown_per_s']:.1f}",
                f"{r['longest_hold_s']:.2f}",
                f"{r['first_picture_s']:.2f}",
                back,
            )
        console.print(table)
    for name in ("loopback", "shaped", "shaped, simulated", "namespaces"):
        if name in call:
            console.print(name, json.dumps(call[name]))


def show_averages(means: dict[str, Any]) -> None:
    table = Table(title="all clips and seeds, mean ± standard deviation", title_justify="left")
    for heading in ("", "dB", "dB to no loss", "at equal sources", "p50 ms", "p95 ms", "frames/s", "kbps"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, of in means.items():
        columns = ("psnr_db", "delay_ms_p50", "delay_ms_p95", "frames_shown_per_s", "kbps")
        db, *others = (f"{of[key]['mean']:.2f} ± {of[key]['sd']:.2f}" if key in of else "" for key in columns)
        costs = (of.get(f"{key}_to_no_loss") for key in ("psnr_db", "psnr_db_at_equal_sources"))
        table.add_row(name, db, *("" if cost is None else f"{cost['mean']:+.2f}" for cost in costs), *others)
    if means:
        console.print(table)
