"""Capture of sound from a microphone, or from a video file that is played in a loop."""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from iwcodec.client.audio.speaker import SoundDevice, load_sounddevice
from iwcodec.client.video.capture import CLOSE_S, Clip, Device
from iwcodec.codec.media.types import AUDIO_RATE, Samples

Listener = Callable[[Samples, float], None]
"""Called on the event loop with mono samples (int16, 48 kHz) and the capture time of the first."""


def list_microphones() -> list[Device]:
    """All microphones. Raises CodecError if PortAudio is missing."""
    inputs = [d for d in load_sounddevice().query_devices() if d["max_input_channels"] > 0]
    return [Device(n, str(d["name"]), str(d["index"])) for n, d in enumerate(inputs)]


class ClipSound:
    """Passes the sound of a looped file to `listener` until closed."""

    def __init__(self, clip: Clip, listener: Listener) -> None:
        self._closed = threading.Event()
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, args=(clip, loop, listener), name="sound", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._thread.join(CLOSE_S)

    def _run(self, clip: Clip, loop: asyncio.AbstractEventLoop, listener: Listener) -> None:
        for block, captured_s in clip.blocks():
            if self._closed.is_set():
                return
            with suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(listener, block, captured_s)


class MicrophoneSound(SoundDevice):
    """Passes the sound of a microphone to `listener` until closed."""

    kind, problem = "InputStream", "The microphone cannot be used"

    def __init__(self, device: Device | None, listener: Listener) -> None:
        """`device`: None for the system's default. Raises CodecError if it cannot be used."""
        super().__init__(device)
        self._loop, self._listener = asyncio.get_running_loop(), listener
        self.open(device)

    def transfer(self, samples: Any, count: int, times: Any) -> None:
        age = times.currentTime - times.inputBufferAdcTime
        captured_s = time.monotonic() - (age if 0 <= age < 1 else count / AUDIO_RATE)
        with suppress(RuntimeError):  # the loop was closed meanwhile
            self._loop.call_soon_threadsafe(self._listener, np.array(samples[:, 0], np.int16), captured_s)
