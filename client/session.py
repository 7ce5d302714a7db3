"""One side of a call from the command line: what is asked for is opened, joined, shown, and closed again."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rich.text import Text

from iwcodec.client import display
from iwcodec.client.audio.jitter_buffer import Speaker, load_sounddevice, open_speaker
from iwcodec.client.audio.track import Microphone
from iwcodec.client.recording.recorder import FPS, CallRecorder, Recorder, VirtualCamera
from iwcodec.client.room.call import Call
from iwcodec.client.room.signalling import Signalling
from iwcodec.client.transport.sctp import make_connection
from iwcodec.client.video import capture
from iwcodec.client.video.link import Link
from iwcodec.client.video.video_sender import VideoSender
from iwcodec.codec.cli import console
from iwcodec.codec.errors import CodecError
from iwcodec.codec.shipped_model import load_runtime_for
from iwcodec.models.runtime.types import Runtime

DRAW_S, MIN_DRAW_S = 1 / 30, 1 / 60
"""Longest between two drawings, for keys and states; and shortest after one of a new picture, for screens show no more
and drawing takes time."""
REPORT_S: Final = 5.0
NOTICE_S: Final = 0.05
THREADS: Final = 2
"""Of the network: one's own pictures must not wait behind everybody else's."""


@dataclass(frozen=True)
class CallOptions:
    url: str
    name: str
    camera: str | None = None
    video: Path | None = None
    mic: str | None = None
    audio: bool = True
    record: Path | None = None
    virtual_camera: bool = False
    headless: bool = False
    size: int = 256
    as_json: bool = False
    """Whether a call without a window says its figures to machines."""


async def take_part(options: CallOptions) -> None:
    """The whole call. Raises CodecError for what cannot be opened or joined."""
    with ExitStack() as stack:
        signalling = Signalling(options.url, options.name)
        runtime = load_runtime_for(options.size, threads=max(1, (os.cpu_count() or 1) // 2))
        executor = stack.enter_context(ThreadPoolExecutor(THREADS, "network"))
        window = None if options.headless else display.Window(f"iwcodec call - {signalling.address.room}")
        if window is not None:
            stack.callback(window.close)
        microphone, speaker = sound_of(options, stack)
        the_call, feed = put_together(signalling, runtime, executor, microphone, speaker)
        pictures, clip = pictures_of(options, runtime.info.size)
        stack.callback(pictures.close)
        if microphone is not None:
            stack.callback(listen(options, clip, microphone, the_call).close)
        if options.record is not None:
            recorder = Recorder(options.record, runtime.info, options.audio)
            CallRecorder(the_call, recorder)
            stack.callback(finish, recorder)
        if options.virtual_camera:
            stack.callback(VirtualCamera(the_call).close)
        await talk(the_call, show(the_call, feed, window) if window else report(the_call, options.as_json), pictures)


def finish(recorder: Recorder) -> None:
    if recorder.close():
        seconds = float(recorder.frames / FPS)
        console.print(f"{recorder.path}: {seconds:.1f} s, {recorder.sources} pictures", soft_wrap=True)
    else:
        why = "that failed" if recorder.given_up else "nothing came"
        console.print(f"{recorder.path} was not written: {why}.", soft_wrap=True)


def put_together(
    signalling: Signalling,
    runtime: Runtime,
    executor: ThreadPoolExecutor,
    microphone: Microphone | None,
    speaker: Speaker | None,
) -> tuple[Call, VideoSender]:
    feed = VideoSender(runtime, executor)
    made = Call(
        signalling,
        feed,
        lambda connection: Link(connection, feed, runtime, executor),
        make_connection,
        microphone,
        speaker,
    )
    return made, feed


def sound_of(options: CallOptions, stack: ExitStack) -> tuple[Microphone | None, Speaker | None]:
    """Opened, with the user told where something is missing."""
    if not options.audio:
        return None, None
    microphone = Microphone()
    speaker, told = open_speaker(options.headless)
    stack.callback(speaker.stop)
    if told:
        console.print(Text("no sound:", "yellow"), told, soft_wrap=True)
    return microphone, speaker


def pictures_of(options: CallOptions, size: int) -> tuple[capture.Pictures, capture.Clip | None]:
    """Raises CodecError where there is no camera and no file."""
    if options.video is not None:
        clip = capture.Clip(options.video)
        return capture.Pictures(clip.frames(), capture.LiveCrop(size, clip.fps)), clip
    try:
        camera = capture.choose(capture.list_cameras(), options.camera, "camera")
    except CodecError as error:
        raise CodecError(f"{error} A video file can take its place: --video FILE.") from None
    return capture.Pictures(capture.camera_frames(camera), capture.LiveCrop(size, capture.MAX_FPS)), None


class Nothing:
    def close(self) -> None:
        pass


def listen(options: CallOptions, clip: capture.Clip | None, microphone: Microphone, the_call: Call) -> Any:
    """The file's sound, or a microphone; without either the call goes on, and says so."""
    if clip is not None and options.mic is None:
        return capture.ClipSound(clip, microphone.push) if clip.sound else Nothing()
    try:
        load_sounddevice()
        device = capture.choose(capture.list_microphones(), options.mic, "microphone") if options.mic else None
        return capture.MicrophoneSound(device, microphone.push)
    except CodecError as error:
        if options.mic is not None:
            raise
        console.print(Text("no microphone:", "yellow"), str(error), soft_wrap=True)
        the_call.mute(True)
        return Nothing()


async def talk(the_call: Call, shows: Coroutine[Any, Any, None], pictures: capture.Pictures) -> None:
    """Until the user leaves, or the call cannot go on. `shows` tells the user of it."""
    filming = asyncio.create_task(the_call.film(pictures))
    showing = asyncio.create_task(shows)
    # A fault of the display must not leave a call that nobody can end.
    showing.add_done_callback(lambda _: leave_soon(the_call))
    with interrupts(the_call):
        try:
            await the_call.run()
        finally:
            filming.cancel()
            await asyncio.gather(filming, return_exceptions=True)
    if not showing.done():
        showing.cancel()
    with suppress(asyncio.CancelledError):
        await showing


_leaving: set[asyncio.Task[None]] = set()


def leave_soon(the_call: Call) -> None:
    task = asyncio.get_running_loop().create_task(the_call.leave())
    _leaving.add(task)
    task.add_done_callback(_leaving.discard)


@contextmanager
def interrupts(the_call: Call) -> Iterator[None]:
    """Ctrl-C and a kind kill leave properly."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {}
    with suppress(ValueError):  # a thread that is not the main one
        for number in signals:
            try:
                loop.add_signal_handler(number, leave_soon, the_call)
            except NotImplementedError:  # Windows
                before[number] = signal.signal(number, lambda *_: loop.call_soon_threadsafe(leave_soon, the_call))
    try:
        yield
    finally:
        for number in before:
            signal.signal(number, before[number])
        with suppress(NotImplementedError, ValueError):
            for number in signals:
                loop.remove_signal_handler(number)


async def show(the_call: Call, feed: VideoSender, window: display.Window) -> None:
    """A picture is drawn as soon as it is there."""
    details = False
    fresh = asyncio.Event()
    the_call.watchers.append(lambda participant, shown: fresh.set())
    while True:
        for key in window.pressed():
            if key == "q":
                return
            details ^= key == "i"
            display.press(the_call, key)
        pause_s = MIN_DRAW_S if fresh.is_set() else 0.0
        fresh.clear()
        window.show(display.scene(the_call, the_call.signalling.name, feed.preview, details))
        await asyncio.sleep(pause_s)
        with suppress(TimeoutError):
            await asyncio.wait_for(fresh.wait(), DRAW_S - pause_s)


async def report(the_call: Call, as_json: bool = False) -> None:
    """Without a window: a line whenever something has changed, and the figures now and then."""
    told = ""
    due_s = time.monotonic() + REPORT_S
    while True:
        states = ", ".join(f"{p.name}: {p.state}" for p in the_call.participants.values())
        line = f"{the_call.state}{'; ' if states else ''}{states}"
        if line != told:
            console.print(line, soft_wrap=True)
            told = line
        if time.monotonic() >= due_s:
            due_s += REPORT_S
            say_figures(the_call, as_json)
        await asyncio.sleep(NOTICE_S)


def say_figures(the_call: Call, as_json: bool) -> None:
    if as_json:
        print(json.dumps(figures(the_call)), flush=True)
        return
    for participant in the_call.participants.values():
        if (stats := participant.stats()) is not None:
            told = "; ".join(display.describe(stats, participant))
            console.print(f"  {participant.name}: {told}", soft_wrap=True)


def figures(the_call: Call) -> dict[str, Any]:
    """One line of `--json`: what the overlay shows and what waits where, of each participant."""
    participants = []
    for one in the_call.participants.values():
        stats, sound = one.stats(), one.playout
        about: dict[str, Any] = {} if stats is None else asdict(stats)
        waits = {} if sound is None else {"sound_waits_ms": 1000 * sound.wait_s}
        rates = {} if stats is None else display.wire_kbps(stats, one)
        about |= {f"{what}_kbps": {"sent": sent, "received": got} for what, (sent, got) in rates.items()}
        participants.append({"name": one.name, "state": one.state, **about, **waits})
    return {"state": the_call.state, "participants": participants}
