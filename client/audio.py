"""Sound on its way out: an ordinary WebRTC Opus track (RFC 7587), and the tap that takes the others' from aiortc.

aiortc's own encoder makes 20 ms stereo packets at 96 kbps; but a track may also hand over packets that are encoded
already, which aiortc then sends as they are. So one encoder serves all peers, and pauses (DTX) are simply not sent.
"""

import asyncio
import time
from fractions import Fraction
from typing import Any, Final

import av
import numpy as np
from aiortc import MediaStreamTrack, RTCPeerConnection, RTCRtpReceiver

from ..media import AUDIO_RATE, Samples
from .opus import SILENT, OpusEncoder
from .playout import Playout

PACKET_MS: Final = 60
BITRATE: Final = 12_000
"""Bits a second asked of Opus, which spends less. At 10,000 it turns from wideband to narrowband."""
ROBUST: Final = (16_000, 25)
"""Bits a second, and the loss told to Opus, from which it adds a copy of each packet to the next one."""
LOSSY: Final = 0.03
"""Share of packets lost, as a peer reports it, at which that begins; it ends after CALM reports of under a third."""
CALM: Final = 10
SLACK_S: Final = 0.04
"""How far the capture clock may run away from the number of samples before timestamps are set anew."""
WAITING: Final = 2
"""Packets that may wait for a connection that is not up or slow; the oldest are dropped, for they would be late."""


class Microphone:
    """Takes samples as they are captured and gives every peer's track the same packets."""

    def __init__(self, bitrate: int = BITRATE, packet_ms: int = PACKET_MS) -> None:
        self._encoder = OpusEncoder(bitrate, packet_ms)
        self._bitrate = bitrate
        self._calm = CALM
        self._tracks: list[Track] = []
        self._waiting = np.zeros(0, np.int16)
        self._stamp: int | None = None
        self._muted = False
        self.bytes = 0
        """Encoded so far, of all that is sent to each peer."""

    def mute(self, on: bool) -> None:
        """Silence, which costs next to nothing."""
        self._muted = on

    @property
    def robust(self) -> bool:
        """Whether each packet carries a copy of the one before."""
        return self._calm < CALM

    def report(self, lost: float) -> None:
        """What the worst peer lost of late, 0..1; about once a second."""
        was = self.robust
        self._calm = 0 if lost >= LOSSY else min(self._calm + (lost < LOSSY / 3), CALM)
        if self.robust != was:
            self._encoder.adapt(*(ROBUST if self.robust else (self._bitrate, 0)))

    def push(self, samples: Samples, captured_s: float) -> None:
        """Mono samples at 48 kHz, the first taken at `captured_s` (monotonic). Belongs to the event loop."""
        wanted = round(captured_s * AUDIO_RATE) - len(self._waiting)
        if self._stamp is None or abs(wanted - self._stamp) > SLACK_S * AUDIO_RATE:
            self._stamp = wanted
        self._waiting = np.concatenate([self._waiting, np.zeros_like(samples) if self._muted else samples])
        count = self._encoder.packet_samples
        while len(self._waiting) >= count:
            packet = self._encoder.encode(self._waiting[:count])
            self._waiting = self._waiting[count:]
            if len(packet) > SILENT:
                self._send(packet, self._stamp)
            self._stamp += count

    def track(self) -> "Track":
        track = Track(self)
        self._tracks.append(track)
        return track

    def forget(self, track: "Track") -> None:
        if track in self._tracks:
            self._tracks.remove(track)

    def _send(self, payload: bytes, stamp: int) -> None:
        self.bytes += len(payload)
        for track in self._tracks:
            track.put(payload, stamp)


class Track(MediaStreamTrack):
    """The microphone, for one peer connection."""

    kind = "audio"

    def __init__(self, microphone: Microphone) -> None:
        super().__init__()
        self._microphone = microphone
        self._queue: asyncio.Queue[av.Packet] = asyncio.Queue()

    def put(self, payload: bytes, stamp: int) -> None:
        packet = av.Packet(payload)
        packet.pts, packet.time_base = stamp, Fraction(1, AUDIO_RATE)
        while self._queue.qsize() >= WAITING:
            self._queue.get_nowait()
        self._queue.put_nowait(packet)

    async def recv(self) -> av.Packet:
        return await self._queue.get()

    def stop(self) -> None:
        super().stop()
        self._microphone.forget(self)


class Tap:
    """Stands where aiortc keeps a receiver's jitter buffer, which is made for 20 ms packets without pauses and would
    hold ours for a quarter of a second: every packet goes to the playout at once, and aiortc has nothing to decode."""

    def __init__(self, playout: Playout) -> None:
        self._playout = playout

    def add(self, packet: Any) -> tuple[bool, None]:
        self._playout.push(packet.ssrc, packet.sequence_number, packet.timestamp, packet._data, time.monotonic())
        return False, None


def carry_sound(connection: RTCPeerConnection, microphone: Microphone | None, playout: Playout | None) -> None:
    """Before the offer or answer: both ways, or one, or, with neither, a place kept for what the other side has."""
    track = microphone.track() if microphone is not None else None
    direction = DIRECTIONS[(microphone is not None) + 2 * (playout is not None)]
    transceiver = connection.addTransceiver(track or "audio", direction)

    def follow() -> None:
        # aiortc stops the tracks of those connections alone that came up.
        if track is not None and connection.connectionState == "closed":
            track.stop()

    connection.on("connectionstatechange", follow)
    known = RTCRtpReceiver.getCapabilities("audio")
    assert known is not None
    transceiver.setCodecPreferences([codec for codec in known.codecs if codec.mimeType == "audio/opus"])
    if playout is not None:
        setattr(transceiver.receiver, _JITTER_BUFFER, Tap(playout))


async def reported_loss(connection: RTCPeerConnection) -> float:
    """Of the sound we send, as the other side's last receiver report has it (RFC 3550, section 6.4.2); 0..1."""
    losses = [0.0]
    for sender in connection.getSenders():
        if sender.track is not None:
            report = await sender.getStats()
            losses += [entry.fractionLost / 256 for entry in report.values() if entry.type == "remote-inbound-rtp"]
    return max(losses)


def decline_video(connection: RTCPeerConnection) -> None:
    """Before the answer: video as browsers send it has no place here."""
    for transceiver in connection.getTransceivers():
        if transceiver.kind != "audio":
            transceiver.direction = "inactive"


DIRECTIONS: Final = ("inactive", "sendonly", "recvonly", "sendrecv")
_JITTER_BUFFER: Final = "_RTCRtpReceiver__jitter_buffer"
