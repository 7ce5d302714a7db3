"""Audio over an RTCPeerConnection: transceiver, received packets, traffic counters and RTCP reports.

At this bit rate half of the traffic is headers, so they are kept small: no RTP header extensions, a short CNAME, and
RTCP reports only as often as they are useful.
"""

import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from aiortc import RTCPeerConnection, RTCRtpReceiver, RTCRtpTransceiver
from aiortc.rtp import RtcpRrPacket, RtcpSrPacket

from iwcodec.client.audio.jitter_buffer import AudioJitterBuffer
from iwcodec.client.audio.sender import AudioSender
from iwcodec.client.transport.sctp import IP_UDP

REPORT_EVERY: Final = 5
"""Send one of this many RTCP reports while nothing is lost. aiortc makes one per second; RFC 3550, section 6.2, asks
for one in 5 s."""
RATE_WINDOW_S: Final = 2.0
"""Window over which bit rates are averaged."""
DIRECTIONS: Final = ("inactive", "sendonly", "recvonly", "sendrecv")

# Private attributes of aiortc.
_JITTER_BUFFER: Final = "_RTCRtpReceiver__jitter_buffer"
_CNAME: Final = "_RTCPeerConnection__cname"
_SEND_REPORT: Final = "_send_rtcp"


class JitterBufferTap:
    """Replaces the jitter buffer of an aiortc receiver and passes every packet on at once, leaving nothing to decode.

    aiortc's jitter buffer assumes 20 ms packets without pauses, and would add a quarter of a second to ours.
    """

    def __init__(self, audio_buffer: AudioJitterBuffer) -> None:
        self._audio_buffer = audio_buffer

    def add(self, packet: Any) -> tuple[bool, None]:
        self._audio_buffer.push(packet.ssrc, packet.sequence_number, packet.timestamp, packet._data, time.monotonic())
        return False, None


@dataclass
class ByteCounter:
    """Bytes on the wire in one direction, IP headers included."""

    bytes: int = 0
    """Total so far."""
    _recent: deque[tuple[float, int]] = field(default_factory=deque)

    def add(self, count: int, now_s: float) -> None:
        self.bytes += count
        self._recent.append((now_s, count))
        self._drop_old(now_s)

    def kbps(self, now_s: float) -> float:
        """Bit rate over the last RATE_WINDOW_S, in kbit/s."""
        self._drop_old(now_s)
        return sum(count for _, count in self._recent) * 8 / 1000 / RATE_WINDOW_S

    def _drop_old(self, now_s: float) -> None:
        while self._recent and self._recent[0][0] <= now_s - RATE_WINDOW_S:
            self._recent.popleft()


@dataclass
class AudioTraffic:
    """Audio traffic with one participant, over all connections: RTP and RTCP with SRTP, UDP and IPv4 overhead."""

    sent: ByteCounter = field(default_factory=ByteCounter)
    received: ByteCounter = field(default_factory=ByteCounter)

    def watch(self, transport: Any) -> None:
        """Count the packets of an RTCIceTransport from now on."""
        send, receive = transport._send, transport._recv

        async def counted_send(data: bytes) -> None:
            await send(data)
            _count(self.sent, data)

        async def counted_receive() -> bytes:
            data: bytes = await receive()
            _count(self.received, data)
            return data

        transport._send, transport._recv = counted_send, counted_receive


def _count(counter: ByteCounter, data: bytes) -> None:
    if data and 128 <= data[0] < 192:  # RTP or RTCP (RFC 7983, section 7)
        counter.add(IP_UDP + len(data), time.monotonic())


class _TransceiverWithoutExtensions(RTCRtpTransceiver):
    """Neither offers nor accepts RTP header extensions. The `mid` extension takes 8 bytes per packet, and with a single
    audio m-line the payload type identifies the stream (RFC 8843, section 9.2)."""

    @property
    def _headerExtensions(self) -> list[Any]:
        return []

    @_headerExtensions.setter
    def _headerExtensions(self, extensions: list[Any]) -> None:
        pass


def add_audio(
    connection: RTCPeerConnection,
    audio_sender: AudioSender | None,
    audio_buffer: AudioJitterBuffer | None,
    traffic: AudioTraffic | None = None,
    waits: Callable[[], bool] = lambda: False,
) -> None:
    """Add an audio transceiver; call before the offer or answer is created.

    Its direction follows from `audio_sender` and `audio_buffer`; with neither it is inactive, and only matches the
    other side's m-line. `waits`: whether the first picture has yet to be sent, for which audio waits.
    """
    track = audio_sender.track() if audio_sender is not None else None
    if track is not None:
        track.waits = waits
    direction = DIRECTIONS[(audio_sender is not None) + 2 * (audio_buffer is not None)]
    setattr(connection, _CNAME, secrets.token_urlsafe(12))  # 96 bits (RFC 7022, section 5)
    transceiver = connection.addTransceiver(track or "audio", direction)
    # No stream, one track (RFC 8830): nobody reads these ids, and random ones cannot be compressed in the SDP.
    transceiver.sender._stream_id, transceiver.sender._track_id = "-", "0"
    transceiver.__class__ = _TransceiverWithoutExtensions  # aiortc creates it, and sets extensions with every SDP

    def on_state_change() -> None:
        if connection.connectionState == "connected":
            if track is not None:
                track.connected_s = time.monotonic()
            if traffic is not None:
                traffic.watch(transceiver.sender.transport.transport)
        # aiortc stops the tracks only of connections that came up.
        if track is not None and connection.connectionState == "closed":
            track.stop()

    connection.on("connectionstatechange", on_state_change)
    capabilities = RTCRtpReceiver.getCapabilities("audio")
    assert capabilities is not None
    transceiver.setCodecPreferences([codec for codec in capabilities.codecs if codec.mimeType == "audio/opus"])
    for end in (transceiver.sender, transceiver.receiver):
        setattr(end, _SEND_REPORT, throttle_reports(getattr(end, _SEND_REPORT)))
    if audio_buffer is not None:
        setattr(transceiver.receiver, _JITTER_BUFFER, JitterBufferTap(audio_buffer))


def throttle_reports(send: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
    """Wrap aiortc's RTCP sending: pass one in REPORT_EVERY sender and receiver reports, plus every report with losses
    and the first one after them. Other RTCP packets always pass."""
    to_skip, was_lossy = 0, False

    async def send_some(packets: Any) -> None:
        nonlocal to_skip, was_lossy
        listed = packets if isinstance(packets, list) else [packets]
        reports = [packet for packet in listed if isinstance(packet, RtcpSrPacket | RtcpRrPacket)]
        lossy = any(entry.fraction_lost for packet in reports for entry in packet.reports)
        if reports and to_skip > 0 and not lossy and not was_lossy:
            to_skip -= 1
            return
        if reports:
            to_skip, was_lossy = REPORT_EVERY - 1, lossy
        await send(packets)

    return send_some


async def reported_loss(connection: RTCPeerConnection) -> float:
    """Packet loss of our audio in the peer's last receiver report (RFC 3550, section 6.4.2), 0..1."""
    losses = [0.0]
    for sender in connection.getSenders():
        if sender.track is not None:
            report = await sender.getStats()
            losses += [entry.fractionLost / 256 for entry in report.values() if entry.type == "remote-inbound-rtp"]
    return max(losses)


def accept_offer(connection: RTCPeerConnection) -> None:
    """Decline all video m-lines, such as browsers offer, and accept that there is none for audio; call before the
    answer is created."""
    for transceiver in connection.getTransceivers():
        if transceiver.kind != "audio":
            transceiver.direction = "inactive"
        if transceiver._offerDirection is None:  # aiortc takes for granted that the offer has our audio
            transceiver._offerDirection = "inactive"
