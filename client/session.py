"""`iwcodec call`: opens the devices, joins the room with an interface (interface.py), and closes everything."""

import asyncio
import os
import signal
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
from iwcodec.client.interface import Changes, print_reports, show_window
from iwcodec.client.link.link import Link
from iwcodec.client.recording.recorder import FPS, CallRecorder, Recorder, path_for
from iwcodec.client.recording.virtual_camera import VirtualCamera
from iwcodec.client.room.call import Call
from iwcodec.client.room.protocol import parse_address
from iwcodec.client.room.resume_file import ResumeFile
from iwcodec.client.room.signalling import Signalling
from iwcodec.client.transport.connection import make_connection
from iwcodec.client.video import capture
from iwcodec.client.video.camera import Camera
from iwcodec.client.video.video_sender import VideoSender
from iwcodec.codec.errors import CodecError
from iwcodec.codec.shipped_model import load_runtime_for
from iwcodec.codec.terminal import console
from iwcodec.models.runtime.types import ModelInfo, Runtime

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
