"""SCTP transport with less overhead than aiortc's, and faster recovery from losses and outages.

aiortc answers every packet with a packet of its own and sends every chunk alone. Each packet carries 93 bytes of IPv4,
UDP, DTLS and SCTP headers, 85 with the cipher that is preferred here. This transport delays acknowledgements (RFC 9260,
section 6.2) and bundles chunks (section 6.10): everything sent in one turn of the event loop shares a packet, including
a pending acknowledgement. Any other implementation understands both.
"""

import asyncio
import logging
import secrets
from collections import Counter
from contextlib import suppress
from itertools import takewhile
from struct import pack

from aiortc import rtcsctptransport
from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcsctptransport import (
    SCTP_COMMON_HEADER_LENGTH,
    SCTP_MAX_INIT_RETRANS,
    SCTP_MAX_PACKET_LENGTH,
    SCTP_TSN_MODULO,
    WEBRTC_DCEP,
    Chunk,
    DataChunk,
    ForwardTsnChunk,
    HeartbeatAckChunk,
    HeartbeatChunk,
    InitChunk,
    RTCSctpTransport,
    SackChunk,
    tsn_minus_one,
)
from aiortc.utils import uint32_gt, uint32_gte
from google_crc32c import value as crc32c

from iwcodec.client.transport.dtls import RepeatingDtlsTransport

log = logging.getLogger(__name__)

ACK_DELAY_S = 0.2
"""Maximum delay of an acknowledgement (RFC 9260, section 6.2)."""
SETUP_RTO_S = 0.5
"""Retransmission time-out during the set-up of the association, when a loss delays everything. The DTLS handshake
before it has shown that the path answers sooner."""
FIRST_RTO_S = 1.0
"""Initial retransmission time-out of RFC 9260, section 16; aiortc uses the 3 s of RFC 4960."""
MAX_RTO_S = 4.0
"""Maximum retransmission time-out: longer than the queue of any link that can carry a call. RFC 9260 has 60 s, which is
too long to wait in a call."""
PROBE_S = 0.4
"""Interval of heartbeats after a time-out, which find out sooner than the next time-out whether the path is back."""
SHARED_ACK_DELAY_S = 0.4
"""ACK_DELAY_S for unordered messages while we send packets ourselves, which the acknowledgement of two messages then
shares. RFC 9260 allows 0.5 s. The peer does not wait for it: unordered messages are never sent again here."""
ACK_EVERY = 2
"""Packets after which an acknowledgement is not delayed."""
GAP_REPORTS = 3
"""Number of immediate acknowledgements for a gap: what the sender needs to retransmit (RFC 9260, section 7.2.4). More,
for as long as the gap is open, would fill a narrow link with acknowledgements."""
REORDERING = 0.25
"""By how much packets may overtake each other, as a share of the round trip."""
PROBE_BYTES, RATE_PROBE_S = 200, 10.0
"""At this interval a message of at least so many bytes asks for an immediate acknowledgement, which takes a packet of
its own and measures `large_round_trip_s`."""
IP_UDP = 20 + 8
"""Bytes of IPv4 and UDP headers; IPv6 takes 20 more."""
DTLS, NONCE = 13 + 16, 8
"""Bytes that a DTLS record adds with ChaCha20-Poly1305 (RFC 7905), and those of the nonce that AES-GCM adds."""
PACKET = IP_UDP + DTLS + SCTP_COMMON_HEADER_LENGTH
"""Bytes of all headers of a packet."""
_NEVER = -(1 << 30)
"""A count of missing reports that never reaches the threshold for a retransmission."""
_HEARTBEAT_INFO = 1
"""Type of a heartbeat's parameter (RFC 9260, section 3.3.5)."""
_UNORDERED = 0x04
"""Flag of a data chunk of an unordered channel (RFC 9260, section 3.3.1)."""
_IMMEDIATE = 0x08
"""Flag of a data chunk that asks for an immediate acknowledgement (RFC 9260, section 3.3.1)."""


class BundlingSctpTransport(RTCSctpTransport):
    """Also counts the bytes on the wire by layer, in `sent` and `received`: the number of the stream for application
    data, "acknowledgements" for SACK chunks, "sctp" for all other parts of chunks, "packets" for the headers of SCTP,
    DTLS, UDP and IP (PACKET each, plus NONCE with AES). A packet that contains only SACK chunks counts entirely as
    "acknowledgements"."""

    def __init__(self, transport: RTCDtlsTransport, port: int = 5000) -> None:
        super().__init__(transport, port)
        self._rto = SETUP_RTO_S
        self.sent: Counter[int | str] = Counter()
        self.received: Counter[int | str] = Counter()
        self.dropped: Counter[str] = Counter()
        """Messages and packets of the peer that were dropped, by reason."""
        self._bundle: list[Chunk] = []
        self._flush_task: asyncio.Task[None] | None = None
        self._unacknowledged = 0
        """Packets with data that are not acknowledged."""
        self._ordered = 0
        """How many of them hold data of an ordered channel."""
        self._has_ordered = False
        """Whether the packet being received does."""
        self._ack_due = self._ack_at_once = False
        self._data_sent_s = float("-inf")
        """When we last sent data."""
        self._forward: ForwardTsnChunk | None = None
        self._forward_handle: asyncio.TimerHandle | None = None
        self._gap_ends: set[int] = set()
        self._gap_reports = 0
        self._ack_handle: asyncio.TimerHandle | None = None
        self._sent_s: dict[int, float] = {}
        """Time of the last transmission of each unacknowledged chunk, by TSN."""
        self._shortest_s = float("inf")
        """Shortest round trip so far."""
        self.large_round_trip_s = float("inf")
        """Round trip of the last large message (PROBE_BYTES) that was measured."""
        self._rate_probed_s = float("-inf")
        """When a large message last asked for an immediate acknowledgement."""
        self._probing: asyncio.Task[None] | None = None
        self._probe = b""
        """Content of the newest heartbeat, until it is answered."""

    @property
    def _header_bytes(self) -> int:
        """Bytes of the headers of a packet."""
        connection = getattr(self.transport, "_ssl", None)
        name = None if connection is None else connection.get_cipher_name()
        return PACKET if name is None or "CHACHA20" in name else PACKET + NONCE

    @property
    def room(self) -> int:
        """Bytes of the congestion window that are free."""
        return max(0, self._cwnd - self._flight_size)

    @property
    def flight(self) -> int:
        """Bytes that have been sent and are not acknowledged or lost."""
        return self._flight_size

    def _t1_expired(self) -> None:
        # aiortc would close the association for good after 9 time-outs, although the peer may still be at its DTLS
        # handshake. How long to wait is decided above this layer.
        self._t1_failures = min(self._t1_failures, SCTP_MAX_INIT_RETRANS - 1)
        super()._t1_expired()

    def _t3_expired(self) -> None:
        # RFC 9260, section 6.3.3, rule E2, which aiortc omits: with a queue of a second on the path, every packet would
        # be retransmitted while it waits there, and the queue would never drain.
        self._rto = min(2 * self._rto, MAX_RTO_S)
        self._retransmit_lost()

    def _retransmit_lost(self) -> None:
        super()._t3_expired()
        for sent in self._sent_queue:  # chunks that arrived after a gap need not be retransmitted
            sent._retransmit &= not sent._acked
        self._stop_probing()
        self._probing = asyncio.ensure_future(self._probe_path())

    async def _probe_path(self) -> None:
        """Send heartbeats (RFC 9260, section 8.3) while retransmitted chunks are unacknowledged. After an outage of
        seconds the time-out has grown to seconds. A heartbeat follows later than an acknowledgement may be delayed: if
        it is answered but the chunks are not acknowledged, they were lost and are retransmitted at once."""
        while True:
            await asyncio.sleep(PROBE_S)
            if not self._sent_queue:  # all chunks were abandoned
                self._probing = None
                return
            self._probe = secrets.token_bytes(4)
            heartbeat = HeartbeatChunk()
            heartbeat.params = [(_HEARTBEAT_INFO, self._probe)]
            with suppress(ConnectionError):  # the same as a lost packet
                await self._send_packet([heartbeat])

    def _receive_heartbeat_ack(self, answer: HeartbeatAckChunk) -> None:
        if self._probe and (_HEARTBEAT_INFO, self._probe) in answer.params:
            self._t3_cancel()
            self._retransmit_lost()

    def _stop_probing(self) -> None:
        self._probe = b""
        if self._probing is not None:
            self._probing.cancel()
            self._probing = None

    async def _handle_data(self, data: bytes) -> None:
        if isinstance(self.transport, RepeatingDtlsTransport):
            self.transport.confirm()
        self._ack_at_once = self._has_ordered = False
        self._count_received(data)
        try:
            await super()._handle_data(data)
        except ConnectionError:
            raise
        except Exception as error:  # aiortc asserts what a peer should do, and would close the whole connection
            self.dropped["malformed"] += 1
            log.debug("SCTP packet dropped: %r", error)

    async def _receive(self, stream_id: int, pp_id: int, data: bytes) -> None:
        if pp_id == WEBRTC_DCEP:  # all channels are negotiated: a peer has no reason to open others
            self.dropped["channel request"] += 1
            return
        await super()._receive(stream_id, pp_id, data)

    async def _receive_chunk(self, chunk: Chunk) -> None:
        if isinstance(chunk, HeartbeatAckChunk):
            self._receive_heartbeat_ack(chunk)
        elif isinstance(chunk, InitChunk) and chunk.initiate_tag == self._remote_verification_tag:
            # Repeated or delayed: data may have arrived since the first one (RFC 9260, section 5.2.2).
            state = self._last_received_tsn, self._reconfig_response_seq, self._ssthresh
            await super()._receive_chunk(chunk)
            self._last_received_tsn, self._reconfig_response_seq, self._ssthresh = state
        else:
            await super()._receive_chunk(chunk)

    async def _receive_data_chunk(self, chunk: DataChunk) -> None:
        duplicates = len(self._sack_duplicates)
        await super()._receive_data_chunk(chunk)
        self._has_ordered |= not chunk.flags & _UNORDERED
        if chunk.flags & _IMMEDIATE or len(self._sack_duplicates) > duplicates:
            self._ack_at_once = True

    async def _receive_sack_chunk(self, chunk: SackChunk) -> None:
        chunk.gaps = self._valid_gaps(chunk)
        if not uint32_gt(self._last_sacked_tsn, chunk.cumulative_tsn):
            acknowledged = self._newly_acknowledged(chunk)
            if acknowledged:
                self._stop_probing()
            self._detect_losses(acknowledged, chunk.cumulative_tsn)
        # A chunk that was acknowledged behind a gap does not measure the round trip when the gap closes. aiortc would
        # take the time since its transmission, and the time-out would grow to tens of seconds.
        if self._sent_queue and self._sent_queue[0]._acked:
            self._sent_queue[0]._sent_count += 1
        # Three missing reports retransmit a chunk only once (RFC 9260, section 7.2.4). aiortc would do so after every
        # third report, while the first retransmission still waits in the queue of a narrow link.
        for sent in self._sent_queue:
            if sent._sent_count > 1:
                sent._misses = _NEVER
        await super()._receive_sack_chunk(chunk)
        waiting = {sent.tsn for sent in self._sent_queue}
        self._sent_s = {tsn: at for tsn, at in self._sent_s.items() if tsn in waiting}
        if not self._sent_queue and not self._outbound_queue:  # our queue on the path is empty
            measured = 0.0 if self._srtt is None or self._rttvar is None else self._srtt + 4 * self._rttvar
            self._rto = min(self._rto, max(FIRST_RTO_S, measured))

    def _update_advanced_peer_ack_point(self) -> None:
        # RFC 3758, section 3.5, rule C2, stops at a chunk that was acknowledged behind a gap. A FORWARD TSN then passes
        # one loss in each round trip; on a narrow link that loses more, the acknowledgements list ever more gaps and
        # fill the link themselves. So it also passes what was acknowledged between abandoned chunks.
        settled = list(takewhile(lambda sent: sent._abandoned or sent._acked, self._sent_queue))
        while settled and not settled[-1]._abandoned:
            settled.pop()
        for sent in settled:
            sent._abandoned = True
        super()._update_advanced_peer_ack_point()

    def _valid_gaps(self, chunk: SackChunk) -> list[tuple[int, int]]:
        """The gaps of a SACK that refer to chunks that have been sent. aiortc iterates over all of them: a packet of
        forged gaps would keep it busy for seconds."""
        if not self._sent_queue or uint32_gte(chunk.cumulative_tsn, self._sent_queue[-1].tsn):
            return []
        most = (self._sent_queue[-1].tsn - chunk.cumulative_tsn) % SCTP_TSN_MODULO
        gaps: list[tuple[int, int]] = []
        for first, last in chunk.gaps:
            previous = gaps[-1][1] if gaps else 0
            if previous < first <= min(last, most):  # in order, as RFC 9260, section 3.3.4, requires
                gaps.append((first, min(last, most)))
        return gaps

    def _newly_acknowledged(self, chunk: SackChunk) -> list[DataChunk]:
        def has_arrived(tsn: int) -> bool:
            ahead = (tsn - chunk.cumulative_tsn) % SCTP_TSN_MODULO
            return uint32_gte(chunk.cumulative_tsn, tsn) or any(first <= ahead <= last for first, last in chunk.gaps)

        return [sent for sent in self._sent_queue if not sent._acked and has_arrived(sent.tsn)]

    def _detect_losses(self, acknowledged: list[DataChunk], cumulative_tsn: int) -> None:
        """Measure the round trip, and mark retransmissions as lost if chunks sent after them have arrived (RFC 8985,
        section 6.2). aiortc measures the round trip only while no gap is open; under loss one always is, and the
        time-out would never shrink. It would also wait for the time-out before it retransmits a second time, with all
        motion behind it."""
        now = asyncio.get_running_loop().time()
        round_trips = {sent.tsn: now - self._sent_s[sent.tsn] for sent in acknowledged if sent.tsn in self._sent_s}
        unambiguous = [sent for sent in acknowledged if sent._sent_count == 1 and sent.tsn in round_trips]
        if unambiguous:
            self._shortest_s = min(self._shortest_s, round_trips[unambiguous[-1].tsn])
            for sent in unambiguous:
                if sent.flags & _IMMEDIATE:
                    self.large_round_trip_s = round_trips[sent.tsn]
            if uint32_gt(unambiguous[-1].tsn, cumulative_tsn):
                self._update_rto(round_trips[unambiguous[-1].tsn])
        # The acknowledgement of a chunk that was sent twice belongs to the second transmission, unless that would be
        # the shortest round trip so far.
        newest_s = max((now - s for s in round_trips.values() if s >= self._shortest_s), default=0.0)
        tolerance_s = (self._srtt or 0.0) * REORDERING
        arrived = {sent.tsn for sent in acknowledged}
        for sent in self._sent_queue:
            is_open = not (sent._acked or sent._retransmit or sent._abandoned or sent.tsn in arrived)
            if is_open and sent._sent_count > 1 and self._sent_s[sent.tsn] + tolerance_s < newest_s:
                sent._retransmit = not self._maybe_abandon(sent)
                self._flight_size_decrease(sent)

    async def _send_sack(self) -> None:
        """Called by aiortc after every packet with data. Acknowledges at once for GAP_REPORTS packets after a new gap,
        otherwise every second packet, or when the first has waited for ACK_DELAY_S. Unordered data wait longer, for a
        packet of our own, if we are sending some (SHARED_ACK_DELAY_S)."""
        self._sack_needed = False
        self._unacknowledged += 1
        self._ordered += self._has_ordered
        missing = {tsn for tsn in self._sack_misordered if tsn_minus_one(tsn) not in self._sack_misordered}
        if missing - self._gap_ends:
            self._gap_reports = GAP_REPORTS
        self._gap_ends = missing
        is_urgent = self._ack_at_once or self._gap_reports > 0
        self._gap_reports = max(0, self._gap_reports - 1)
        if is_urgent or (self._ordered if self._is_sending() else self._unacknowledged) >= ACK_EVERY:
            self._acknowledge_now()
            return
        loop = asyncio.get_running_loop()
        delay_s = SHARED_ACK_DELAY_S if self._is_sending() and not self._ordered else ACK_DELAY_S
        if self._ack_handle is None or self._ack_handle.when() > loop.time() + delay_s:
            self._cancel_ack()
            self._ack_handle = loop.call_later(delay_s, self._acknowledge_now)

    def _is_sending(self) -> bool:
        """Whether a packet of our own can be expected soon."""
        return asyncio.get_running_loop().time() - self._data_sent_s < ACK_DELAY_S

    def _acknowledge_now(self) -> None:
        self._ack_due = True
        self._start_flush()

    def _cancel_ack(self) -> None:
        if self._ack_handle is not None:
            self._ack_handle.cancel()
            self._ack_handle = None

    async def _send_chunk(self, chunk: Chunk) -> None:
        if isinstance(chunk, DataChunk):
            now = self._sent_s[chunk.tsn] = asyncio.get_running_loop().time()
            if len(chunk.user_data) >= PROBE_BYTES and now - self._rate_probed_s >= RATE_PROBE_S:
                self._rate_probed_s = now
                chunk.flags |= _IMMEDIATE
        if isinstance(chunk, DataChunk) and self._association_state == self.State.ESTABLISHED:
            self._bundle.append(chunk)
            self._start_flush()
        elif isinstance(chunk, ForwardTsnChunk):
            self._send_forward_tsn(chunk)
        elif isinstance(chunk, SackChunk):  # built by _acknowledge
            self._bundle.insert(0, chunk)
        elif isinstance(chunk, InitChunk):
            # The verification tag is 0 (RFC 9260, section 8.5.1), even if the peer's is known from its own INIT. aiortc
            # uses the peer's tag but drops an INIT that has one, so neither end connects if both answers are lost.
            await self._send_packet([chunk], tag=0)
        else:
            await self._send_packet([chunk])

    def _send_forward_tsn(self, chunk: ForwardTsnChunk) -> None:
        """Send FORWARD TSN with the next data, or after ACK_DELAY_S. aiortc repeats it for every acknowledgement, and
        its peer acknowledges every repetition."""
        self._forward = chunk
        if self._forward_handle is None:
            self._forward_handle = asyncio.get_running_loop().call_later(ACK_DELAY_S, self._start_flush)

    def _start_flush(self) -> None:
        if self._flush_task is None:
            self._flush_task = asyncio.ensure_future(self._flush())

    async def _flush(self) -> None:
        self._flush_task = None
        if self._association_state == self.State.CLOSED:
            self._bundle.clear()
            return
        is_first = not self._is_sending()
        if self._unacknowledged and (self._ack_due or is_first or self._ordered or self._unacknowledged >= ACK_EVERY):
            await self._acknowledge()
        if any(isinstance(chunk, DataChunk) for chunk in self._bundle):
            self._data_sent_s = asyncio.get_running_loop().time()
        if self._forward is not None and (self._bundle or self._forward_is_due()):
            self._bundle.insert(0, self._forward)
            self._cancel_forward()
        chunks, self._bundle = self._bundle, []
        try:
            for packet in _packets(chunks):
                await self._send_packet(packet)
        except ConnectionError:  # the same as a lost packet: reliable data are retransmitted
            pass

    def _forward_is_due(self) -> bool:
        handle = self._forward_handle
        return handle is not None and handle.when() <= asyncio.get_running_loop().time()

    def _cancel_forward(self) -> None:
        self._forward = None
        if self._forward_handle is not None:
            self._forward_handle.cancel()
            self._forward_handle = None

    async def _acknowledge(self) -> None:
        """Add a SACK chunk for everything received so far to the bundle."""
        self._unacknowledged, self._ordered, self._ack_due = 0, 0, False
        self._cancel_ack()
        await super()._send_sack()

    async def _send_packet(self, chunks: list[Chunk], tag: int | None = None) -> None:
        """`tag`: verification tag; None for the peer's."""
        body = b"".join(map(bytes, chunks))
        tag = self._remote_verification_tag if tag is None else tag
        header = pack("!HHL", self._local_port, self._remote_port, tag)
        checksum = pack("<L", crc32c(header + bytes(4) + body))
        _count(self.sent, chunks, self._header_bytes)
        await self.transport._send_data(header + checksum + body)

    def _count_received(self, data: bytes) -> None:
        try:
            _, _, _, chunks = rtcsctptransport.parse_packet(data)
        except ValueError:
            return
        _count(self.received, chunks, self._header_bytes)

    def _set_state(self, state: RTCSctpTransport.State) -> None:
        super()._set_state(state)
        if state == self.State.ESTABLISHED:
            self._rto = FIRST_RTO_S
        if state == self.State.CLOSED:
            self._stop_probing()
            self._cancel_forward()
            self._cancel_ack()


def _packets(chunks: list[Chunk]) -> list[list[Chunk]]:
    """Distribute chunks to packets, in order, as many to each as fit."""
    packets: list[list[Chunk]] = []
    room = 0
    for chunk in chunks:
        size = len(bytes(chunk))
        if size > room:
            packets.append([])
            room = SCTP_MAX_PACKET_LENGTH - SCTP_COMMON_HEADER_LENGTH
        packets[-1].append(chunk)
        room -= size
    return packets


def _count(counts: Counter[int | str], chunks: list[Chunk], header_bytes: int) -> None:
    for chunk in chunks:
        size = len(bytes(chunk))
        if isinstance(chunk, DataChunk):
            counts[chunk.stream_id] += len(chunk.user_data)
            counts["sctp"] += size - len(chunk.user_data)
        else:
            counts["acknowledgements" if isinstance(chunk, SackChunk) else "sctp"] += size
    is_sack_only = all(isinstance(chunk, SackChunk) for chunk in chunks)
    counts["acknowledgements" if is_sack_only else "packets"] += header_bytes
