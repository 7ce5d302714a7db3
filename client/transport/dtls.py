"""DTLS handshake with frequent retransmission, for lossy links.

OpenSSL retransmits a flight of the handshake (RFC 6347, section 4.2.4) after 1, 2, 4, 8 seconds. With every third
packet lost, a tenth of all handshakes would take more than 15 s. Here the last datagram, which is a whole flight, is
also retransmitted every REPEAT_S. The peer drops records that it has received before (section 4.1.2.6).
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable
from typing import Final

from aiortc import RTCIceTransport
from aiortc.rtcdtlstransport import RTCCertificate, RTCDtlsTransport, State
from cryptography.hazmat.primitives.hashes import SHA256
from OpenSSL import SSL

from iwcodec.codec.token_bucket import TokenBucket

log = logging.getLogger(__name__)

REPEAT_S: Final = 0.5
"""Retransmission interval: longer than a flight and its answer take on an otherwise idle link of 12 kbps."""
MAX_REPEATS: Final = 20
"""Maximum number of retransmissions of a flight."""
MAX_DATAGRAM: Final = 1500
"""Maximum size of a datagram, bytes, as in aiortc."""
PACKETS_PER_S, PACKET_BURST = 300.0, 900.0
"""Packets that are decrypted per second, at 0.3 ms each, and at once; more are dropped, as if the path had lost them. A
call has up to 50 a second of sound, and as many of everything else."""
IGNORED_PACKETS_PER_S = 60.0
"""Packets per second that are decrypted of a peer that is ignored (link/conduct.py): enough for its sound."""


async def _guarded(work: Awaitable[None]) -> None:
    """Drop a packet that aiortc cannot handle; it would close the whole connection instead."""
    try:
        await work
    except ConnectionError:
        raise
    except Exception as error:
        log.debug("RTP or RTCP packet dropped: %r", error)


class RepeatingDtlsTransport(RTCDtlsTransport):
    _flight = b""
    """The last datagram of the handshake, until the peer has confirmed it."""
    _repeating: asyncio.Task[None] | None = None
    _stopped = False

    def __init__(self, transport: RTCIceTransport, certificates: list[RTCCertificate]) -> None:
        super().__init__(transport, certificates)
        self.dropped: Counter[str] = Counter()
        """Packets of the peer that were dropped, by reason."""
        self.is_ignored = False
        """Whether the peer goes on exceeding its budgets, so that this one is smaller."""
        self._decryptable = TokenBucket(PACKETS_PER_S, PACKET_BURST)
        self._decryptable_ignored = TokenBucket(IGNORED_PACKETS_PER_S, IGNORED_PACKETS_PER_S)
        receive = transport._recv

        async def receive_within_budget() -> bytes:
            while True:
                data: bytes = await receive()
                budget = self._decryptable_ignored if self.is_ignored else self._decryptable
                if budget.take(asyncio.get_running_loop().time()):
                    return data
                self.dropped["flood"] += 1

        transport._recv = receive_within_budget

    @property
    def certificates(self) -> tuple[bytes, bytes] | None:
        """SHA-256 fingerprints of our certificate and of the one that the peer presented; None before the handshake."""
        theirs = None if self._ssl is None else self._ssl.get_peer_certificate(as_cryptography=True)
        ours: RTCCertificate = self._RTCDtlsTransport__local_certificate  # type: ignore[attr-defined]
        return None if theirs is None else (ours._cert.fingerprint(SHA256()), theirs.fingerprint(SHA256()))

    def confirm(self) -> None:
        """Stop retransmission: data have arrived, so the peer has finished the handshake."""
        self._flight = b""

    async def _handle_rtp_data(self, data: bytes, arrival_time_ms: int) -> None:
        await _guarded(super()._handle_rtp_data(data, arrival_time_ms))

    async def _handle_rtcp_data(self, data: bytes) -> None:
        await _guarded(super()._handle_rtcp_data(data))

    async def stop(self) -> None:
        self._flight, self._stopped = b"", True  # the alert that ends a handshake is not repeated
        if self._repeating is not None:
            self._repeating.cancel()
        await super().stop()

    async def _write_ssl(self) -> None:
        # As in aiortc, except for the first lines of `if data`.
        assert self._ssl is not None
        try:
            data = self._ssl.bio_read(MAX_DATAGRAM)
        except SSL.Error:
            data = b""
        if data:
            if self._state == State.CONNECTING and not self._stopped:
                self._flight = data
                self._repeat()
            await self.transport._send(data)
            self._RTCDtlsTransport__tx_bytes += len(data)  # type: ignore[attr-defined]
            self._RTCDtlsTransport__tx_packets += 1  # type: ignore[attr-defined]

    def _repeat(self) -> None:
        if self._repeating is not None:
            self._repeating.cancel()
        self._repeating = asyncio.ensure_future(self._repeat_flight(self._flight))

    async def _repeat_flight(self, flight: bytes) -> None:
        for _ in range(MAX_REPEATS):
            await asyncio.sleep(REPEAT_S)
            if self._flight != flight or self._state not in (State.CONNECTING, State.CONNECTED):
                return
            try:
                await self.transport._send(flight)
            except ConnectionError:
                return
