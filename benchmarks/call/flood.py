"""`iwcodec bench flood`: a call of two headless clients while somebody abuses the server and a client.

Ada watches and speaks, Bob is seen and speaks: two cores carry that with frames to spare, so that what abuse costs
shows. The abuse: many half-written requests, bodies of 200 MB, and a third member of the room that sends Ada as much as
it can of one of KINDS. Everything runs on loopback, and for a bounded time. Measured are memory and processor time of
the server and of the clients, and the frames and packets of sound per second that the honest clients show and play of
each other, before and during each abuse.
"""

import asyncio
import json
import os
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import numpy as np
import psutil
import typer
from aiortc import RTCPeerConnection
from rich.table import Table

from iwcodec.benchmarks.call.endurance import JOIN_S, NAMES, Client, join, resources, wait
from iwcodec.benchmarks.call.film import close_up
from iwcodec.benchmarks.experiment import save, surroundings
from iwcodec.client.demo.server import local_server
from iwcodec.client.link.channels import Channels
from iwcodec.client.link.link_state import LinkState
from iwcodec.client.link.messages import (
    CONTROL_CHANNEL,
    MOTION_CHANNEL,
    PROTOCOL,
    SOURCE_CHANNEL,
    Hello,
    MotionMessage,
    tables_id,
)
from iwcodec.client.link.send import SourceSender
from iwcodec.client.room.peer import Peer
from iwcodec.client.room.protocol import Joined, RemoteCandidate, RemoteDescription
from iwcodec.client.room.signalling import Signalling
from iwcodec.client.transport.connection import make_connection
from iwcodec.client.video.source_sequence import SourceSequence
from iwcodec.codec.media.video import sample_clip
from iwcodec.codec.motion.encoder import MotionEncoder
from iwcodec.codec.terminal import console, progress_bar
from iwcodec.models.runtime.types import ModelInfo
from iwcodec.models.runtime.weights import DEFAULT_MODEL, read_info

SLOW: Final = 300
"""Connections with half a request."""
BODY_BYTES: Final = 200_000_000
MESSAGES_PER_S: Final = 80
WINDOW: Final = 16
"""Frames in a motion message, the most that there may be."""
UNITS: Final = 32
"""Source pictures in a sequence of the third member; then it begins another one."""
SOURCE_KBPS: Final = 40.0
"""Rate of its source pictures: those of one colour are small, and are many."""
KINDS: Final = ("valid", "garbage")
"""What the third member sends. Valid: windows of frames, each window one frame further, as of a video of MESSAGES_PER_S
frames/s, and source pictures without a pause. Garbage: random bytes, and messages of the first kind with random
errors, on all channels."""
ABUSERS: Final = (("127.0.0.2", 0), ("127.0.0.3", 0)) if sys.platform == "linux" else (None, None)
"""Where the abuse of the server comes from, because addresses have limits of their own; on other systems from the same
address as the clients, which limits them, too."""
ATTACKER_NICE: Final = 10
"""By how much the attacker gives way to those it attacks: it would have a machine of its own."""
PAUSE_S: Final = 1.0
"""Pause before a connection that the server closed is opened again."""
LABELS: Final = {
    "memory_mb": "memory, MB",
    "handles": "open files",
    "cores": "processor, cores",
    "frames_per_s": "frames/s shown of the other",
    "sound_packets_per_s": "packets of sound/s played of the other",
    "delay_ms": "delay, ms",
}
"""What the figures are called in tables."""
SAMPLE_S: Final = 0.5
SETTLE_S: Final = 10.0
"""Time between joining and the measurement: the clients fill their libraries meanwhile."""


class Flooder:
    """What the third member sends to one peer: a hello, then its kind of messages, MESSAGES_PER_S. Stands in for the
    link of a connection."""

    state = LinkState.LIVE

    def __init__(self, connection: RTCPeerConnection, info: ModelInfo, kind: str = "valid", seed: int = 1) -> None:
        self.sent = 0
        self._info, self._kind = info, kind
        self._random = np.random.default_rng(seed)
        self._task: asyncio.Task[None] | None = None
        encoder = MotionEncoder()
        for _ in range(WINDOW):
            encoder.push(np.full((info.keypoints, 3), 0.3, np.float32))
        self._packet = encoder.pack(0, WINDOW)
        self._sequence = SourceSequence(info.size)
        for number in range(UNITS):
            self._sequence.add(np.full((info.size, info.size, 3), 100 + number, np.uint8), number)
        self._sources = SourceSender()
        self.replace_connection(connection)

    def replace_connection(self, connection: RTCPeerConnection) -> None:
        self._channels = Channels(connection, Counter())
        self._channels.listen(lambda *_: None, self._opened)

    def _opened(self) -> None:
        hello = Hello(PROTOCOL, self._info.digest, tables_id(), secrets.randbits(32), None, 0)
        self._channels.send_control(hello)
        if self._task is None:
            self._task = asyncio.create_task(self._flood())

    async def _flood(self) -> None:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        while True:
            for channel, data in self._messages():
                if self._kind == "garbage":
                    channel, data = self._damaged(channel, data)
                if not self._channels.queued_bytes(channel):
                    self._channels.send(channel, data)
            self.sent += 1
            await asyncio.sleep(max(0.0, began_s + self.sent / MESSAGES_PER_S - loop.time()))

    def _messages(self) -> Iterator[tuple[int, bytes]]:
        """The next window of frames, and the next part of a source picture, each with its channel."""
        stamps = tuple(1000 + 1000 * n // MESSAGES_PER_S for n in range(self.sent, self.sent + WINDOW))
        packet = replace(self._packet, first=self.sent)
        yield MOTION_CHANNEL, MotionMessage(self.sent & 0xFF, stamps, 0, None, packet).to_bytes()
        if not self._sources.backlog():
            self._sequence.number = secrets.randbits(32)
            self._sources.start(self._sequence, first=True)
        self._sources.fill(self.sent / MESSAGES_PER_S, SOURCE_KBPS)
        chunk = self._sources.chunk()
        if chunk is not None:
            yield SOURCE_CHANNEL, chunk.to_bytes()

    def _damaged(self, channel: int, data: bytes) -> tuple[int, bytes]:
        """Random bytes on a random channel, or the message with some bits changed."""
        if self._random.random() < 0.5:
            return int(self._random.choice([MOTION_CHANNEL, SOURCE_CHANNEL, CONTROL_CHANNEL])), self._random.bytes(200)
        changed = bytearray(data)
        for at in self._random.integers(0, len(changed), 2):
            changed[at] ^= 1 << int(self._random.integers(8))
        return channel, bytes(changed)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()


class _Media:
    """The flooder of a peer connection, without sound."""

    def __init__(self, kind: str) -> None:
        self.flooder: Flooder | None = None
        self._kind = kind

    def attach(self, connection: RTCPeerConnection, link: Any) -> Any:
        if link is None:
            link = self.flooder = Flooder(connection, read_info(DEFAULT_MODEL), self._kind)
        else:
            link.replace_connection(connection)
        return link

    def accept(self, connection: RTCPeerConnection) -> None:
        pass


async def flood_member(room_url: str, victim: str, kind: str, counts: Counter[str]) -> None:
    """Join the room and flood the member of that name until cancelled."""
    signalling = Signalling(room_url, "Eve")
    media, peers, tasks = _Media(kind), dict[str, Peer](), list[asyncio.Task[None]]()
    try:
        async for event in signalling.events():
            if isinstance(event, Joined):
                for id, name in event.peers.items():
                    if name == victim and id not in peers:
                        peers[id] = Peer(
                            id,
                            name,
                            event.id < id,
                            True,
                            signalling,
                            lambda: make_connection([]),
                            media,
                        )
                        tasks.append(asyncio.create_task(peers[id].run()))
            elif isinstance(event, RemoteDescription | RemoteCandidate) and event.sender in peers:
                peers[event.sender].receive(event)
    finally:
        counts["evil messages"] = 0 if media.flooder is None else media.flooder.sent
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for peer in peers.values():
            await peer.close()
        await signalling.leave()


async def hold_slowly(host: str, port: int, counts: Counter[str]) -> None:
    """Keep a connection with half a request open, again and again, until cancelled."""
    while True:
        began, writer = time.monotonic(), None
        with suppress(OSError):
            reader, writer = await asyncio.open_connection(host, port, local_addr=ABUSERS[0])
            counts["slow connections"] += 1
            writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
            await reader.read()
        if writer is not None:
            writer.close()
        counts["longest slow connection, s"] = max(
            counts["longest slow connection, s"], round(time.monotonic() - began)
        )
        await asyncio.sleep(PAUSE_S)


async def post_body(host: str, port: int, size: int, counts: Counter[str]) -> None:
    """Post a body of `size` bytes until the server ends that; count the bytes that it took."""
    reader, writer = await asyncio.open_connection(host, port, local_addr=ABUSERS[1])
    try:
        head = (
            f"POST /api/rooms HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {size}"
        )
        writer.write(f"{head}\r\n\r\n".encode())
        for _ in range(0, size, 1 << 16):
            writer.write(bytes(1 << 16))
            await asyncio.wait_for(writer.drain(), 10)
            if reader.at_eof():
                break
            counts["body bytes"] += 1 << 16
    except (OSError, TimeoutError):
        pass
    finally:
        writer.close()


async def attack(address: str, room: str, kind: str, seconds: float) -> Counter[str]:
    """Everything at once, for `seconds`. Returns what was sent."""
    counts: Counter[str] = Counter()
    parts = urlsplit(address)
    host, port = parts.hostname or "", parts.port or 80
    works = [hold_slowly(host, port, counts) for _ in range(SLOW)]
    works += [post_body(host, port, BODY_BYTES, counts), flood_member(f"{address}/r/{room}", NAMES[0], kind, counts)]
    tasks = [asyncio.create_task(work) for work in works]
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return counts


def measure(clip: Path, seconds: float, progress: Callable[[str, float], None]) -> dict[str, Any]:
    """Measure for `seconds` without abuse, and as long with each kind. Raises CodecError if a client ends early."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        film = close_up(clip, folder / "film.mp4", read_info(DEFAULT_MODEL).size)
        address = stack.enter_context(local_server())
        server = psutil.Process(psutil.Process().children()[0].pid)
        room = f"{address}/r/flood"
        clients = [join(room, NAMES[0], film, stack, "--no-video"), join(room, NAMES[1], film, stack)]
        wait(clients, JOIN_S, lambda: all(client.reports for client in clients), lambda s: progress("joining", s))
        wait(clients, SETTLE_S, None, lambda share: progress("settling", share))
        if hasattr(os, "nice"):
            os.nice(ATTACKER_NICE)
        samples: list[dict[str, float]] = []
        done: list[bool] = []
        sampling = Thread(target=sample, args=(server, samples, done), daemon=True)
        sampling.start()
        times = [time.monotonic()]
        wait(clients, seconds, None, lambda share: progress("undisturbed", share))
        times.append(time.monotonic())
        attacks = {}
        for kind in KINDS:
            progress(f"under attack: {kind}", 0.0)
            attacks[kind] = dict(asyncio.run(attack(address, "flood", kind, seconds)))
            times.append(time.monotonic())
        done.append(True)
        sampling.join()
        wait(clients, SAMPLE_S, None, lambda _: None)  # raises if a client has not survived
        parts = zip(("before", *KINDS), pairwise(times), strict=True)
        return {
            "clip": clip.stem,
            "seconds": seconds,
            "attacks": attacks,
            "parts": {name: figures(samples, clients, *between) for name, between in parts},
        }


def sample(process: psutil.Process, samples: list[dict[str, float]], done: list[bool]) -> None:
    """Append the resources of a process every SAMPLE_S until `done` holds something."""
    while not done:
        samples.append({"at_s": time.monotonic(), **resources(process)})
        time.sleep(SAMPLE_S)


def figures(
    samples: Sequence[dict[str, float]], clients: Sequence[Client], start_s: float, end_s: float
) -> dict[str, Any]:
    """Summary of the server and of each client between two times."""
    within = [one for one in samples if start_s <= one["at_s"] < end_s and "memory_mb" in one]
    result: dict[str, Any] = {
        "server": {
            "memory_mb": round(max(one["memory_mb"] for one in within), 1),
            "handles": max(one["handles"] for one in within),
            "cores": round((within[-1]["cpu_s"] - within[0]["cpu_s"]) / (within[-1]["at_s"] - within[0]["at_s"]), 2),
        }
    }
    for name, client in zip(NAMES, clients, strict=True):
        reports = [report for report in client.reports if start_s + 5 <= report["at_s"] < end_s + 1]
        first, last = reports[0], reports[-1]
        spent_s = max(1e-3, last["at_s"] - first["at_s"])
        result[name] = {
            "frames_per_s": round(float(np.mean([report["frames_per_s"] for report in reports])), 1),
            "sound_packets_per_s": round((last["sound_packets"] - first["sound_packets"]) / spent_s, 1),
            "delay_ms": round(float(np.mean([report["delay_ms"] for report in reports]))),
            "memory_mb": round(max(report["memory_mb"] for report in reports), 1),
            "cores": round((last["cpu_s"] - first["cpu_s"]) / spent_s, 2),
        }
        if name == NAMES[1]:  # sees nobody
            del result[name]["frames_per_s"], result[name]["delay_ms"]
    return result


def command(
    clip: Annotated[Path | None, typer.Argument(help="A video of a speaker; default: the bundled clip.")] = None,
    seconds: Annotated[float, typer.Option(help="Length of each of the three parts.", min=15, max=300)] = 40.0,
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the JSON instead of a table.")] = False,
) -> None:
    """A call under abuse, on this machine: 300 slow connections, a body of 200 MB, 80 evil messages a second, which are
    valid first, then garbage."""
    with progress_bar(as_json) as progress:
        result = {**surroundings(), **measure(clip or sample_clip(), seconds, progress)}
    if out is not None:
        save(result, out)
    if as_json:
        print(json.dumps(result, indent=1))
        return
    console.print(table(result))


def table(result: dict[str, Any]) -> Table:
    """Before and during each kind of abuse, one row per figure."""
    made = Table(title="A call before and under attack", title_justify="left")
    for heading in ("", *result["parts"]):
        made.add_column(heading, justify="left" if not heading else "right")
    for row in rows(result):
        made.add_row(*row)
    return made


def rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """(figure, its value in each part) of everything that was measured, and what the attacks were."""
    parts, attacks = result["parts"], result["attacks"]
    found = [
        (f"{who}: {LABELS[key]}", *(str(part[who][key]) for part in parts.values()))
        for who, values in parts["before"].items()
        for key in values
    ]
    names = dict.fromkeys(name for counts in attacks.values() for name in counts)
    return found + [(f"attack: {name}", "", *(str(attacks[kind].get(name, 0)) for kind in attacks)) for name in names]
