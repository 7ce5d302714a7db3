"""Peer connections whose data channels cost less.

aiortc answers every packet with a packet of its own and sends every chunk alone: 93 bytes of IPv4, UDP, DTLS and SCTP
around each, 85 with the cipher that is preferred here. Here acknowledgements are delayed (RFC 9260, section 6.2) and
chunks are bundled (section 6.10): whatever is sent in one turn of the event loop shares a packet, and a waiting
acknowledgement goes along. Any other peer understands both.
"""

import asyncio
import secrets
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from struct import pack
from typing import TYPE_CHECKING, Any

from aiortc import (
    RTCBundlePolicy,
    RTCCertificate,
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    rtcpeerconnection,
    rtcsctptransport,
)
from aiortc.rtcdtlstransport import RTCDtlsFingerprint, RTCDtlsTransport, SRTPProtectionProfile
from aiortc.rtcsctptransport import (
    SCTP_COMMON_HEADER_LENGTH,
    SCTP_MAX_INIT_RETRANS,
    SCTP_MAX_PACKET_LENGTH,
    SCTP_TSN_MODULO,
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
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from google_crc32c import value as crc32c

from iwcodec.client.transport.dtls import RepeatingDtlsTransport

if TYPE_CHECKING:
    from OpenSSL.SSL import Context

ACK_DELAY_S = 0.2
SETUP_RTO_S = 0.5
"""While the association is set up: what is lost then holds up everything, and the handshake before it has shown that
the path answers sooner."""
FIRST_RTO_S = 1.0
"""RFC 9260, section 16; aiortc has the 3 s of RFC 4960."""
MAX_RTO_S = 4.0
"""Longer than the queue of any link that can carry a call; RFC 9260 has 60 s, after which nobody waits any more."""
PROBE_S = 0.4
"""Between two questions whether the path is back, once a time-out has come: the next takes up to MAX_RTO_S."""
ACK_EVERY = 2
"""Packets."""
GAP_REPORTS = 3
"""What a sender needs to send a lost chunk again (RFC 9260, section 7.2.4). More of them, for as long as the gap is
open, would fill a narrow link with nothing but acknowledgements."""
REORDERING = 0.25
"""Of a round trip, by which packets may overtake each other."""
IP_UDP = 20 + 8
"""Bytes around a DTLS record in IPv4; 20 more in IPv6."""
DTLS, NONCE = 13 + 16, 8
"""Bytes of a record around its content, with ChaCha20-Poly1305 (RFC 7905); AES-GCM sends a nonce, too."""
CIPHERS = b"ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA"
"""aiortc's, the one with the shortest records first."""
PACKET = IP_UDP + DTLS + SCTP_COMMON_HEADER_LENGTH
VALID = timedelta(days=30)
"""Of a certificate, before and after now: clocks may differ. Each connection has one of its own."""
_NEVER = -(1 << 30)
_HEARTBEAT_INFO = 1
"""The type of a heartbeat's parameter (RFC 9260, section 3.3.5)."""
_IMMEDIATE = 0x08
"""The flag of a data chunk whose sender waits for the acknowledgement (RFC 9260, section 3.3.1)."""


class BundlingSctpTransport(RTCSctpTransport):
    """Also counts what it sends and receives, in bytes on the wire by layer: the number of the stream for what
    applications send, "acknowledgements" for SACK chunks, "sctp" for every other part of chunks, "packets" for the
    headers of SCTP, DTLS, UDP and IP, PACKET each, and NONCE where the peer has chosen AES. A packet of
    acknowledgements alone counts among them whole."""

    def __init__(self, transport: RTCDtlsTransport, port: int = 5000) -> None:
        super().__init__(transport, port)
        self._rto = SETUP_RTO_S
        self.sent: Counter[int | str] = Counter()
        self.received: Counter[int | str] = Counter()
        self._bundle: list[Chunk] = []
        self._flush_task: asyncio.Task[None] | None = None
        self._unacknowledged = 0
        self._ack_at_once = False
        self._forward: ForwardTsnChunk | None = None
        self._forward_handle: asyncio.TimerHandle | None = None
        self._gap_ends: set[int] = set()
        self._gap_reports = 0
        self._ack_handle: asyncio.TimerHandle | None = None
        self._sent_s: dict[int, float] = {}
        """When each chunk that waits for its acknowledgement was sent last, by TSN."""
        self._shortest_s = float("inf")
        """Round trip."""
        self._probing: asyncio.Task[None] | None = None
        self._probe = b""
        """The newest question, until it is answered."""

    @property
    def _around(self) -> int:
        """Bytes around the chunks of a packet."""
        connection = getattr(self.transport, "_ssl", None)
        name = None if connection is None else connection.get_cipher_name()
        return PACKET if name is None or "CHACHA20" in name else PACKET + NONCE

    @property
    def room(self) -> int:
        """Bytes that may be sent before an acknowledgement has to come."""
        return max(0, self._cwnd - self._flight_size)

    @property
    def flight(self) -> int:
        """Bytes that have been sent and may still be on the way."""
        return self._flight_size

    def _t1_expired(self) -> None:
        # aiortc would close the association after 9 times, for good, while the other end may still be at its DTLS
        # handshake. Whoever waits for it decides.
        self._t1_failures = min(self._t1_failures, SCTP_MAX_INIT_RETRANS - 1)
        super()._t1_expired()

    def _t3_expired(self) -> None:
        # RFC 9260, section 6.3.3, rule E2, which aiortc leaves out: where a queue of a second stands on the way, every
        # packet would be sent again while it waits there, and the queue never empty.
        self._rto = min(2 * self._rto, MAX_RTO_S)
        self._send_again()

    def _send_again(self) -> None:
        super()._t3_expired()
        for sent in self._sent_queue:  # what has come behind a gap need not come again
            sent._retransmit &= not sent._acked
        self._stop_asking()
        self._probing = asyncio.ensure_future(self._ask_the_path())

    async def _ask_the_path(self) -> None:
        """After an outage of seconds the time-out has grown to seconds. So a heartbeat (RFC 9260, section 8.3) follows
        what was sent again, later than an acknowledgement may be delayed: where the one is answered and the other is
        not, that was lost, and goes out at once."""
        while True:
            await asyncio.sleep(PROBE_S)
            if not self._sent_queue:  # all of it was given up
                self._probing = None
                return
            self._probe = secrets.token_bytes(4)
            heartbeat = HeartbeatChunk()
            heartbeat.params = [(_HEARTBEAT_INFO, self._probe)]
            with suppress(ConnectionError):  # as for a lost packet
                await self._send_packet([heartbeat])

    def _answered(self, answer: HeartbeatAckChunk) -> None:
        if self._probe and (_HEARTBEAT_INFO, self._probe) in answer.params:
            self._t3_cancel()
            self._send_again()

    def _stop_asking(self) -> None:
        self._probe = b""
        if self._probing is not None:
            self._probing.cancel()
            self._probing = None

    async def _handle_data(self, data: bytes) -> None:
        if isinstance(self.transport, RepeatingDtlsTransport):
            self.transport.confirm()
        self._ack_at_once = False
        self._count_received(data)
        await super()._handle_data(data)

    async def _receive_chunk(self, chunk: Chunk) -> None:
        if isinstance(chunk, HeartbeatAckChunk):
            self._answered(chunk)
        elif isinstance(chunk, InitChunk) and chunk.initiate_tag == self._remote_verification_tag:
            # Repeated, or delayed: data may have come since the first one (RFC 9260, section 5.2.2).
            had = self._last_received_tsn, self._reconfig_response_seq, self._ssthresh
            await super()._receive_chunk(chunk)
            self._last_received_tsn, self._reconfig_response_seq, self._ssthresh = had
        else:
            await super()._receive_chunk(chunk)

    async def _receive_data_chunk(self, chunk: DataChunk) -> None:
        duplicates = len(self._sack_duplicates)
        await super()._receive_data_chunk(chunk)
        if chunk.flags & _IMMEDIATE or len(self._sack_duplicates) > duplicates:
            self._ack_at_once = True

    async def _receive_sack_chunk(self, chunk: SackChunk) -> None:
        chunk.gaps = self._bounded(chunk)
        if not uint32_gt(self._last_sacked_tsn, chunk.cumulative_tsn):
            acknowledged = self._newly_acknowledged(chunk)
            if acknowledged:
                self._stop_asking()
            self._learn(acknowledged, chunk.cumulative_tsn)
        # A chunk that was acknowledged behind a gap says nothing of the round trip when the gap closes; aiortc would
        # take the time since it was sent, and wait for tens of seconds before it sends anything again.
        if self._sent_queue and self._sent_queue[0]._acked:
            self._sent_queue[0]._sent_count += 1
        # Three reports send a chunk again once only (RFC 9260, section 7.2.4); aiortc would do it for every third,
        # while the first repetition still waits in the queue of a narrow link.
        for sent in self._sent_queue:
            if sent._sent_count > 1:
                sent._misses = _NEVER
        await super()._receive_sack_chunk(chunk)
        waiting = {sent.tsn for sent in self._sent_queue}
        self._sent_s = {tsn: at for tsn, at in self._sent_s.items() if tsn in waiting}
        if not self._sent_queue and not self._outbound_queue:  # the next packet finds no queue of our own
            measured = 0.0 if self._srtt is None or self._rttvar is None else self._srtt + 4 * self._rttvar
            self._rto = min(self._rto, max(FIRST_RTO_S, measured))

    def _bounded(self, chunk: SackChunk) -> list[tuple[int, int]]:
        """What a report says of chunks that have been sent. aiortc counts through all of it: a packet of forged reports
        would keep it busy for seconds."""
        if not self._sent_queue or uint32_gte(chunk.cumulative_tsn, self._sent_queue[-1].tsn):
            return []
        most = (self._sent_queue[-1].tsn - chunk.cumulative_tsn) % SCTP_TSN_MODULO
        gaps: list[tuple[int, int]] = []
        for first, last in chunk.gaps:
            if (
                (gaps[-1][1] if gaps else 0) < first <= min(last, most)
            ):  # in order, as RFC 9260, section 3.3.4, has them
                gaps.append((first, min(last, most)))
        return gaps

    def _newly_acknowledged(self, chunk: SackChunk) -> list[DataChunk]:
        def has_come(tsn: int) -> bool:
            ahead = (tsn - chunk.cumulative_tsn) % SCTP_TSN_MODULO
            return uint32_gte(chunk.cumulative_tsn, tsn) or any(first <= ahead <= last for first, last in chunk.gaps)

        return [sent for sent in self._sent_queue if not sent._acked and has_come(sent.tsn)]

    def _learn(self, acknowledged: list[DataChunk], cumulative_tsn: int) -> None:
        """The round trip, which aiortc measures only where no gap is open: under loss one always is, and the time-out
        would stay as long as it has ever grown. And which repetitions are lost: what was sent after them has come
        (RFC 8985, section 6.2). aiortc would wait for the time-out, with all motion behind it."""
        now = asyncio.get_running_loop().time()
        took = {sent.tsn: now - self._sent_s[sent.tsn] for sent in acknowledged if sent.tsn in self._sent_s}
        sure = [sent for sent in acknowledged if sent._sent_count == 1 and sent.tsn in took]
        if sure:
            self._shortest_s = min(self._shortest_s, took[sure[-1].tsn])
            if uint32_gt(sure[-1].tsn, cumulative_tsn):
                self._update_rto(took[sure[-1].tsn])
        # Of what was sent twice it is the second that came, unless it came sooner than anything ever has.
        newest_s = max((now - s for s in took.values() if s >= self._shortest_s), default=0.0)
        tolerance_s = (self._srtt or 0.0) * REORDERING
        come = {sent.tsn for sent in acknowledged}
        for sent in self._sent_queue:
            is_open = not (sent._acked or sent._retransmit or sent._abandoned or sent.tsn in come)
            if is_open and sent._sent_count > 1 and self._sent_s[sent.tsn] + tolerance_s < newest_s:
                sent._retransmit = not self._maybe_abandon(sent)
                self._flight_size_decrease(sent)

    async def _send_sack(self) -> None:
        """Called after every packet that holds data. At once for the GAP_REPORTS packets from a new gap on, else for
        every second packet or when the first has waited for ACK_DELAY_S."""
        self._sack_needed = False
        self._unacknowledged += 1
        missing = {tsn for tsn in self._sack_misordered if tsn_minus_one(tsn) not in self._sack_misordered}
        if missing - self._gap_ends:
            self._gap_reports = GAP_REPORTS
        self._gap_ends = missing
        at_once = self._ack_at_once or self._gap_reports > 0
        self._gap_reports = max(0, self._gap_reports - 1)
        if at_once or self._unacknowledged >= ACK_EVERY:
            self._start_flush()
        elif self._ack_handle is None:
            self._ack_handle = asyncio.get_running_loop().call_later(ACK_DELAY_S, self._start_flush)

    async def _send_chunk(self, chunk: Chunk) -> None:
        if isinstance(chunk, DataChunk):
            self._sent_s[chunk.tsn] = asyncio.get_running_loop().time()
        if isinstance(chunk, DataChunk) and self._association_state == self.State.ESTABLISHED:
            self._bundle.append(chunk)
            self._start_flush()
        elif isinstance(chunk, ForwardTsnChunk):
            self._send_forward(chunk)
        elif isinstance(chunk, SackChunk):  # built by _acknowledge
            self._bundle.insert(0, chunk)
        elif isinstance(chunk, InitChunk):
            # Without a tag (RFC 9260, section 8.5.1), and so even where the other end's is known from its own INIT:
            # aiortc puts it in, its peer drops what has one, and where both answers were lost neither connects.
            await self._send_packet([chunk], tag=0)
        else:
            await self._send_packet([chunk])

    def _send_forward(self, chunk: ForwardTsnChunk) -> None:
        """What was given up is told along with the next data, or after a while: aiortc repeats it for every
        acknowledgement, and its peer acknowledges every repetition."""
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
        if self._unacknowledged:
            await self._acknowledge()
        if self._forward is not None and (self._bundle or self._forward_is_due()):
            self._bundle.insert(0, self._forward)
            self._cancel_forward()
        chunks, self._bundle = self._bundle, []
        try:
            for packet in _packets(chunks):
                await self._send_packet(packet)
        except ConnectionError:  # as for a lost packet: what has to arrive is sent again
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
        """Put one SACK chunk for everything received so far into the bundle."""
        self._unacknowledged = 0
        if self._ack_handle is not None:
            self._ack_handle.cancel()
            self._ack_handle = None
        await super()._send_sack()

    async def _send_packet(self, chunks: list[Chunk], tag: int | None = None) -> None:
        """`tag`: the other end's where there is none given."""
        body = b"".join(map(bytes, chunks))
        tag = self._remote_verification_tag if tag is None else tag
        header = pack("!HHL", self._local_port, self._remote_port, tag)
        checksum = pack("<L", crc32c(header + bytes(4) + body))
        _count(self.sent, chunks, self._around)
        await self.transport._send_data(header + checksum + body)

    def _count_received(self, data: bytes) -> None:
        try:
            _, _, _, chunks = rtcsctptransport.parse_packet(data)
        except ValueError:
            return
        _count(self.received, chunks, self._around)

    def _set_state(self, state: RTCSctpTransport.State) -> None:
        super()._set_state(state)
        if state == self.State.ESTABLISHED:
            self._rto = FIRST_RTO_S
        if state == self.State.CLOSED:
            self._stop_asking()
            self._cancel_forward()
            if self._ack_handle is not None:
                self._ack_handle.cancel()
                self._ack_handle = None


def _packets(chunks: list[Chunk]) -> list[list[Chunk]]:
    """Chunks in their order, as many in each packet as fit."""
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


def _count(counts: Counter[int | str], chunks: list[Chunk], around: int) -> None:
    for chunk in chunks:
        size = len(bytes(chunk))
        if isinstance(chunk, DataChunk):
            counts[chunk.stream_id] += len(chunk.user_data)
            counts["sctp"] += size - len(chunk.user_data)
        else:
            counts["acknowledgements" if isinstance(chunk, SackChunk) else "sctp"] += size
    alone = all(isinstance(chunk, SackChunk) for chunk in chunks)
    counts["acknowledgements" if alone else "packets"] += around


class _Certificate(RTCCertificate):
    """Prefers CIPHERS in their order, and SRTP whose tag takes 10 bytes of each packet (RFC 5764, section 4.1.2); that
    of AES-GCM takes 16."""

    @classmethod
    def generateCertificate(cls) -> "_Certificate":
        """As small as they come: both ends' are on the critical path to the first picture, and only their fingerprint
        counts (RFC 8827, section 5.6.4.2). aiortc's names are 32 letters, twice."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "-")])
        now = datetime.now(tz=UTC)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        builder = builder.not_valid_before(now - VALID).not_valid_after(now + VALID)
        return cls(key, builder.serial_number(1 + secrets.randbelow(127)).sign(key, hashes.SHA256()))

    def getFingerprints(self) -> list[RTCDtlsFingerprint]:
        """SHA-256 alone, as browsers have it: with aiortc's two more a description is half as long again, and it goes
        four times over a narrow link before there is a connection."""
        return [fingerprint for fingerprint in super().getFingerprints() if fingerprint.algorithm == "sha-256"]

    def _create_ssl_context(self, srtp_profiles: list[SRTPProtectionProfile]) -> "Context":
        context = super()._create_ssl_context(sorted(srtp_profiles, key=lambda p: b"SHA1_80" not in p.openssl_profile))
        context.set_cipher_list(CIPHERS)
        return context


@contextmanager
def _in_place(name: str, kind: type) -> Iterator[None]:
    """aiortc's peer connections take `kind` for its class of that name meanwhile."""
    usual = getattr(rtcpeerconnection, name)
    setattr(rtcpeerconnection, name, kind)
    try:
        yield
    finally:
        setattr(rtcpeerconnection, name, usual)


class _PeerConnection(RTCPeerConnection):
    """aiortc makes its transports in private methods that name the classes; those from here are put in for that moment,
    in which nothing else can run."""

    def __init__(self, configuration: RTCConfiguration) -> None:
        super().__init__(configuration)
        self._RTCPeerConnection__certificates = [_Certificate.generateCertificate()]

    def _RTCPeerConnection__createSctpTransport(self) -> None:
        with _in_place("RTCSctpTransport", BundlingSctpTransport):
            super()._RTCPeerConnection__createSctpTransport()  # type: ignore[misc]

    def _RTCPeerConnection__createDtlsTransport(self) -> RTCDtlsTransport:
        with _in_place("RTCDtlsTransport", RepeatingDtlsTransport):
            made: RTCDtlsTransport = super()._RTCPeerConnection__createDtlsTransport()  # type: ignore[misc]
        return made


def make_connection(ice_servers: list[dict[str, Any]]) -> RTCPeerConnection:
    """`ice_servers` as the server's `welcome` has them: {urls, [username], [credential]}. Audio and data share one
    transport."""
    servers = [RTCIceServer(**server) for server in ice_servers]
    return _PeerConnection(RTCConfiguration(iceServers=servers, bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
