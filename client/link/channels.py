"""The data channels of one peer connection: creation, rate limits and byte counters.

messages.py defines what each channel carries.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import Any

from aiortc import RTCDataChannel, RTCPeerConnection

from iwcodec.client.link.messages import (
    CONTROL_CHANNEL,
    MAX_MESSAGE,
    MOTION_CHANNEL,
    SOURCE_CHANNEL,
    Control,
    control_to_bytes,
)
from iwcodec.client.transport.dtls import RepeatingDtlsTransport
from iwcodec.client.transport.sctp import BundlingSctpTransport
from iwcodec.codec.token_bucket import TokenBucket

STATS_S = 2.0
"""Length of the window over which rates are averaged."""
MIN_STATS_S = 0.1
"""Shortest window: bounds the rates right after the connection was made."""
_RATE_LIMITS = {MOTION_CHANNEL: (100, 200), SOURCE_CHANNEL: (200, 400), CONTROL_CHANNEL: (20, 60)}
"""Received messages per second, and the largest burst; more are dropped."""
_NAMES = {MOTION_CHANNEL: "motion", SOURCE_CHANNEL: "sources", CONTROL_CHANNEL: "control"}

ByteCounts = Counter[int | str]
"""Bytes by layer, with the keys of BundlingSctpTransport.sent: the channel's id, "acknowledgements", "sctp",
"packets"."""


class Channels:
    """Negotiated channels with fixed ids, alike on both sides. Must be created before the connection's offer or
    answer, in a running event loop."""

    def __init__(self, connection: RTCPeerConnection, dropped: Counter[str]) -> None:
        """`dropped` counts the received messages that are discarded here, by reason."""
        self._connection = connection
        self._dropped = dropped
        self._sent: ByteCounts = Counter()
        self._received: ByteCounts = Counter()
        self._clock = asyncio.get_running_loop().time
        self._samples = deque([(self._clock(), *self._byte_counts())])
        self._closed = False
        unreliable: dict[str, Any] = {"ordered": False, "maxRetransmits": 0}
        self.by_id: dict[int, RTCDataChannel] = {
            channel_id: connection.createDataChannel(
                name, negotiated=True, id=channel_id, **(unreliable if channel_id == MOTION_CHANNEL else {})
            )
            for channel_id, name in _NAMES.items()
        }
        if self.transport is not None:
            self.transport.dropped = dropped
            if self._dtls is not None:
                self._dtls.dropped = dropped
        self._limits = {channel_id: TokenBucket(*limits) for channel_id, limits in _RATE_LIMITS.items()}

    def listen(self, on_message: Callable[[int, bytes], None], on_open: Callable[[], None]) -> None:
        """Call `on_message` with the channel's id and each message that passes the size and rate limits, and `on_open`
        when the control channel is open, at once if it is already."""
        self._on_message, self._on_open = on_message, on_open
        for channel_id, channel in self.by_id.items():
            channel.on("message", partial(self.receive, channel_id))
        control = self.by_id[CONTROL_CHANNEL]
        if control.readyState == "open":
            self._opened()
        else:
            control.on("open", self._opened)

    def close(self) -> None:
        """Send nothing more, and ignore what still arrives. The connection stays open; its owner closes it."""
        self._closed = True

    @property
    def are_open(self) -> bool:
        return not self._closed and all(channel.readyState == "open" for channel in self.by_id.values())

    @property
    def is_connection_lost(self) -> bool:
        return self._connection.connectionState in ("disconnected", "failed", "closed")

    @property
    def transport(self) -> BundlingSctpTransport | None:
        """None for a connection that was not made by make_connection."""
        transport = self._connection.sctp
        return transport if isinstance(transport, BundlingSctpTransport) else None

    @property
    def certificates(self) -> tuple[bytes, bytes] | None:
        """Fingerprints of our certificate and of the peer's; None before the handshake."""
        return None if self._dtls is None else self._dtls.certificates

    @property
    def _dtls(self) -> RepeatingDtlsTransport | None:
        dtls = None if self.transport is None else self.transport.transport
        return dtls if isinstance(dtls, RepeatingDtlsTransport) else None

    def ignore(self, on: bool) -> None:
        """Decrypt few of the peer's packets, or as many as a call has."""
        if self._dtls is not None:
            self._dtls.is_ignored = on

    def send(self, channel_id: int, data: bytes) -> None:
        """Send a message, or discard it if the channel is not open."""
        channel = self.by_id[channel_id]
        if channel.readyState == "open":
            self._sent[channel_id] += len(data)
            channel.send(data)

    def send_control(self, control: Control) -> None:
        self.send(CONTROL_CHANNEL, control_to_bytes(control))

    def queued_bytes(self, channel_id: int) -> int:
        """Bytes handed to the channel that the transport has not sent yet."""
        return self.by_id[channel_id].bufferedAmount

    def receive(self, channel_id: int, data: bytes | str) -> None:
        if self._closed:
            return
        self._received[channel_id] += len(data)
        if isinstance(data, str):
            self._dropped["malformed"] += 1
        elif len(data) > MAX_MESSAGE:
            self._dropped["too large"] += 1
        elif not self._limits[channel_id].take(self._clock()):
            self._dropped["flood"] += 1
        else:
            self._on_message(channel_id, data)

    def sample(self, now_s: float) -> None:
        """Record the byte counts for `rates`. Call it several times per STATS_S."""
        self._samples.append((now_s, *self._byte_counts()))
        while len(self._samples) > 1 and self._samples[0][0] < now_s - STATS_S:
            self._samples.popleft()

    def rates(self, now_s: float) -> tuple[dict[str, float], dict[str, float]]:
        """kbit/s sent and received, by layer (LinkStats.sent_kbps)."""
        start_s, sent, received = self._samples[0]
        duration_s = max(MIN_STATS_S, now_s - start_s)
        sent_now, received_now = self._byte_counts()
        return _kbps_by_layer(sent_now - sent, duration_s), _kbps_by_layer(received_now - received, duration_s)

    def _opened(self) -> None:
        if not self._closed:
            self._on_open()

    def _byte_counts(self) -> tuple[ByteCounts, ByteCounts]:
        """Bytes sent and received so far: on the wire where the transport counts them, otherwise of messages alone."""
        transport = self.transport
        counts = (self._sent, self._received) if transport is None else (transport.sent, transport.received)
        return counts[0].copy(), counts[1].copy()


def _kbps_by_layer(byte_counts: ByteCounts, duration_s: float) -> dict[str, float]:
    def kbps(*keys: int | str) -> float:
        return sum(byte_counts[key] for key in keys) * 8 / 1000 / duration_s

    layers = {name: kbps(channel_id) for channel_id, name in _NAMES.items()}
    layers["acknowledgements"] = kbps("acknowledgements")
    layers["overhead"] = kbps("sctp", "packets")
    return {**layers, "total": sum(layers.values())}
