"""Places a peer's audio packets on the time line of its video, for a recording. Pure: times are arguments, in seconds.

Audio and video have timestamps of unrelated clocks: RTP timestamps with a random origin, and the video sender's stamps.
Their offset follows from the arrivals: an audio packet is sent when its last sample is captured, a motion message when
its last frame is, and the shortest transit time over the same path is the same for both. Packets are held for HOLD_S
before they are placed, because a shorter transit may yet be observed. A better estimate never cuts continuous speech;
it takes effect in the next pause.
"""

from collections import deque

from iwcodec.client.audio.jitter_buffer import AudioRtpPacket
from iwcodec.client.video.jitter_buffer import TimedFrame
from iwcodec.codec.bitstream.packets import AudioPacket
from iwcodec.codec.media.types import AUDIO_RATE

PRE_SKIP = 312
"""Look-ahead of the Opus encoder at 48 kHz, in samples, by which decoded audio lags (RFC 7845, section 4.2)."""
HOLD_S = 2.0
"""Time for which packets are held before they are placed."""
RECORD_S = 1.0
"""Duration of audio after which a record is complete."""
WINDOW_S = 12.0
"""Window over which the shortest transit time is taken: persistent queues are part of the path, and clocks drift."""
TOLERANCE = AUDIO_RATE * 15 // 1000
"""Deviation from the expected position, in samples, up to which packets are joined without a gap."""
CLOCK_JUMP_S = 10.0
"""Increase of the transit time that cannot be queueing: the peer's clock has changed."""
MAX_HELD = 256
"""Maximum number of packets held."""
MAX_SAMPLES = 100_000 * AUDIO_RATE
"""Maximum duration of a recording, in samples."""


class ShortestTransit:
    """Minimum over WINDOW_S of (arrival time on our clock - sending time on the peer's clock)."""

    def __init__(self) -> None:
        self._transits: deque[tuple[float, float]] = deque()

    def add(self, arrived_s: float, transit_s: float) -> None:
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
    """Turns received packets into the audio records of an .iwc file. Gaps between records are silence."""

    def __init__(self) -> None:
        self.end_s = 0.0
        """End of the audio placed so far, on the time line of the recording."""
        self._video_transit, self._audio_transit = ShortestTransit(), ShortestTransit()
        self._held: dict[int, AudioRtpPacket] = {}
        """Packets not yet placed, by timestamp."""
        self._stream: int | None = None
        self._run: list[bytes] = []
        """Contiguous payloads of the record in progress, which covers the samples `_first` to `_end`."""
        self._first = self._end = 0

    def motion(self, frames: list[TimedFrame], arrived_s: float) -> None:
        """Observe the arrival of a motion message."""
        for frame in frames:
            transit_s = arrived_s - frame.stamp_s
            shortest_s = self._video_transit.transit_s
            if shortest_s is not None and transit_s > shortest_s + CLOCK_JUMP_S:
                self._video_transit.clear()
            self._video_transit.add(arrived_s, transit_s)

    def push(self, packet: AudioRtpPacket, start_s: float | None) -> list[AudioPacket]:
        """Add a packet and return the records completed by it.

        `start_s`: stamp at which the recording starts; None before its first frame.
        """
        records: list[AudioPacket] = []
        if packet.stream != self._stream:
            records += self.flush(start_s)
            self._stream = packet.stream
            self._audio_transit.clear()
        captured_s = (packet.timestamp + packet.samples) / AUDIO_RATE
        self._audio_transit.add(packet.arrived_s, packet.arrived_s - captured_s)
        self._held[packet.timestamp] = packet
        for timestamp in sorted(self._held):
            held = self._held[timestamp]
            if held.arrived_s > packet.arrived_s - HOLD_S and len(self._held) <= MAX_HELD:
                break
            del self._held[timestamp]
            records += self._place(held, start_s)
        return records

    def restart(self, start_s: float | None) -> list[AudioPacket]:
        """The peer was restarted, and its clocks with it. Returns the remaining records."""
        records = self.flush(start_s)
        self._video_transit.clear()
        self._audio_transit.clear()
        return records

    def flush(self, start_s: float | None) -> list[AudioPacket]:
        """Place all held packets and return the remaining records."""
        held, self._held = self._held, {}
        records = [record for timestamp in sorted(held) for record in self._place(held[timestamp], start_s)]
        return records + self._complete()

    def _place(self, packet: AudioRtpPacket, start_s: float | None) -> list[AudioPacket]:
        """Append a packet to the record in progress, or start another record after a gap; drop it if it overlaps or
        lies outside the recording."""
        video_s, audio_s = self._video_transit.transit_s, self._audio_transit.transit_s
        if start_s is None or video_s is None or audio_s is None:
            return []
        first = packet.timestamp + round((audio_s - video_s - start_s) * AUDIO_RATE)
        if not 0 <= first < MAX_SAMPLES:
            return []
        records: list[AudioPacket] = []
        if abs(first - self._end) <= TOLERANCE:
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
