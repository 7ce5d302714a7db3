"""A peer's sound on the clock of its pictures, for a recording. Pure: time is passed in, in seconds.

Sound and pictures come with times of different clocks: RTP timestamps, whose origin is random, and the feed's stamps.
What arrives soonest tells them apart: a packet of sound leaves when its last sample is there, a message of motion when
its last frame is, and over the same path the quickest of either take equally long. Packets are held for a while before
they are placed, for the quickest may be yet to come. Speech that goes on is never cut for a better estimate: it is
corrected in the next pause.
"""

from collections import deque

from iwcodec.client.audio.jitter_buffer import Received
from iwcodec.client.video.jitter_buffer import TimedFrame
from iwcodec.codec.bitstream.packets import AudioPacket
from iwcodec.codec.media.types import AUDIO_RATE

PRE_SKIP = 312
"""Samples: the delay of Opus at 48 kHz, by which what is decoded lies behind its timestamp."""
HOLD_S = 2.0
RECORD_S = 1.0
"""Sound in one record, at most."""
WINDOW_S = 12.0
"""How long an arrival counts as the quickest: a queue that stays is part of the path, and clocks drift."""
SLACK = AUDIO_RATE * 15 // 1000
"""Samples by which sound may be off its place before it is moved there."""
ANOTHER_S = 10.0
"""No message takes so much longer than others: the peer has another clock."""
MAX_HELD = 256
LONGEST = 100_000 * AUDIO_RATE
"""Samples of a recording."""


class Quickest:
    """The shortest transit of late, as the difference of two clocks."""

    def __init__(self) -> None:
        self._transits: deque[tuple[float, float]] = deque()

    def learn(self, arrived_s: float, transit_s: float) -> None:
        while self._transits and self._transits[0][0] < arrived_s - WINDOW_S:
            self._transits.popleft()
        while self._transits and self._transits[-1][1] >= transit_s:
            self._transits.pop()
        self._transits.append((arrived_s, transit_s))

    @property
    def transit_s(self) -> float | None:
        return self._transits[0][1] if self._transits else None

    def clear(self) -> None:
        self._transits.clear()


class Soundtrack:
    """Packets as they come, records of an .iwc file out. What is missing between records is silence there."""

    def __init__(self) -> None:
        self.end_s = 0.0
        """Where the sound ends that has been given out."""
        self._pictures, self._sound = Quickest(), Quickest()
        self._held: dict[int, Received] = {}
        self._stream: int | None = None
        self._run: list[bytes] = []
        self._first = self._end = 0

    def motion(self, frames: list[TimedFrame], arrived_s: float) -> None:
        """Frames of a message."""
        for frame in frames:
            transit_s = arrived_s - frame.stamp_s
            if self._pictures.transit_s is not None and transit_s > self._pictures.transit_s + ANOTHER_S:
                self._pictures.clear()
            self._pictures.learn(arrived_s, transit_s)

    def push(self, packet: Received, start_s: float | None) -> list[AudioPacket]:
        """The records that can be written now. `start_s`: where the recording begins, on the clock of the pictures'
        stamps; None while it has not."""
        records: list[AudioPacket] = []
        if packet.stream != self._stream:
            records += self.rest(start_s)
            self._stream = packet.stream
            self._sound.clear()
        ends_s = (packet.timestamp + packet.samples) / AUDIO_RATE
        self._sound.learn(packet.arrived_s, packet.arrived_s - ends_s)
        self._held[packet.timestamp] = packet
        for timestamp in sorted(self._held):
            held = self._held[timestamp]
            if held.arrived_s > packet.arrived_s - HOLD_S and len(self._held) <= MAX_HELD:
                break
            del self._held[timestamp]
            records += self._place(held, start_s)
        return records

    def rest(self, start_s: float | None) -> list[AudioPacket]:
        """All that is still held."""
        held, self._held = self._held, {}
        records = [record for timestamp in sorted(held) for record in self._place(held[timestamp], start_s)]
        return records + self._complete()

    def _place(self, packet: Received, start_s: float | None) -> list[AudioPacket]:
        pictures_s, sound_s = self._pictures.transit_s, self._sound.transit_s
        if start_s is None or pictures_s is None or sound_s is None:
            return []
        first = packet.timestamp + round((sound_s - pictures_s - start_s) * AUDIO_RATE)
        if not 0 <= first < LONGEST:
            return []
        records: list[AudioPacket] = []
        if abs(first - self._end) <= SLACK:
            first = self._end
        elif first < self._end:
            return []
        else:
            records = self._complete()
        if not self._run:
            self._first = first
        self._run.append(packet.payload)
        self._end = first + packet.samples
        self.end_s = self._end / AUDIO_RATE
        return records + (self._complete() if self._end - self._first >= RECORD_S * AUDIO_RATE else [])

    def _complete(self) -> list[AudioPacket]:
        run, self._run = self._run, []
        return [AudioPacket(self._first, tuple(run))] if run else []
