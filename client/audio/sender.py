"""Outgoing audio: encodes the microphone once with Opus and gives the packets to one WebRTC track per peer (RFC 7587).

aiortc's own encoder makes 20 ms stereo packets at 96 kbit/s. A track can also return encoded packets, which aiortc
sends unmodified; so a single encoder serves all peers, and pauses (DTX) are not sent at all.
"""

import asyncio
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Final

import av
import numpy as np
from aiortc import MediaStreamTrack

from iwcodec.codec.media.audio.opus import MAX_DTX_BYTES, OpusEncoder
from iwcodec.codec.media.types import AUDIO_RATE, Samples

PACKET_MS: Final = 60
"""Duration of a packet."""
BITRATE: Final = 8_500
"""Bit rate requested from Opus, in bits/s. On continuous speech it spends 7 to 8 kbit/s, or 14 to 15 on the wire."""
CONGESTED_BITRATE: Final = 8_000
"""Bit rate while video and audio queue on the way to a peer, in bits/s."""
LOSSY_SETTINGS: Final = (16_000, 25)
"""Bit rate (bits/s) and expected loss (percent) with which Opus adds a copy of each packet to the next one (LBRR)."""
LOSSY: Final = 0.03
"""Packet loss reported by a peer, 0..1, above which LOSSY_SETTINGS apply, until CALM_REPORTS reports of less than a
third of it."""
CALM_REPORTS: Final = 10
"""Number of reports, one per second, without loss or congestion after which the normal settings return."""
MAX_CLOCK_DRIFT_S: Final = 0.04
"""Difference between capture clock and sample count above which timestamps jump to the capture clock."""
MAX_HOLD_S: Final = 2.0
"""Maximum time after connecting for which audio waits for the first picture. Over a link of 30 kbit/s audio would take
half of the capacity and delay the picture by a third."""
MAX_QUEUED: Final = 2
"""Packets queued for a connection that is not up or slow; the oldest are dropped, as they would arrive too late."""


class AudioSender:
    """Encodes captured samples and sends the packets to all tracks."""

    def __init__(self, bitrate: int = BITRATE, packet_ms: int = PACKET_MS) -> None:
        self._encoder = OpusEncoder(bitrate, packet_ms)
        self._bitrate = bitrate
        self._reports_since_loss = self._reports_since_congestion = CALM_REPORTS
        self._tracks: list[OpusTrack] = []
        self._pending = np.zeros(0, np.int16)
        """Samples of the packet that is being filled."""
        self._timestamp: int | None = None
        """RTP timestamp of the first pending sample: capture time in samples."""
        self._muted = False
        self.bytes = 0
        """Bytes of Opus packets sent to each peer so far."""

    def mute(self, on: bool) -> None:
        """Encode silence, which costs almost nothing (DTX)."""
        self._muted = on

    @property
    def robust(self) -> bool:
        """Whether packets carry copies against losses. Not under congestion, which more bytes would only increase."""
        return self._reports_since_loss < CALM_REPORTS and not self.congested

    @property
    def congested(self) -> bool:
        """Whether congestion was reported within the last CALM_REPORTS reports."""
        return self._reports_since_congestion < CALM_REPORTS

    def report(self, loss: float, congested: bool = False) -> None:
        """Adapt bit rate and redundancy; call about once per second.

        `loss`: highest recent packet loss of any peer, 0..1. `congested`: whether packets queue on the way to a peer.
        """
        previous = self._settings()
        self._reports_since_congestion = 0 if congested else min(self._reports_since_congestion + 1, CALM_REPORTS)
        if loss >= LOSSY and not self.congested:
            self._reports_since_loss = 0
        else:
            self._reports_since_loss = min(self._reports_since_loss + (loss < LOSSY / 3), CALM_REPORTS)
        if self._settings() != previous:
            self._encoder.adapt(*self._settings())

    def _settings(self) -> tuple[int, int]:
        """Bit rate in bits/s and expected loss in percent."""
        if self.congested:
            return min(CONGESTED_BITRATE, self._bitrate), 0
        return LOSSY_SETTINGS if self.robust else (self._bitrate, 0)

    def push(self, samples: Samples, captured_s: float) -> None:
        """Add captured samples (int16, mono, 48 kHz), the first taken at `captured_s` (monotonic clock).

        Belongs to the event loop.
        """
        timestamp = round(captured_s * AUDIO_RATE) - len(self._pending)
        if self._timestamp is None or abs(timestamp - self._timestamp) > MAX_CLOCK_DRIFT_S * AUDIO_RATE:
            self._timestamp = timestamp
        self._pending = np.concatenate([self._pending, np.zeros_like(samples) if self._muted else samples])
        count = self._encoder.packet_samples
        while len(self._pending) >= count:
            packet = self._encoder.encode(self._pending[:count])
            self._pending = self._pending[count:]
            if len(packet) > MAX_DTX_BYTES:
                self._send(packet, self._timestamp)
            self._timestamp += count

    def track(self) -> "OpusTrack":
        """A new track for one peer connection."""
        track = OpusTrack(self)
        self._tracks.append(track)
        return track

    def remove(self, track: "OpusTrack") -> None:
        if track in self._tracks:
            self._tracks.remove(track)

    def _send(self, payload: bytes, timestamp: int) -> None:
        self.bytes += len(payload)
        for track in self._tracks:
            track.put(payload, timestamp)


class OpusTrack(MediaStreamTrack):
    """Track of one peer connection, which returns encoded Opus packets."""

    kind = "audio"

    def __init__(self, audio_sender: AudioSender) -> None:
        super().__init__()
        self.waits: Callable[[], bool] = lambda: False
        """Whether the first picture has yet to be sent, for which audio waits."""
        self.connected_s: float | None = None
        """When the connection came up (monotonic clock)."""
        self._sender = audio_sender
        self._queue: asyncio.Queue[av.Packet] = asyncio.Queue()

    def put(self, payload: bytes, timestamp: int) -> None:
        """Queue an Opus packet, or drop it while the first picture has priority."""
        is_early = self.connected_s is None or time.monotonic() - self.connected_s < MAX_HOLD_S
        if is_early and self.waits():
            return
        packet = av.Packet(payload)
        packet.pts, packet.time_base = timestamp, Fraction(1, AUDIO_RATE)
        while self._queue.qsize() >= MAX_QUEUED:
            self._queue.get_nowait()
        self._queue.put_nowait(packet)

    async def recv(self) -> av.Packet:
        return await self._queue.get()

    def stop(self) -> None:
        super().stop()
        self._sender.remove(self)
