"""Sound as it comes out: per peer a jitter buffer on the sender's clock, in step with the picture; and all mixed.

A packet's RTP timestamp (RFC 3550, section 5.1) says when its first sample was taken. What arrives soonest of late
gives the path's shortest transit; sample by sample, playing follows the timestamps at a fixed wait behind that, so that
losses and silences (DTX) leave no trace in the timing. Lost packets are recovered from the next one's copy (RFC 6716,
section 2.1.7) or concealed. Where the wait must change, pauses are shortened or drawn out, and failing that whole pitch
periods.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from iwcodec.client.audio.opus import LARGEST, OpusDecoder, packet_samples
from iwcodec.codec.errors import CodecError, FormatError
from iwcodec.codec.media.types import AUDIO_RATE, Samples

AHEAD_S, BEHIND_S = 0.004, 0.015
"""Playing may be off its time by so much before it is corrected; ahead of it, packets would come too late."""
LEAP_S: Final = 0.4
"""Off by more, it leaps."""
MAX_WAIT_S: Final = 1.5
FOLLOWED_S: Final = 0.4
"""Sound does not wait longer than this for the picture: nobody can talk with such a delay (ITU-T G.114). Up to there
the two are in step; of pictures that are later sound goes ahead."""
MARGIN_S: Final = 0.01
SPREAD: Final = 98.0
"""Percentile of the packets' lateness that is waited for."""
RECENT: Final = 100
"""Packets that the shortest transit and the lateness are taken from."""
MAX_PACKETS: Final = 64
WILD_S: Final = 10.0
"""A timestamp further from the others than this begins a new stream."""
CONCEALED_S: Final = 1.0
"""Without any packet, after which there is silence."""
QUIET: Final = 60.0
"""Root mean square of samples that may be cut or repeated freely."""
BLOCK: Final = AUDIO_RATE * 20 // 1000
_STEP = AUDIO_RATE // 400  # 2.5 ms: Opus makes multiples of that


@dataclass(frozen=True)
class Received:
    """A packet of a peer's sound."""

    stream: int
    """Timestamps go on within one."""
    timestamp: int
    """Of its first sample, unwrapped."""
    samples: int
    payload: bytes
    arrived_s: float


class Playout:
    """The sound of one peer. `push` and `follow` come from the event loop, `pull` from the sound card's thread."""

    def __init__(self) -> None:
        self.counts = {"played": 0, "recovered": 0, "late": 0, "malformed": 0}
        """Packets so far."""
        self.concealed_s = 0.0
        """Seconds of sound made up because nothing came, pauses not included where the sender announced them."""
        self.recording: Callable[[Received], None] | None = None
        """Told of every good packet as it comes."""
        self._lock = threading.Lock()
        self._picture_s = 0.0
        self._stream = 0
        self._ssrc: int | None = None
        self._begin()

    def _begin(self) -> None:
        self._stream += 1
        self._decoder = OpusDecoder()
        self._packets: dict[int, tuple[int, bytes]] = {}
        self._latest: tuple[int, int] | None = None
        self._transits: deque[float] = deque(maxlen=RECENT)
        self._position: int | None = None
        self._sequence = 0
        self._length = BLOCK
        self._missing = 0
        self._reached = 0
        self._ready = np.zeros(0, np.int16)

    def follow(self, wait_s: float) -> None:
        """A picture is shown so long after its message could have arrived at the soonest. So is the sound; but its
        packets start on their way only when their last sample is there, and need not wait for that again."""
        self._picture_s = min(max(wait_s, 0.0), FOLLOWED_S)

    @property
    def wait_s(self) -> float:
        """Between the soonest possible arrival of a packet and its being played."""
        if not self._transits:
            return self._picture_s
        late = float(np.percentile(self._transits, SPREAD)) - min(self._transits)
        return max(self._picture_s - self._length / AUDIO_RATE, min(late + MARGIN_S, MAX_WAIT_S))

    def push(self, ssrc: int, sequence: int, timestamp: int, payload: bytes, arrived_s: float) -> None:
        """An RTP packet's fields, as they are on the wire, and when it came (monotonic). Malformed ones are counted."""
        with self._lock:
            received = self._received(ssrc, sequence, timestamp, payload, arrived_s)
        if received is not None and self.recording is not None:
            self.recording(received)

    def _received(self, ssrc: int, sequence: int, timestamp: int, payload: bytes, arrived_s: float) -> Received | None:
        if ssrc != self._ssrc:
            self._ssrc = ssrc
            self._begin()
        try:
            length = packet_samples(payload) if 0 < len(payload) <= LARGEST else 0
        except FormatError:
            length = 0
        if not length:
            self.counts["malformed"] += 1
            return None
        sequence, timestamp = self._unwrap(sequence, timestamp)
        if len(self._packets) >= MAX_PACKETS:
            del self._packets[min(self._packets)]
        self._packets[timestamp] = (sequence, payload)
        self._transits.append(arrived_s - timestamp / AUDIO_RATE)
        self._length = length
        return Received(self._stream, timestamp, length, payload, arrived_s)

    def pull(self, count: int, at_s: float) -> Samples:
        """The next `count` samples, the first of which will be heard at `at_s` (monotonic)."""
        with self._lock:
            ready = self._ready
            while len(ready) < count:
                ready = np.concatenate([ready, self._next(at_s + len(ready) / AUDIO_RATE, count - len(ready))])
            self._ready = ready[count:]
            return ready[:count]

    def _unwrap(self, sequence: int, timestamp: int) -> tuple[int, int]:
        """16 and 32 bits to whole numbers that go on."""
        if self._latest is not None:
            last_sequence, last = self._latest
            sequence = last_sequence + (sequence - last_sequence + 0x8000) % 0x1_0000 - 0x8000
            moved = (timestamp - last + 0x8000_0000) % 0x1_0000_0000 - 0x8000_0000
            if abs(moved) > WILD_S * AUDIO_RATE:
                self._begin()
            else:
                timestamp = last + moved
        if self._latest is None or timestamp > self._latest[1]:
            self._latest = sequence, timestamp
        return sequence, timestamp

    def _next(self, at_s: float, wanted: int) -> Samples:
        """Some samples, at least one, for the instant `at_s`."""
        if not self._transits:
            return np.zeros(wanted, np.int16)
        due = (at_s - min(self._transits) - self.wait_s) * AUDIO_RATE
        if self._position is None or abs(due - self._position) > LEAP_S * AUDIO_RATE:
            first = min((t for t in self._packets if t >= due - self._length), default=None)
            if first is None or first > due:
                self._position = None
                return np.zeros(
                    min(wanted, BLOCK) if first is None else max(1, min(wanted, int(first - due))), np.int16
                )
            self._position = first
        behind = int(due - self._position)
        return self._in_time(self._sound(self._position), behind)

    def _sound(self, position: int) -> Samples:
        """What belongs at `position`; moves on behind it. What came just too late is played all the same, a little
        late: pauses make up for it."""
        if self._missing and (
            missed := [t for t in self._packets if self._reached <= t < position <= t + self._length]
        ):
            position = missed[0]
        for late in [t for t in self._packets if t < position]:
            del self._packets[late]
            self.counts["late"] += 1
        found = self._packets.pop(position, None)
        if found is not None:
            samples = self._decoded(found[1])
            self._sequence, self._missing = found[0], 0
            self._reached = position + len(samples)
        else:
            samples = self._replaced(position)
        self._position = position + len(samples)
        return samples

    def _decoded(self, payload: bytes) -> Samples:
        try:
            samples = self._decoder.decode(payload)
            self.counts["played"] += 1
            return samples
        except FormatError:
            self.counts["malformed"] += 1
            return np.zeros(self._length, np.int16)

    def _replaced(self, position: int) -> Samples:
        following = min(self._packets, default=None)
        gap = BLOCK if following is None else following - position
        if following is not None and gap < _STEP:
            return np.zeros(gap, np.int16)
        if following is not None and gap == self._length and self._packets[following][0] != self._sequence + 1:
            self.counts["recovered"] += 1
            self._sequence += 1
            self._reached = following
            try:
                return self._decoder.recover(self._packets[following][1], gap)
            except FormatError:
                self.counts["malformed"] += 1
                return self._decoder.conceal(gap)
        count = min(gap, BLOCK) // _STEP * _STEP
        self._missing += count
        if self._missing > CONCEALED_S * AUDIO_RATE:
            return np.zeros(count, np.int16)
        if following is None or self._packets[following][0] != self._sequence + 1:
            self.concealed_s += count / AUDIO_RATE
        return self._decoder.conceal(count)

    def _in_time(self, samples: Samples, behind: int) -> Samples:
        """The samples, shorter where playing is behind its time, longer where it is ahead."""
        if -AHEAD_S * AUDIO_RATE <= behind <= BEHIND_S * AUDIO_RATE:
            return samples
        quiet = self._missing > 0 or float(np.sqrt(np.mean(np.square(samples, dtype=np.float32)))) < QUIET
        if quiet and behind > 0:
            return samples[min(behind, len(samples) - _STEP) :] if len(samples) > _STEP else samples
        if quiet:
            return np.concatenate([samples, np.zeros(min(-behind, BLOCK), np.int16)])
        return splice(samples, longer=behind < 0)


def splice(samples: Samples, longer: bool) -> Samples:
    """The same sound with one pitch period (2.5 to 12 ms) repeated or left out, cross-faded where it fits best."""
    shortest, longest = AUDIO_RATE // 400, AUDIO_RATE * 12 // 1000
    fade = AUDIO_RATE // 200
    if len(samples) < longest + fade:
        return samples
    sound = samples.astype(np.float32)
    head = sound[:fade]
    lags = range(shortest, longest, 12)
    windows = np.stack([sound[lag : lag + fade] for lag in lags])
    fit = windows @ head / (np.linalg.norm(windows, axis=1) * np.linalg.norm(head) + 1.0)
    lag = lags[int(np.argmax(fit))]
    ramp = np.linspace(0.0, 1.0, fade, dtype=np.float32)
    if longer:
        # ... up to `lag`, then again from the beginning.
        mixed = sound[lag : lag + fade] * (1 - ramp) + head * ramp
        joined = np.concatenate([sound[:lag], mixed, sound[fade:]])
    else:
        mixed = head * (1 - ramp) + sound[lag : lag + fade] * ramp
        joined = np.concatenate([mixed, sound[lag + fade :]])
    return np.asarray(joined.round().clip(-32768, 32767), np.int16)


class Speaker:
    """The mix of everyone. This one is heard by nobody: a clock takes the place of the sound card."""

    def __init__(self) -> None:
        self._playouts: list[Playout] = []
        self.listeners: list[Callable[[Samples, float], None]] = []
        """Called, on the speaker's thread, with every block and the monotonic time it is heard."""
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, playout: Playout) -> None:
        self._playouts = [*self._playouts, playout]

    def remove(self, playout: Playout) -> None:
        self._playouts = [other for other in self._playouts if other is not playout]

    def mix(self, count: int, at_s: float) -> Samples:
        """int16 mono; louder than that is clipped."""
        total = np.zeros(count, np.int32)
        for playout in self._playouts:
            total += playout.pull(count, at_s)
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


class SoundCard(Speaker):
    """The default output device, through PortAudio. Raises CodecError where there is none."""

    def start(self) -> None:
        sounddevice = load_sounddevice()

        def fill(out: Any, count: int, times: Any, _: Any) -> None:
            ahead = times.outputBufferDacTime - times.currentTime
            out[:, 0] = self.mix(count, time.monotonic() + (ahead if 0 <= ahead < 1 else 0.0))

        try:
            self._stream = sounddevice.OutputStream(
                AUDIO_RATE, BLOCK, channels=1, dtype="int16", latency="low", callback=fill
            )
            self._stream.start()
        except Exception as error:  # PortAudioError, which cannot be named where the import failed
            raise CodecError(f"Sound cannot be played: {error}.") from error

    def stop(self) -> None:
        self._stream.stop()
        self._stream.close()


def load_sounddevice() -> Any:
    """Raises CodecError, with the command that mends it, where it is not installed or finds no PortAudio."""
    try:
        import sounddevice
    except ImportError as error:
        raise CodecError("To hear the others, install sounddevice: pip install sounddevice.") from error
    except OSError as error:
        raise CodecError("To hear the others, install PortAudio (Debian: apt install libportaudio2).") from error
    return sounddevice


def open_speaker(headless: bool) -> tuple[Speaker, str | None]:
    """A speaker that has been started, and what to tell the user where nothing will be heard."""
    if not headless:
        card = SoundCard()
        try:
            card.start()
            return card, None
        except CodecError as error:
            told = str(error)
    speaker = Speaker()
    speaker.start()
    return speaker, None if headless else told
