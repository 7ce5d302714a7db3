"""Peer connections whose set-up and data channels need few bytes, made from this package's transports."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from aiortc import (
    RTCBundlePolicy,
    RTCCertificate,
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    rtcpeerconnection,
)
from aiortc.exceptions import InvalidStateError
from aiortc.rtcdtlstransport import RTCDtlsFingerprint, RTCDtlsTransport, SRTPProtectionProfile
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from iwcodec.client.transport.dtls import RepeatingDtlsTransport
from iwcodec.client.transport.sctp import BundlingSctpTransport

if TYPE_CHECKING:
    from OpenSSL.SSL import Context


CIPHERS = b"ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA"
"""aiortc's cipher suites, the one with the shortest records first."""

VALIDITY = timedelta(days=30)
"""Validity of a certificate before and after its creation, because clocks may differ."""


class Certificate(RTCCertificate):
    """Prefers CIPHERS in their order, and the SRTP profile whose authentication tag takes 10 bytes of each packet
    (RFC 5764, section 4.1.2); that of AES-GCM takes 16."""

    @classmethod
    def generateCertificate(cls) -> "Certificate":
        """A certificate as small as possible: those of both ends are sent before the first picture, and only their
        fingerprint matters (RFC 8827, section 5.6.4.2). aiortc's contains a name of 32 letters twice."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "-")])
        now = datetime.now(tz=UTC)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        builder = builder.not_valid_before(now - VALIDITY).not_valid_after(now + VALIDITY)
        return cls(key, builder.serial_number(1 + secrets.randbelow(127)).sign(key, hashes.SHA256()))

    def getFingerprints(self) -> list[RTCDtlsFingerprint]:
        """SHA-256 only, as in browsers. The two others of aiortc make the SDP 50 % longer, and SDP crosses a narrow
        link four times before there is a connection."""
        return [fingerprint for fingerprint in super().getFingerprints() if fingerprint.algorithm == "sha-256"]

    def _create_ssl_context(self, srtp_profiles: list[SRTPProtectionProfile]) -> "Context":
        context = super()._create_ssl_context(sorted(srtp_profiles, key=lambda p: b"SHA1_80" not in p.openssl_profile))
        context.set_cipher_list(CIPHERS)
        return context


@cache
def own_certificate() -> Certificate:
    """The certificate of all connections of this process: the words that verify them (link/verification.py) survive a
    reconnection."""
    return Certificate.generateCertificate()


@contextmanager
def _substituted(name: str, replacement: type) -> Iterator[None]:
    """Within this context aiortc's peer connection uses `replacement` for its class of that name."""
    original = getattr(rtcpeerconnection, name)
    setattr(rtcpeerconnection, name, replacement)
    try:
        yield
    finally:
        setattr(rtcpeerconnection, name, original)


class _PeerConnection(RTCPeerConnection):
    """A peer connection with this package's transports. aiortc creates its own in private methods that name the
    classes, so the classes are substituted during these calls, while nothing else can run."""

    def __init__(self, configuration: RTCConfiguration) -> None:
        super().__init__(configuration)
        self._RTCPeerConnection__certificates = [own_certificate()]

    async def _RTCPeerConnection__connect(self) -> None:
        try:
            await super()._RTCPeerConnection__connect()  # type: ignore[misc]
        except InvalidStateError:  # in a task of aiortc, which nobody awaits
            if self.connectionState != "closed":
                raise

    def _RTCPeerConnection__createSctpTransport(self) -> None:
        with _substituted("RTCSctpTransport", BundlingSctpTransport):
            super()._RTCPeerConnection__createSctpTransport()  # type: ignore[misc]

    def _RTCPeerConnection__createDtlsTransport(self) -> RTCDtlsTransport:
        with _substituted("RTCDtlsTransport", RepeatingDtlsTransport):
            transport: RTCDtlsTransport = super()._RTCPeerConnection__createDtlsTransport()  # type: ignore[misc]
        return transport


def make_connection(ice_servers: list[dict[str, Any]]) -> RTCPeerConnection:
    """A peer connection whose audio and data share one transport. `ice_servers`: as in the server's `welcome` message,
    {urls, [username], [credential]}."""
    servers = [RTCIceServer(**server) for server in ice_servers]
    return _PeerConnection(RTCConfiguration(iceServers=servers, bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
