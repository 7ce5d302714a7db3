"""Jitter buffer for one peer's audio: reordering, loss recovery, concealment and time stretching, in sync with video.

An RTP timestamp (RFC 3550, section 5.1) is the capture time of the packet's first sample. The minimum of (arrival time
- timestamp) over recent packets stands for the shortest transit time; each sample is played a fixed delay after the
instant at which it could have arrived at the earliest. Playout thus follows the timestamps, and neither losses nor
pauses of the sender (DTX) shift it. Lost packets are recovered from the forward error correction in the next packet
(RFC 6716, section 2.1.7) or concealed. When the delay changes, pauses are shortened or extended; in continuous speech,
single pitch periods are removed or repeated.
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from iwcodec.codec.bitstream.packets import MAX_OPUS_BYTES
from iwcodec.codec.errors import FormatError
from iwcodec.codec.media.audio.opus import OpusDecoder, packet_samples
from iwcodec.codec.media.types import AUDIO_RATE, Samples

MAX_AHEAD_S, MAX_BEHIND_S = 0.004, 0.015
"""Timing errors of the playout that are tolerated without time stretching. Ahead of time is worse: packets then arrive
too late."""
RESYNC_S: Final = 0.4
"""Timing error above which the playout jumps instead of stretching."""
MAX_DELAY_S: Final = 1.5
"""Maximum delay for late packets."""
MAX_VIDEO_DELAY_S: Final = 0.4
"""Maximum delay for lip synchronisation. Longer delays make conversation impossible (ITU-T G.114), so audio runs ahead
of video that is later."""
MARGIN_S: Final = 0.01
"""Added to the lateness that the buffer waits for."""
LATENESS_PERCENTILE: Final = 98.0
"""Percentile of recent packets' lateness that the buffer waits for."""
HISTORY: Final = 100
"""Recent packets from which the shortest transit time and the lateness are computed."""
MAX_PACKETS: Final = 64
"""Packets in the buffer; the oldest are discarded."""
MAX_TIMESTAMP_JUMP_S: Final = 10.0
"""A timestamp that differs by more from the last one starts a new stream."""
MAX_CONCEALMENT_S: Final = 1.0
"""Time without packets after which concealment gives way to silence."""
QUIET_RMS: Final = 60.0
"""Root mean square, in int16 steps, below which samples count as a pause and can be cut or extended."""
BLOCK: Final = AUDIO_RATE * 20 // 1000
"""Samples in a block of 20 ms."""
_STEP = AUDIO_RATE // 400  # 2.5 ms: Opus frames are multiples of it


@dataclass(frozen=True)
class AudioRtpPacket:
    """A received packet of audio."""

    stream: int
    """Number of the stream; timestamps of different streams are unrelated."""
    timestamp: int
    """RTP timestamp of its first sample, unwrapped."""
    samples: int
    payload: bytes
    arrived_s: float
    """Arrival time on the monotonic clock."""


class AudioJitterBuffer:
    """Audio of one peer. Call `push` and `set_min_delay` on the event loop and `pull` on the sound card's thread."""

    def __init__(self) -> None:
        self.counts = {"played": 0, "recovered": 0, "late": 0, "malformed": 0}
        """Packets so far, by what became of them."""
        self.concealed_s = 0.0
        """Seconds of concealed audio, without pauses that the sender announced."""
        self.packet_listener: Callable[[AudioRtpPacket], None] | None = None
        """Called with every well-formed packet on arrival."""
        self._lock = threading.Lock()
        self._video_delay_s = 0.0
        self._stream = 0
        self._ssrc: int | None = None
        self._reset()

    def _reset(self) -> None:
        """Start a new stream."""
        self._stream += 1
        self._decoder = OpusDecoder()
        self._packets: dict[int, tuple[int, bytes]] = {}
        """(sequence number, payload) by timestamp."""
        self._latest: tuple[int, int] | None = None
        """Latest sequence number and timestamp, unwrapped."""
        self._transits: deque[float] = deque(maxlen=HISTORY)
        self._position: int | None = None
        """Timestamp of the next sample to decode; None before playout starts."""
        self._sequence = 0
        self._length = BLOCK
        """Samples in the latest packet."""
        self._missing = 0
        """Samples concealed since the last packet."""
        self._decoded_end = 0
        """Timestamp at the end of the last packet decoded or recovered."""
        self._ready = np.zeros(0, np.int16)

    def set_min_delay(self, delay_s: float) -> None:
        """Synchronise with the video, which is displayed `delay_s` after the earliest possible arrival of its message.

        A packet of audio is sent only after its last sample, so its duration is part of that delay already.
        """
        self._video_delay_s = min(max(delay_s, 0.0), MAX_VIDEO_DELAY_S)

    @property
    def delay_s(self) -> float:
        """Time between the earliest possible arrival of a packet and its playout, in seconds."""
        if not self._transits:
            return self._video_delay_s
        lateness = float(np.percentile(self._transits, LATENESS_PERCENTILE)) - min(self._transits)
        return max(self._video_delay_s - self._length / AUDIO_RATE, min(lateness + MARGIN_S, MAX_DELAY_S))

    def push(self, ssrc: int, sequence: int, timestamp: int, payload: bytes, arrived_s: float) -> None:
        """Add an RTP packet by its header fields as on the wire and its arrival time (monotonic clock, seconds).

        Malformed packets are counted and dropped.
        """
        with self._lock:
            packet = self._insert(ssrc, sequence, timestamp, payload, arrived_s)
        if packet is not None and self.packet_listener is not None:
            self.packet_listener(packet)

    def _insert(
        self, ssrc: int, sequence: int, timestamp: int, payload: bytes, arrived_s: float
    ) -> AudioRtpPacket | None:
        if ssrc != self._ssrc:
            self._ssrc = ssrc
            self._reset()
        try:
            length = packet_samples(payload) if 0 < len(payload) <= MAX_OPUS_BYTES else 0
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
        return AudioRtpPacket(self._stream, timestamp, length, payload, arrived_s)

    def pull(self, count: int, at_s: float) -> Samples:
        """The next `count` samples (int16, mono, 48 kHz); the first one is heard at `at_s` (monotonic clock)."""
        with self._lock:
            ready = self._ready
            while len(ready) < count:
                ready = np.concatenate([ready, self._next(at_s + len(ready) / AUDIO_RATE, count - len(ready))])
            self._ready = ready[count:]
            return ready[:count]

    def _unwrap(self, sequence: int, timestamp: int) -> tuple[int, int]:
        """Extend the 16-bit sequence number and the 32-bit timestamp to integers that do not wrap."""
        if self._latest is not None:
            last_sequence, last = self._latest
            sequence = last_sequence + (sequence - last_sequence + 0x8000) % 0x1_0000 - 0x8000
            difference = (timestamp - last + 0x8000_0000) % 0x1_0000_0000 - 0x8000_0000
            if abs(difference) > MAX_TIMESTAMP_JUMP_S * AUDIO_RATE:
                self._reset()
            else:
                timestamp = last + difference
        if self._latest is None or timestamp > self._latest[1]:
            self._latest = sequence, timestamp
        return sequence, timestamp

    def _next(self, at_s: float, count: int) -> Samples:
        """At least one sample for the instant `at_s`; about `count` while nothing is played."""
        if not self._transits:
            return np.zeros(count, np.int16)
        due = (at_s - min(self._transits) - self.delay_s) * AUDIO_RATE
        if self._position is None or abs(due - self._position) > RESYNC_S * AUDIO_RATE:
            first = min((t for t in self._packets if t >= due - self._length), default=None)
            if first is None or first > due:
                self._position = None
                silence = min(count, BLOCK) if first is None else max(1, min(count, int(first - due)))
                return np.zeros(silence, np.int16)
            self._position = first
        behind = int(due - self._position)
        return self._stretch(self._decode_at(self._position), behind)

    def _decode_at(self, position: int) -> Samples:
        """Decode, recover or conceal the samples at `position`, and advance the position past them.

        A packet that arrives after its time has been concealed is still played if it is the next one; pauses make up
        for the delay.
        """
        if self._missing and (
            overtaken := [t for t in self._packets if self._decoded_end <= t < position <= t + self._length]
        ):
            position = overtaken[0]
        for late in [t for t in self._packets if t < position]:
            del self._packets[late]
            self.counts["late"] += 1
        packet = self._packets.pop(position, None)
        if packet is not None:
            samples = self._decode(packet[1])
            self._sequence, self._missing = packet[0], 0
            self._decoded_end = position + len(samples)
        else:
            samples = self._recover_or_conceal(position)
        self._position = position + len(samples)
        return samples

    def _decode(self, payload: bytes) -> Samples:
        try:
            samples = self._decoder.decode(payload)
            self.counts["played"] += 1
            return samples
        except FormatError:
            self.counts["malformed"] += 1
            return np.zeros(self._length, np.int16)

    def _recover_or_conceal(self, position: int) -> Samples:
        """Samples for a gap: from the forward error correction of the next packet if exactly one packet is missing,
        otherwise concealment, and silence after MAX_CONCEALMENT_S."""
        following = min(self._packets, default=None)
        gap = BLOCK if following is None else following - position
        if following is not None and gap < _STEP:
            return np.zeros(gap, np.int16)
        if following is not None and gap == self._length and self._packets[following][0] != self._sequence + 1:
            self.counts["recovered"] += 1
            self._sequence += 1
            self._decoded_end = following
            try:
                return self._decoder.recover(self._packets[following][1], gap)
            except FormatError:
                self.counts["malformed"] += 1
                return self._decoder.conceal(gap)
        count = min(gap, BLOCK) // _STEP * _STEP
        self._missing += count
        if self._missing > MAX_CONCEALMENT_S * AUDIO_RATE:
            return np.zeros(count, np.int16)
        if following is None or self._packets[following][0] != self._sequence + 1:  # a loss, not a pause (DTX)
            self.concealed_s += count / AUDIO_RATE
        return self._decoder.conceal(count)

    def _stretch(self, samples: Samples, behind: int) -> Samples:
        """Shorten the samples if playout is `behind` its schedule by that many samples, extend them if it is ahead."""
        if -MAX_AHEAD_S * AUDIO_RATE <= behind <= MAX_BEHIND_S * AUDIO_RATE:
            return samples
        quiet = self._missing > 0 or float(np.sqrt(np.mean(np.square(samples, dtype=np.float32)))) < QUIET_RMS
        if quiet and behind > 0:
            return samples[min(behind, len(samples) - _STEP) :] if len(samples) > _STEP else samples
        if quiet:
            return np.concatenate([samples, np.zeros(min(-behind, BLOCK), np.int16)])
        return stretch_pitch_period(samples, longer=behind < 0)


def stretch_pitch_period(samples: Samples, longer: bool) -> Samples:
    """Repeat (`longer`) or remove one pitch period of 2.5 to 12 ms, cross-faded over 5 ms where it matches best.

    Signals shorter than 17 ms are returned unmodified.
    """
    shortest, longest = AUDIO_RATE // 400, AUDIO_RATE * 12 // 1000
    fade = AUDIO_RATE // 200
    if len(samples) < longest + fade:
        return samples
    signal = samples.astype(np.float32)
    head = signal[:fade]
    lags = range(shortest, longest, 12)
    windows = np.stack([signal[lag : lag + fade] for lag in lags])
    correlation = windows @ head / (np.linalg.norm(windows, axis=1) * np.linalg.norm(head) + 1.0)
    lag = lags[int(np.argmax(correlation))]
    ramp = np.linspace(0.0, 1.0, fade, dtype=np.float32)
    if longer:
        # Play up to `lag`, then again from the start.
        mixed = signal[lag : lag + fade] * (1 - ramp) + head * ramp
        joined = np.concatenate([signal[:lag], mixed, signal[fade:]])
    else:
        mixed = head * (1 - ramp) + signal[lag : lag + fade] * ramp
        joined = np.concatenate([mixed, signal[lag + fade :]])
    return np.asarray(joined.round().clip(-32768, 32767), np.int16)
