"""Sound on its way out: an ordinary WebRTC Opus track (RFC 7587), and the tap that takes the others' from aiortc.

aiortc's own encoder makes 20 ms stereo packets at 96 kbps; but a track may also hand over packets that are encoded
already, which aiortc then sends as they are. So one encoder serves all peers, and pauses (DTX) are simply not sent.

Half of what speech costs at this rate is around it, so that is kept small, too: no header extensions, a short CNAME,
and reports (RTCP) no more often than they are of use.
"""

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final

import av
import numpy as np
from aiortc import MediaStreamTrack, RTCPeerConnection, RTCRtpReceiver, RTCRtpTransceiver
from aiortc.rtp import RtcpRrPacket, RtcpSrPacket

from iwcodec.client.audio.jitter_buffer import Playout
from iwcodec.client.audio.opus import SILENT, OpusEncoder
from iwcodec.client.transport.sctp import IP_UDP
from iwcodec.codec.media.types import AUDIO_RATE, Samples

PACKET_MS: Final = 60
BITRATE: Final = 8_500
"""Bits a second asked of Opus, which spends less: 7 to 8 kbps on speech that goes on, 14 to 15 on the wire."""
THIN: Final = 8_000
"""Where picture and sound queue on the way."""
ROBUST: Final = (16_000, 25)
"""Bits a second, and the loss told to Opus, from which it adds a copy of each packet to the next one."""
LOSSY: Final = 0.03
"""Share of packets lost, as a peer reports it, at which that begins; it ends after CALM reports of under a third."""
CALM: Final = 10
REPORT_EVERY: Final = 5
"""Of aiortc's RTCP reports, one a second, so many make one (RFC 3550, section 6.2: 5 s), while nothing is lost."""
RATE_S: Final = 2.0
"""What rates are taken over."""
SLACK_S: Final = 0.04
"""How far the capture clock may run away from the number of samples before timestamps are set anew."""
HOLD_S: Final = 2.0
"""Longest, from the connection on, that sound is held back for the first picture: over a link of 30 kbps it would take
half of what there is, and the picture a third longer."""
WAITING: Final = 2
"""Packets that may wait for a connection that is not up or slow; the oldest are dropped, for they would be late."""


class Microphone:
    """Takes samples as they are captured and gives every peer's track the same packets."""

    def __init__(self, bitrate: int = BITRATE, packet_ms: int = PACKET_MS) -> None:
        self._encoder = OpusEncoder(bitrate, packet_ms)
        self._bitrate = bitrate
        self._calm = self._clear = CALM
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
        """Whether each packet carries a copy of the one before: against losses, unless it is a queue that loses them,
        which more bytes would only lengthen."""
        return self._calm < CALM and not self.congested

    @property
    def congested(self) -> bool:
        """Whether packets queue on the way to somebody, or did until CALM reports ago."""
        return self._clear < CALM

    def report(self, lost: float, queued: bool = False) -> None:
        """What the worst peer lost of late, 0..1, and whether there is a queue on the way to one; about once a
        second."""
        was = self._settings()
        self._clear = 0 if queued else min(self._clear + 1, CALM)
        lossy = lost >= LOSSY and not self.congested
        self._calm = 0 if lossy else min(self._calm + (lost < LOSSY / 3), CALM)
        if self._settings() != was:
            self._encoder.adapt(*self._settings())

    def _settings(self) -> tuple[int, int]:
        """Bits a second, and the loss to be expected in percent."""
        if self.congested:
            return min(THIN, self._bitrate), 0
        return ROBUST if self.robust else (self._bitrate, 0)

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
        self.waits: Callable[[], bool] = lambda: False
        """Whether something else has to go first."""
        self.connected_s: float | None = None
        """When the connection came up."""
        self._microphone = microphone
        self._queue: asyncio.Queue[av.Packet] = asyncio.Queue()

    def put(self, payload: bytes, stamp: int) -> None:
        is_early = self.connected_s is None or time.monotonic() - self.connected_s < HOLD_S
        if is_early and self.waits():
            return
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


@dataclass
class Flow:
    """Bytes on the wire, IP included, one way."""

    bytes: int = 0
    """So far."""
    _recent: deque[tuple[float, int]] = field(default_factory=deque)

    def add(self, count: int, now_s: float) -> None:
        self.bytes += count
        self._recent.append((now_s, count))
        self._forget(now_s)

    def kbps(self, now_s: float) -> float:
        """Over the last RATE_S."""
        self._forget(now_s)
        return sum(count for _, count in self._recent) * 8 / 1000 / RATE_S

    def _forget(self, now_s: float) -> None:
        while self._recent and self._recent[0][0] <= now_s - RATE_S:
            self._recent.popleft()


@dataclass
class SoundCount:
    """What the sound of one participant takes on the wire, over all connections: RTP, RTCP, SRTP, UDP and IPv4."""

    sent: Flow = field(default_factory=Flow)
    received: Flow = field(default_factory=Flow)

    def watch(self, transport: Any) -> None:
        """Count what goes over an RTCIceTransport from now on."""
        send, receive = transport._send, transport._recv

        async def counted_send(data: bytes) -> None:
            await send(data)
            _count(self.sent, data)

        async def counted_receive() -> bytes:
            data: bytes = await receive()
            _count(self.received, data)
            return data

        transport._send, transport._recv = counted_send, counted_receive


def _count(flow: Flow, data: bytes) -> None:
    if data and 128 <= data[0] < 192:  # RTP or RTCP (RFC 7983, section 7)
        flow.add(IP_UDP + len(data), time.monotonic())


class _Plain(RTCRtpTransceiver):
    """Neither offers nor takes header extensions. That of the `mid` is 8 bytes a packet; where there is one m-line of
    sound its payload types are enough to tell what is for it (RFC 8843, section 9.2)."""

    @property
    def _headerExtensions(self) -> list[Any]:
        return []

    @_headerExtensions.setter
    def _headerExtensions(self, extensions: list[Any]) -> None:
        pass


def carry_sound(
    connection: RTCPeerConnection,
    microphone: Microphone | None,
    playout: Playout | None,
    count: SoundCount | None = None,
    waits: Callable[[], bool] = lambda: False,
) -> None:
    """Before the offer or answer: both ways, or one, or, with neither, a place kept for what the other side has.
    `waits`: whether the first picture is still to go, so that sound has to wait a moment."""
    track = microphone.track() if microphone is not None else None
    if track is not None:
        track.waits = waits
    direction = DIRECTIONS[(microphone is not None) + 2 * (playout is not None)]
    setattr(connection, _CNAME, secrets.token_urlsafe(12))  # 96 bits (RFC 7022, section 5)
    transceiver = connection.addTransceiver(track or "audio", direction)
    # Of no stream, and the only track (RFC 8830): nobody looks, and names at random are what a description cannot pack.
    transceiver.sender._stream_id, transceiver.sender._track_id = "-", "0"
    transceiver.__class__ = _Plain  # aiortc makes it, and sets its extensions with every description

    def follow() -> None:
        if connection.connectionState == "connected":
            if track is not None:
                track.connected_s = time.monotonic()
            if count is not None:
                count.watch(transceiver.sender.transport.transport)
        # aiortc stops the tracks of those connections alone that came up.
        if track is not None and connection.connectionState == "closed":
            track.stop()

    connection.on("connectionstatechange", follow)
    known = RTCRtpReceiver.getCapabilities("audio")
    assert known is not None
    transceiver.setCodecPreferences([codec for codec in known.codecs if codec.mimeType == "audio/opus"])
    for end in (transceiver.sender, transceiver.receiver):
        setattr(end, _SEND_REPORT, seldom(getattr(end, _SEND_REPORT)))
    if playout is not None:
        setattr(transceiver.receiver, _JITTER_BUFFER, Tap(playout))


def seldom(send: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
    """Sends one in REPORT_EVERY of the sender and receiver reports; and each that tells of losses, or the first that
    does not any more. What is no report goes out."""
    waits, was_lossy = 0, False

    async def send_some(packets: Any) -> None:
        nonlocal waits, was_lossy
        kinds = packets if isinstance(packets, list) else [packets]
        reports = [packet for packet in kinds if isinstance(packet, RtcpSrPacket | RtcpRrPacket)]
        lossy = any(entry.fraction_lost for packet in reports for entry in packet.reports)
        if reports and waits > 0 and not lossy and not was_lossy:
            waits -= 1
            return
        if reports:
            waits, was_lossy = REPORT_EVERY - 1, lossy
        await send(packets)

    return send_some


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
_CNAME: Final = "_RTCPeerConnection__cname"
_SEND_REPORT: Final = "_send_rtcp"
