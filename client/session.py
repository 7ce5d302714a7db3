"""`iwcodec call`: opens devices, joins the room, and shows the call in a window or reports it on the terminal."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.text import Text

from iwcodec.client.audio import capture as audio_capture
from iwcodec.client.audio.devices import AudioDevices
from iwcodec.client.audio.echo import EchoCanceller
from iwcodec.client.audio.sender import AudioSender
from iwcodec.client.audio.speaker import SoundCard, Speaker, load_sounddevice, open_speaker
from iwcodec.client.display import Window
from iwcodec.client.link.link import Link
from iwcodec.client.link.link_state import LinkState
from iwcodec.client.quality import quality_words
from iwcodec.client.recording.recorder import FPS, CallRecorder, Recorder, path_for
from iwcodec.client.recording.virtual_camera import VirtualCamera
from iwcodec.client.room.call import Call
from iwcodec.client.room.protocol import parse_address
from iwcodec.client.room.resume_file import ResumeFile
from iwcodec.client.room.signalling import Signalling
from iwcodec.client.stats import stats_json, stats_lines
from iwcodec.client.transport.connection import make_connection
from iwcodec.client.video import capture
from iwcodec.client.video.camera import Camera
from iwcodec.client.video.video_sender import VideoSender
from iwcodec.client.view import call_view
from iwcodec.codec.errors import CodecError
from iwcodec.codec.shipped_model import load_runtime_for
from iwcodec.codec.terminal import console
from iwcodec.models.runtime.types import ModelInfo, Runtime

DRAW_INTERVAL_S, MIN_DRAW_INTERVAL_S = 1 / 30, 1 / 60
"""Maximum time between two drawings of the window, which bounds the response to keys; and minimum time after a drawing
with a new picture, because screens show no more and drawing takes time."""
REPORT_S: Final = 5.0
"""Interval between two reports of statistics in a headless call."""
DEVICE_CHECK_S: Final = 1.0
"""Interval between checks whether microphone and loudspeaker are still there."""
POLL_S: Final = 0.05
"""Interval between checks of a headless call for changes of state."""
NETWORK_THREADS: Final = 2
"""Threads that run the network: with one, our own pictures would wait for those of all participants."""


@dataclass(frozen=True)
class CallOptions:
    """Options of `iwcodec call`."""

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
    """Whether a headless call prints its statistics as JSON."""
    token: str | None = None
    """Of the invitation, unless it is in the URL."""
    authority: Path | None = None
    """PEM file with the certificate that signed the server's."""
    speaker: str | None = None
    raw_mic: bool = False
    """Whether the microphone is sent without echo cancellation and noise suppression."""
    max_kbps: float | None = None
    """Limit of what is sent, to all participants together."""
    no_video: bool = False
    """Whether no picture is sent: a camera is not opened, and of a file only the sound is used."""


async def run_call(options: CallOptions) -> None:
    """Open the devices, join the room, show the call until the user leaves, and close everything.

    Raises CodecError where a device cannot be opened or the room cannot be joined.
    """
    with ExitStack() as stack:
        resume_file = ResumeFile(parse_address(options.url).websocket_url, options.name)
        stack.callback(resume_file.close)
        signalling = Signalling(
            options.url, options.name, token=options.token, authority=options.authority, resume_file=resume_file
        )
        if signalling.address.exposed_host is not None:
            console.print(Text("not encrypted:", "yellow"), exposure(signalling.address.exposed_host), soft_wrap=True)
        if signalling.address.token is None:
            console.print(f"Others join at {signalling.address.link} (a browser, or iwcodec call)", soft_wrap=True)
        runtime = load_runtime_for(options.size, threads=max(1, (os.cpu_count() or 1) // 2))
        executor = stack.enter_context(ThreadPoolExecutor(NETWORK_THREADS, "network"))
        motion_executor = stack.enter_context(ThreadPoolExecutor(1, "motion"))
        window = None if options.headless else Window(f"iwcodec call - {signalling.address.room}")
        if window is not None:
            stack.callback(window.close)
        audio_sender, speaker = open_audio(options, stack)
        call, video_sender = make_call(signalling, runtime, executor, motion_executor, audio_sender, speaker)
        call.max_kbps = options.max_kbps
        pictures, clip, camera = open_pictures(options, runtime.info.size, from_threads(call.notify))
        if pictures is None:
            call.go_without_camera()
        else:
            stack.callback(pictures.close)
        if camera is not None:
            stack.callback(camera.close)
        microphone = None
        if audio_sender is not None and speaker is not None:
            microphone = start_audio_capture(options, clip, audio_sender, speaker, call)
            stack.callback(lambda: microphone.close() if microphone else None)
        devices = AudioDevices(
            microphone if isinstance(microphone, audio_capture.MicrophoneSound) else None,
            speaker if isinstance(speaker, SoundCard) else None,
        )
        if options.record is not None:
            recordings = record_all(call, options.record, runtime.info, options.audio)
            stack.callback(finish_recordings, options.record, recordings)
        if options.virtual_camera:
            stack.callback(VirtualCamera(call).close)
        changes = Changes(call, camera, devices)
        interface = show_window(call, video_sender, window, changes) if window else print_reports(call, options.as_json)
        watching = asyncio.create_task(changes.watch())
        try:
            await run_with_interface(call, interface, pictures)
        finally:
            watching.cancel()


def from_threads(notify: Callable[[str], None]) -> Callable[[str], None]:
    """`notify` for other threads: it runs on the event loop."""
    loop = asyncio.get_running_loop()

    def notify_soon(text: str) -> None:
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(notify, text)

    return notify_soon


class Changes:
    """Changes of devices during a call, by keys or because one went away."""

    def __init__(self, call: Call, camera: Camera | None, devices: AudioDevices) -> None:
        self._call, self._camera, self._devices = call, camera, devices
        self._working: asyncio.Task[None] | None = None
        self._moderating: asyncio.Task[None] | None = None
        self._choosing: list[str] = []
        """Ids of those of whom the next key removes one."""

    def key(self, key: str) -> None:
        """Change what the key stands for, if anything, unless another change is under way."""
        if self._choosing or key in ("l", "k"):
            self._moderate(key)
            return
        work = {
            "c": lambda: "A file is sent instead of a camera." if self._camera is None else self._camera.change(),
            "a": lambda: self._devices.change("microphone"),
            "s": lambda: self._devices.change("loudspeaker"),
        }.get(key)
        if work is not None and (self._working is None or self._working.done()):
            self._working = asyncio.create_task(self._change(work))

    def _moderate(self, key: str) -> None:
        """The host's keys: l locks and unlocks the room, k and a number remove a participant."""
        choosing, self._choosing = self._choosing, []
        if not self._call.is_host:
            self._call.notify("only the host, who made the room by invitation, locks it and removes people")
        elif key == "l":
            self._start(self._call.lock(not self._call.locked))
        elif key == "k" and self._call.participants:
            self._choosing = list(self._call.participants)
            names = ", ".join(f"{n} {p.name}" for n, p in enumerate(self._call.participants.values(), 1))
            self._call.notify(f"whom to remove? {names}")
        elif key.isdigit() and 1 <= int(key) <= len(choosing):
            self._start(self._call.expel(choosing[int(key) - 1]))
        elif choosing:
            self._call.notify("nobody was removed")

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._moderating = asyncio.create_task(work)

    async def watch(self) -> None:
        """Restore devices that go away. Never returns."""
        while True:
            await asyncio.sleep(DEVICE_CHECK_S)
            if self._devices.are_lost() and (self._working is None or self._working.done()):
                for notice in await asyncio.to_thread(self._devices.restore):
                    self._call.notify(notice)

    async def _change(self, work: Callable[[], str]) -> None:
        self._call.notify(await asyncio.to_thread(work))


def exposure(host: str) -> str:
    """What a connection to a server without TLS risks, and what helps."""
    return (
        f"signalling with {host} goes over http, and whoever is on the way may enter the call unseen. Use https, or "
        "compare the three words beside each name by voice: both sides must see the same."
    )


def record_all(call: Call, path: Path, info: ModelInfo, audio: bool) -> CallRecorder:
    """Record every participant, the first one to `path`."""
    return CallRecorder(call, lambda name: Recorder(path_for(path, name), info, audio))


def finish_recordings(path: Path, recordings: CallRecorder) -> None:
    """Close all recordings, and print what they hold."""
    for recording in recordings.recordings:
        finish_recording(recording.recorder)
    if not recordings.recordings:
        console.print(f"{path} was not written: no picture arrived.", soft_wrap=True)


def finish_recording(recorder: Recorder) -> None:
    """Close the recording and print what it holds, or why there is none."""
    if recorder.close():
        seconds = float(recorder.frames / FPS)
        console.print(f"{recorder.path}: {seconds:.1f} s, {recorder.sources} pictures", soft_wrap=True)
    else:
        why = "writing failed" if recorder.given_up else "no picture arrived"
        console.print(f"{recorder.path} was not written: {why}.", soft_wrap=True)


def make_call(
    signalling: Signalling,
    runtime: Runtime,
    executor: ThreadPoolExecutor,
    motion_executor: ThreadPoolExecutor,
    audio_sender: AudioSender | None,
    speaker: Speaker | None,
) -> tuple[Call, VideoSender]:
    """A call with the real network and WebRTC transport, not yet joined. `executor` runs the networks,
    `motion_executor` decodes motion."""
    video_sender = VideoSender(runtime, executor)
    call = Call(
        signalling,
        video_sender,
        lambda connection: Link(connection, video_sender, runtime, executor, motion_executor),
        make_connection,
        audio_sender,
        speaker,
    )
    return call, video_sender


def open_audio(options: CallOptions, stack: ExitStack) -> tuple[AudioSender | None, Speaker | None]:
    """Open the audio encoder and the loudspeaker; print a warning if there is no loudspeaker."""
    if not options.audio:
        return None, None
    audio_sender = AudioSender()
    speaker, problem = open_speaker(options.headless, options.speaker)
    stack.callback(speaker.stop)
    if problem:
        console.print(Text("no sound:", "yellow"), problem, soft_wrap=True)
    return audio_sender, speaker


def open_pictures(
    options: CallOptions, size: int, notify: Callable[[str], None]
) -> tuple[capture.Pictures | None, capture.Clip | None, Camera | None]:
    """Open the video file, or the camera, cropped to `size` pixels, unless no picture is sent; returns the clip of a
    file for its audio, or the camera. `notify` is called, on another thread, with what happens to the camera.

    Raises CodecError where there is neither.
    """
    if options.video is not None:
        clip = capture.Clip(options.video)
        if options.no_video:
            return None, clip, None
        return capture.Pictures(clip.frames(), capture.LiveCrop(size, clip.fps)), clip, None
    if options.no_video:
        return None, None, None
    try:
        camera = Camera(options.camera, notify)
    except CodecError as error:
        raise CodecError(f"{error} To watch and talk use --no-video, to send a video file --video FILE.") from None
    return capture.Pictures(camera.frames(), capture.LiveCrop(size, capture.MAX_FPS)), None, camera


def start_audio_capture(
    options: CallOptions, clip: capture.Clip | None, audio_sender: AudioSender, speaker: Speaker, call: Call
) -> audio_capture.MicrophoneSound | audio_capture.ClipSound | None:
    """Start sending the file's audio, or the microphone's, freed from the echo of the loudspeaker; returns what to
    close.

    Without a microphone the call goes on, muted and with a warning, unless one was asked for by `--mic`.
    """
    if clip is not None and options.mic is None:
        return audio_capture.ClipSound(clip, audio_sender.push) if clip.has_sound else None
    listener = audio_sender.push if options.raw_mic else without_echo(audio_sender.push, speaker)
    try:
        load_sounddevice()
        device = capture.choose(audio_capture.list_microphones(), options.mic, "microphone") if options.mic else None
        return audio_capture.MicrophoneSound(device, listener)
    except CodecError as error:
        if options.mic is not None:
            raise
        console.print(Text("no microphone:", "yellow"), str(error), soft_wrap=True)
        call.mute(True)
        return None


def without_echo(listener: audio_capture.Listener, speaker: Speaker) -> audio_capture.Listener:
    """A listener for the microphone that cancels the echo of `speaker`; where that cannot be done, a warning is
    printed."""
    try:
        canceller = EchoCanceller()
    except CodecError as error:
        console.print(Text("others may hear their echo:", "yellow"), str(error), soft_wrap=True)
        return listener
    speaker.listeners.append(canceller.far)
    return canceller.before(listener)


async def run_with_interface(
    call: Call, interface: Coroutine[Any, Any, None], pictures: capture.Pictures | None
) -> None:
    """Run the call and its user interface until either ends: the user leaves, or the call cannot continue."""
    sending = None if pictures is None else asyncio.create_task(call.send_video(pictures))
    showing = asyncio.create_task(interface)
    # Also if the interface fails: otherwise nobody could end the call.
    showing.add_done_callback(lambda _: leave_soon(call))
    with leave_on_signals(call):
        try:
            await call.run()
        finally:
            if sending is not None:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
    if not showing.done():
        showing.cancel()
    with suppress(asyncio.CancelledError):
        await showing


_leaving: set[asyncio.Task[None]] = set()


def leave_soon(call: Call) -> None:
    """Leave the call in a task of its own."""
    task = asyncio.get_running_loop().create_task(call.leave())
    _leaving.add(task)
    task.add_done_callback(_leaving.discard)


@contextmanager
def leave_on_signals(call: Call) -> Iterator[None]:
    """SIGINT and SIGTERM leave the call and shut down cleanly."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)
    previous = {}
    with suppress(ValueError):  # not in the main thread
        for number in signals:
            try:
                loop.add_signal_handler(number, leave_soon, call)
            except NotImplementedError:  # Windows
                previous[number] = signal.signal(number, lambda *_: loop.call_soon_threadsafe(leave_soon, call))
    try:
        yield
    finally:
        for number in previous:
            signal.signal(number, previous[number])
        with suppress(NotImplementedError, ValueError):
            for number in signals:
                loop.remove_signal_handler(number)


async def show_window(call: Call, video_sender: VideoSender, window: Window, changes: Changes) -> None:
    """Draw every new picture at once, and handle keys, until the user presses q."""
    details = False
    new_frame = asyncio.Event()
    call.frame_listeners.append(lambda participant, frame: new_frame.set())
    while True:
        for key in window.pressed():
            if key == "q":
                return
            elif key == "i":
                details = not details
            elif key == "m":
                call.mute(not call.muted)
            elif key == "v":
                call.set_camera_off(not call.camera_off)
            else:
                changes.key(key)
        pause_s = MIN_DRAW_INTERVAL_S if new_frame.is_set() else 0.0
        new_frame.clear()
        window.show(call_view(call, call.signalling.name, video_sender.preview, details))
        await asyncio.sleep(pause_s)
        with suppress(TimeoutError):
            await asyncio.wait_for(new_frame.wait(), DRAW_INTERVAL_S - pause_s)


async def print_reports(call: Call, as_json: bool = False) -> None:
    """Interface of a headless call: print a line when a state changes, notices, and the statistics every REPORT_S."""
    printed, said, told, noticed = "", "", dict[str, str](), 0
    due_s = time.monotonic() + REPORT_S
    while True:
        states = ", ".join(f"{p.name}: {p.state}" for p in call.participants.values())
        line = f"{call.state}{'; ' if states else ''}{states}"
        if line != printed:
            console.print(line, soft_wrap=True)
            printed = line
        for notice in call.notices[max(0, len(call.notices) - (call.notified - noticed)) :]:
            if notice != said:
                console.print(notice, soft_wrap=True)
            said = notice
        noticed = call.notified
        for id, participant in call.participants.items():
            words = participant.words
            if words is not None and told.get(id) != words:
                told[id] = words
                console.print(f"{participant.name} must see these words, too: {words}", soft_wrap=True)
        if time.monotonic() >= due_s:
            due_s += REPORT_S
            print_stats(call, as_json)
        await asyncio.sleep(POLL_S)


def print_stats(call: Call, as_json: bool) -> None:
    if as_json:
        print(json.dumps(stats_json(call)), flush=True)
        return
    for participant in call.participants.values():
        if (stats := participant.stats()) is not None:
            quality = quality_words(stats) if participant.state is LinkState.LIVE else ""
            lines = "; ".join([*([quality] if quality else []), *stats_lines(stats, participant)])
            console.print(f"  {participant.name}: {lines}", soft_wrap=True)
