"""Loudspeaker: mixes the jitter buffers of all participants, and plays the mix or, without a sound card, clocks it."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from iwcodec.client.audio.jitter_buffer import BLOCK, AudioJitterBuffer
from iwcodec.client.video.capture import Device, choose
from iwcodec.codec.errors import CodecError
from iwcodec.codec.media.types import AUDIO_RATE, Samples


class Speaker:
    """Mix of all participants, clocked by a thread in real time and not played."""

    def __init__(self) -> None:
        self._sources: list[AudioJitterBuffer] = []
        self.listeners: list[Callable[[Samples, float], None]] = []
        """Called on the speaker's thread with every mixed block and the monotonic time at which it is played."""
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, audio_buffer: AudioJitterBuffer) -> None:
        self._sources = [*self._sources, audio_buffer]

    def remove(self, audio_buffer: AudioJitterBuffer) -> None:
        self._sources = [other for other in self._sources if other is not audio_buffer]

    def mix(self, count: int, at_s: float) -> Samples:
        """Pull and add `count` samples from every buffer; int16 mono at 48 kHz, clipped. `at_s`: playout time of the
        first sample (monotonic clock)."""
        total = np.zeros(count, np.int32)
        for audio_buffer in self._sources:
            total += audio_buffer.pull(count, at_s)
        block = np.asarray(total.clip(-32768, 32767), np.int16)
        for listener in self.listeners:
            listener(block, at_s)
        return block

    def start(self) -> None:
        self._thread = threading.Thread(target=self._tick, name="speaker", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _tick(self) -> None:
        due = time.monotonic()
        while not self._stopped.wait(max(0.0, due - time.monotonic())):
            self.mix(BLOCK, due)
            due += BLOCK / AUDIO_RATE


class SoundDevice:
    """A device of PortAudio and its stream of blocks, mono int16 at 48 kHz."""

    kind: str
    """Name of sounddevice's class of streams."""
    problem: str
    """Beginning of the error if the device cannot be opened."""

    def __init__(self, device: Device | None) -> None:
        """`device`: None for the system's default."""
        self.device = device
        self.active_s = time.monotonic()
        """When the device last gave or asked for samples, or was opened."""
        self._stream: Any = None

    def transfer(self, samples: Any, count: int, times: Any) -> None:
        """Take or fill `count` samples (count, 1), on PortAudio's thread. `times`: of PortAudio."""
        raise NotImplementedError

    def open(self, device: Device | None) -> None:
        """Use this device from now on; the one before must have been closed. Raises CodecError."""

        def callback(samples: Any, count: int, times: Any, _: Any) -> None:
            self.active_s = time.monotonic()
            self.transfer(samples, count, times)

        stream = getattr(load_sounddevice(), self.kind)
        number = None if device is None else int(device.handle)
        try:
            self._stream = stream(
                AUDIO_RATE, BLOCK, device=number, channels=1, dtype="int16", latency="low", callback=callback
            )
            self._stream.start()
        except Exception as error:  # PortAudioError; its class is not importable without PortAudio
            raise CodecError(f"{self.problem}: {error}.") from error
        self.device, self.active_s = device, time.monotonic()

    def close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            with suppress(Exception):  # the device may have gone
                stream.stop()
                stream.close()


class SoundCard(SoundDevice, Speaker):
    """An output device, which plays the mix."""

    kind, problem = "OutputStream", "The loudspeaker cannot be opened"

    def __init__(self, device: Device | None = None) -> None:
        Speaker.__init__(self)
        SoundDevice.__init__(self, device)

    def start(self) -> None:
        self.open(self.device)

    def transfer(self, samples: Any, count: int, times: Any) -> None:
        latency_s = times.outputBufferDacTime - times.currentTime
        samples[:, 0] = self.mix(count, time.monotonic() + (latency_s if 0 <= latency_s < 1 else 0.0))

    def stop(self) -> None:
        self.close()


def list_speakers() -> list[Device]:
    """All loudspeakers. Raises CodecError if PortAudio is missing."""
    outputs = [d for d in load_sounddevice().query_devices() if d["max_output_channels"] > 0]
    return [Device(n, str(d["name"]), str(d["index"])) for n, d in enumerate(outputs)]


def load_sounddevice() -> Any:
    """Import sounddevice. Raises CodecError, with the command to install it, if it or PortAudio is missing."""
    try:
        import sounddevice
    except ImportError as error:
        raise CodecError("Loudspeaker and microphone need sounddevice: pip install sounddevice.") from error
    except OSError as error:
        raise CodecError(
            "Without PortAudio there is neither microphone nor loudspeaker (Debian: apt install libportaudio2)."
        ) from error
    return sounddevice


def open_speaker(headless: bool, selector: str | None = None) -> tuple[Speaker, str | None]:
    """Start a speaker: the sound card, or one without output if `headless` or if the sound card cannot be opened.

    Returns the speaker and, in the last case, the reason. Raises CodecError if the selected one is not there.
    """
    problem = None
    if not headless:
        card = SoundCard(choose(list_speakers(), selector, "loudspeaker") if selector else None)
        try:
            card.start()
            return card, None
        except CodecError as error:
            problem = str(error)
    speaker = Speaker()
    speaker.start()
    return speaker, problem
