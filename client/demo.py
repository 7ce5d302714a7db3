"""`iwcodec demo-call`: a server and two clients on this machine, over real WebRTC, and what each side saw and heard.

The second client plays the clip from its middle. Where the clip has no sound, a short tone every second stands in: so
the delay of the sound, and how far it is from the picture's, can be measured.
"""

import asyncio
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from rich.table import Table

from iwcodec import __version__
from iwcodec.client.audio.jitter_buffer import Speaker
from iwcodec.client.audio.track import Microphone
from iwcodec.client.room.call import Call, Participant
from iwcodec.client.room.signalling import Signalling
from iwcodec.client.session import put_together
from iwcodec.client.video.capture import BLOCK, Clip, ClipSound, LiveCrop, Pictures, Taken
from iwcodec.client.video.link import LinkStats, Shown
from iwcodec.codec.cli import progress_bar
from iwcodec.codec.errors import CodecError
from iwcodec.codec.media.types import AUDIO_RATE, Picture, Samples
from iwcodec.codec.media.video import sample_clip
from iwcodec.codec.media.writer import VideoWriter
from iwcodec.models.runtime.load import load_runtime
from iwcodec.models.runtime.types import Runtime

NAMES: Final = ("Ada", "Bob")
FPS: Final = Fraction(25)
ROWS: Final = 6
LABEL: Final = 28
SERVER_S: Final = 30.0
JOIN_S: Final = 30.0
"""Longest wait for the first pictures."""
BEEP_S: Final = 0.12
EVERY_S: Final = 1.0
LISTEN_S: Final = 0.9
"""After each tone."""
LOUD: Final = 1000.0
"""Root mean square over 5 ms at which the tone has begun."""
SHOWN: Final = {
    "first_picture_s": "first picture after joining, s",
    "frames_per_s": "frames shown a second",
    "picture_delay_p50_ms": "picture, glass to glass, median ms",
    "picture_delay_p95_ms": "picture, glass to glass, p95 ms",
    "sound_delay_p50_ms": "sound, microphone to ear, median ms",
    "tones_heard": "tones heard",
    "sources": "pictures in the library",
    "all_sent_kbps": "sent on the wire, all, kbps",
}
"""Rows of the table."""
PACKET_OVERHEAD: Final = 28
"""Bytes of IPv4 and UDP around each packet."""


def run(out: Path, clip: Path | None, seconds: float, audio: bool, quiet: bool) -> dict[str, Any]:
    """Everything that the demo writes; returns the statistics. Raises CodecError."""
    path = clip or sample_clip()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CodecError(f"{out} cannot be made: {error.strerror}.") from error
    with server() as address, progress_bar(quiet) as tell:
        sides = asyncio.run(converse(f"{address}/r/demo", path, seconds, audio, tell))
    statistics: dict[str, Any] = {**about(path, seconds), "sides": {side.name: side.statistics() for side in sides}}
    write_side_by_side(out / "side_by_side.mp4", sides, seconds)
    write_contact_sheet(out / "contact_sheet.png", sides, seconds)
    (out / "statistics.json").write_text(json.dumps(statistics, indent=2) + "\n")
    return statistics


def table(statistics: dict[str, Any]) -> Table:
    made = Table(title=f"{statistics['seconds']:.0f} s of a call, as each side received it", title_justify="left")
    for heading in ("", *statistics["sides"]):
        made.add_column(heading, justify="left" if not heading else "right")
    for key, label in SHOWN.items():
        made.add_row(label, *(str(side[key]) for side in statistics["sides"].values()))
    return made


@contextmanager
def server() -> Iterator[str]:
    """The address of a server process of our own on loopback. Raises CodecError where it does not start."""
    command = [sys.executable, "-m", "iwcodec", "serve", "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr
        said = []
        for line in process.stderr:
            said.append(line.strip())
            if line.startswith("{") and (entry := json.loads(line)).get("event") == "serving":
                yield str(entry["address"])
                return
        raise CodecError(f"The server did not start: {' '.join(said)}")
    finally:
        process.terminate()
        process.wait(SERVER_S)
        if process.stderr:
            process.stderr.close()


@dataclass
class Side:
    """One client: what it filmed, saw and heard, by time.monotonic()."""

    name: str
    call: Call
    speaker: Speaker | None
    microphone: Microphone | None
    joined_s: float = 0.0
    began_s: float = 0.0
    """Of the measured part."""
    filmed: list[Taken] = field(default_factory=list)
    seen: list[tuple[float, Shown]] = field(default_factory=list)
    heard: list[tuple[float, Samples]] = field(default_factory=list)
    looks: list[LinkStats] = field(default_factory=list)
    spoken_s: list[float] = field(default_factory=list)
    """When the tones of the other side began, at its microphone."""
    wire: list[tuple[float, float]] = field(default_factory=list)
    """(seconds, bytes sent so far, IP included)."""

    def see(self, participant: Participant, shown: Shown) -> None:
        self.seen.append((time.monotonic(), shown))

    def hear(self, block: Samples, at_s: float) -> None:
        self.heard.append((at_s, block))

    def look(self) -> None:
        """Once a second."""
        for participant in self.call.participants.values():
            stats = participant.stats()
            if stats is not None:
                self.looks.append(stats)
            if participant.peer.connection is not None:
                self.wire.append((time.monotonic(), wire_bytes(participant.peer.connection)))

    def statistics(self) -> dict[str, Any]:
        """Of the measured part. None where nothing was measured: without sound, or before anything came."""
        seen = [(at, shown) for at, shown in self.seen if at >= self.began_s]
        delays = [1000 * shown.delay_s for _, shown in seen]
        sound = self.sound_delays_ms()
        picture_ms = percentile(delays, 50)
        sound_ms = percentile([delay for delay in sound if delay is not None], 50)
        return {
            "first_picture_s": round(self.seen[0][0] - self.joined_s, 2) if self.seen else None,
            "frames_per_s": rate_of([at for at, _ in seen]),
            "picture_delay_p50_ms": picture_ms,
            "picture_delay_p95_ms": percentile(delays, 95),
            "sound_delay_p50_ms": sound_ms,
            "sound_ahead_ms": None if picture_ms is None or sound_ms is None else picture_ms - sound_ms,
            "tones_heard": f"{sum(delay is not None for delay in sound)} of {len(sound)}" if sound else None,
            "sources": self.looks[-1].sources if self.looks else 0,
            "motion_lost": round(float(np.mean([look.loss for look in self.looks])), 3) if self.looks else None,
            "all_sent_kbps": self._sent_kbps(),
            "picture_received_kbps": self._layers_kbps(),
        }

    def _sent_kbps(self) -> float | None:
        """Picture and sound, as the wire carries them."""
        if len(self.wire) < 2:
            return None
        (first_s, first), (last_s, last) = self.wire[0], self.wire[-1]
        return round((last - first) * 8 / 1000 / (last_s - first_s), 2)

    def _layers_kbps(self) -> dict[str, float]:
        names = self.looks[-1].received_kbps if self.looks else ()
        return {name: round(float(np.mean([look.received_kbps[name] for look in self.looks])), 2) for name in names}

    def sound_delays_ms(self) -> list[float | None]:
        """From each tone at the other side's microphone to its beginning here; None for one that was not heard."""
        if not self.heard:
            return []
        start = self.heard[0][0]
        track = np.concatenate([block for _, block in self.heard]).astype(np.float32)
        window = AUDIO_RATE // 200
        level = np.sqrt(np.convolve(np.square(track), np.ones(window) / window, "valid"))
        found: list[float | None] = []
        for spoken in self.spoken_s:
            begin = round((spoken - start) * AUDIO_RATE)
            until = begin + round(LISTEN_S * AUDIO_RATE)
            if spoken >= self.began_s and until <= len(level):
                loud = np.flatnonzero(level[begin:until] > LOUD)
                found.append(1000 * float(loud[0]) / AUDIO_RATE if len(loud) else None)
        return found


def percentile(values: list[float], share: float) -> int | None:
    return round(float(np.percentile(values, share))) if values else None


def rate_of(times: list[float]) -> float:
    """A second."""
    return round((len(times) - 1) / (times[-1] - times[0]), 1) if len(times) > 1 else 0.0


def wire_bytes(connection: Any) -> float:
    """Sent over this connection so far, DTLS records and SRTP packets with UDP and IP around them."""
    report = next(iter(connection.sctp.transport._get_stats().values()))
    return float(report.bytesSent + PACKET_OVERHEAD * report.packetsSent)


async def converse(url: str, path: Path, seconds: float, audio: bool, tell: Any) -> list[Side]:
    """The call itself. Raises CodecError where no pictures come."""
    # One thread a picture: the two sides share this machine's cores already.
    runtime = load_runtime(threads=1)
    with ThreadPoolExecutor(2 * len(NAMES), "network") as executor:
        sides, closing = [], []
        calls: list[asyncio.Task[None]] = []
        tasks: list[asyncio.Task[None]] = []
        for index, name in enumerate(NAMES):
            side, pictures, parts = set_up(url, name, index, path, runtime, executor, audio)
            sides.append(side)
            closing += parts
            calls.append(asyncio.create_task(side.call.run()))
            tasks.append(asyncio.create_task(side.call.film(pictures)))
        for side, other in (sides, sides[::-1]):
            if other.microphone is not None:
                tasks.append(asyncio.create_task(speak(other.microphone, side.spoken_s, path)))
        try:
            await first_pictures(sides, calls, tell)
            began = time.monotonic()
            for side in sides:
                side.began_s = began
            while (gone := time.monotonic() - began) < seconds:
                tell("talking", gone / seconds)
                for side in sides:
                    side.look()
                await asyncio.sleep(min(1.0, seconds - gone))
            for side in sides:
                side.look()
        finally:
            for side in sides:
                await side.call.leave()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*calls, *tasks, return_exceptions=True)
            for part in closing:
                part()
    return sides


def set_up(
    url: str, name: str, index: int, path: Path, runtime: Runtime, executor: ThreadPoolExecutor, audio: bool
) -> tuple[Side, Pictures, list[Callable[[], None]]]:
    """One side; its camera; what closes its parts."""
    microphone, speaker = (Microphone(), Speaker()) if audio else (None, None)
    call, _ = put_together(Signalling(url, name), runtime, executor, microphone, speaker)
    side = Side(name, call, speaker, microphone, time.monotonic())
    call.watchers.append(side.see)
    clip = Clip(path)
    clip = Clip(path, into_s=index * clip.duration_s / len(NAMES))
    crop = LiveCrop(runtime.info.size, clip.fps)
    pictures = Pictures(kept(clip.frames(), side.filmed, crop), lambda picture: picture)
    closing: list[Callable[[], None]] = [pictures.close]
    if microphone is not None and speaker is not None:
        speaker.listeners.append(side.hear)
        speaker.start()
        closing.append(speaker.stop)
        if clip.sound:
            closing.append(ClipSound(clip, microphone.push).close)
    return side, pictures, closing


def kept(frames: Iterator[Taken], filmed: list[Taken], crop: LiveCrop) -> Iterator[Taken]:
    for frame in frames:
        taken = Taken(crop(frame.picture), frame.captured_s)
        filmed.append(taken)
        yield taken


async def first_pictures(sides: list[Side], calls: list[asyncio.Task[None]], tell: Any) -> None:
    deadline = time.monotonic() + JOIN_S
    while not all(side.seen for side in sides):
        tell("joining", 1 - (deadline - time.monotonic()) / JOIN_S)
        for task in calls:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error
        if time.monotonic() > deadline:
            states = ", ".join(f"{side.name}: {p.state}" for side in sides for p in side.call.participants.values())
            raise CodecError(f"No pictures came within {JOIN_S:.0f} s ({states or 'nobody met'}).")
        await asyncio.sleep(0.05)


async def speak(microphone: Microphone, spoken_s: list[float], path: Path) -> None:
    """A tone of 800 Hz at the beginning of every second, where the clip is silent."""
    if Clip(path).sound:
        return
    start, count = time.monotonic(), 0
    while True:
        taken = start + count * BLOCK / AUDIO_RATE
        if count * BLOCK % round(EVERY_S * AUDIO_RATE) == 0:
            spoken_s.append(taken)
        times = (np.arange(count * BLOCK, (count + 1) * BLOCK) / AUDIO_RATE) % EVERY_S
        tone = np.where(times < BEEP_S, 9000 * np.sin(2 * np.pi * 800 * times), 0).astype(np.int16)
        count += 1
        await asyncio.sleep(max(0.0, start + count * BLOCK / AUDIO_RATE - time.monotonic()))
        microphone.push(tone, taken)


def about(path: Path, seconds: float) -> dict[str, Any]:
    return {
        "iwcodec": __version__,
        "clip": path.name,
        "seconds": seconds,
        "machine": {"cpu": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()},
    }


# ---------------------------------------------------------------------------------------------- pictures


def at(times: list[float], pictures: list[Picture], instant: float) -> Picture:
    """The latest picture at an instant; before the first one, grey."""
    index = int(np.searchsorted(times, instant, side="right")) - 1
    return pictures[index] if index >= 0 else np.full_like(pictures[0], 60)


def columns(sides: list[Side]) -> list[tuple[str, list[float], list[Picture]]]:
    """(label, times, pictures): each camera, and behind it what the other side saw of it."""
    result = []
    for side, other in (sides, sides[::-1]):
        result.append((f"{side.name}'s camera", [t.captured_s for t in side.filmed], [t.picture for t in side.filmed]))
        seen = [(at_s, shown.picture) for at_s, shown in other.seen]
        label = f"as {other.name} saw it, reconstructed"
        result.append((label, [at_s for at_s, _ in seen], [picture for _, picture in seen]))
    return result


def labelled(picture: Picture, text: str) -> Picture:
    strip = np.full((LABEL, picture.shape[1], 3), 245, np.uint8)
    cv2.putText(strip, text, (4, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (20, 20, 20), 1, cv2.LINE_AA)
    return np.concatenate([strip, picture])


def write_side_by_side(path: Path, sides: list[Side], seconds: float) -> None:
    """Everything at the same instants, with the sound that the first side heard."""
    shown = columns(sides)
    began = sides[0].began_s
    size = sum(pictures[0].shape[1] for _, _, pictures in shown), shown[0][2][0].shape[0] + LABEL
    heard = sound_from(sides[0], began, seconds)
    with VideoWriter(path, size, FPS, audio=len(heard) > 0) as writer:
        for number in range(round(seconds * FPS)):
            instant = began + float(number / FPS)
            row = [labelled(at(times, pictures, instant), label) for label, times, pictures in shown]
            writer.write(np.ascontiguousarray(np.concatenate(row, axis=1)))
            first, end = (round(AUDIO_RATE * n / FPS) for n in (number, number + 1))
            writer.write_audio(heard[first:end])


def sound_from(side: Side, began: float, seconds: float) -> Samples:
    blocks = [block for at_s, block in side.heard if at_s >= began]
    return np.concatenate(blocks)[: round(seconds * AUDIO_RATE)] if blocks else np.zeros(0, np.int16)


def write_contact_sheet(path: Path, sides: list[Side], seconds: float) -> None:
    shown = columns(sides)
    rows = []
    for number in range(ROWS):
        instant = sides[0].began_s + seconds * (2 * number + 1) / (2 * ROWS)
        pictures = [at(times, taken, instant) for _, times, taken in shown]
        if number == 0:
            pictures = [labelled(p, label) for p, (label, _, _) in zip(pictures, shown, strict=True)]
        rows.append(np.concatenate(pictures, axis=1))
    cv2.imwrite(str(path), cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR))
