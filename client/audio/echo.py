"""Echo cancellation and noise suppression for the microphone: WebRTC's audio processing, from the package livekit.

Without it a participant with a loudspeaker sends everybody's voice back to them. The canceller hears what the
loudspeaker plays and subtracts its echo from what the microphone records; it finds the delay between the two itself.
"""

import threading
import time

import numpy as np

from iwcodec.client.audio.capture import Listener
from iwcodec.codec.errors import CodecError
from iwcodec.codec.media.types import AUDIO_RATE, Samples

FRAME = AUDIO_RATE // 100
"""Samples that are processed at a time: 10 ms."""
MAX_DELAY_MS = 500
"""Maximum delay that the canceller is told."""


class EchoCanceller:
    """Call `far` with what the loudspeaker plays, on its thread, and `near` with what the microphone records, on the
    event loop. Raises CodecError if livekit is missing."""

    def __init__(self) -> None:
        try:
            from livekit.rtc import AudioFrame
            from livekit.rtc.apm import AudioProcessingModule
        except ImportError as error:
            raise CodecError("Echo cancellation needs livekit: pip install livekit.") from error
        self._frame = AudioFrame
        self._processing = AudioProcessingModule(echo_cancellation=True, noise_suppression=True, high_pass_filter=True)
        self._lock = threading.Lock()
        self._far, self._near = np.zeros(0, np.int16), np.zeros(0, np.int16)
        """Samples that do not fill a frame yet."""
        self._playing_s = 0.0
        """Time from `far` to the loudspeaker."""

    def far(self, samples: Samples, at_s: float) -> None:
        """Take samples (int16, mono, 48 kHz) that are played at `at_s` (monotonic clock)."""
        with self._lock:
            self._playing_s = max(0.0, at_s - time.monotonic())
            self._far = np.concatenate([self._far, samples])
            while len(self._far) >= FRAME:
                self._processing.process_reverse_stream(self._frame(self._far[:FRAME].tobytes(), AUDIO_RATE, 1, FRAME))
                self._far = self._far[FRAME:]

    def near(self, samples: Samples, captured_s: float) -> tuple[Samples, float]:
        """Process recorded samples, the first taken at `captured_s` (monotonic clock). Returns all whole frames, and
        when their first sample was taken."""
        with self._lock:
            first_s = captured_s - len(self._near) / AUDIO_RATE
            waiting = np.concatenate([self._near, samples])
            whole = len(waiting) // FRAME * FRAME
            delay_s = self._playing_s + max(0.0, time.monotonic() - captured_s)
            self._processing.set_stream_delay_ms(min(MAX_DELAY_MS, round(1000 * delay_s)))
            processed = [self._process(waiting[at : at + FRAME]) for at in range(0, whole, FRAME)]
            self._near = waiting[whole:]
        return np.concatenate(processed) if processed else np.zeros(0, np.int16), first_s

    def before(self, listener: Listener) -> Listener:
        """A listener for the microphone that passes the processed samples on."""

        def listen(samples: Samples, captured_s: float) -> None:
            processed, first_s = self.near(samples, captured_s)
            if len(processed):
                listener(processed, first_s)

        return listen

    def _process(self, samples: Samples) -> Samples:
        frame = self._frame(bytearray(samples.tobytes()), AUDIO_RATE, 1, FRAME)
        self._processing.process_stream(frame)
        return np.frombuffer(frame.data, np.int16)
