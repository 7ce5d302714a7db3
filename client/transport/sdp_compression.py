"""Compression of session descriptions (SDP) for signalling.

The result is base64 (RFC 4648, section 4) of the 32 bytes of the certificate's SHA-256 fingerprint, followed by the SDP
without the fingerprint in raw DEFLATE (RFC 1951) with a preset dictionary.

Offer and answer cross the links of two participants, one after the other. At 30 kbps plain SDP, 1.3 kB of which little
but keys and addresses is unpredictable, would take a third of the time to join.
"""

import re
import zlib
from base64 import b64decode, b64encode
from binascii import Error
from typing import Final

MAX_SDP: Final = 32_000
"""Maximum length of an SDP, characters."""
MAX_COMPRESSED: Final = 8_000
"""Maximum length of a compressed SDP, characters; a longer one is sent uncompressed."""
_RAW: Final = -15
_COMMON_LINES: Final = """\
a=candidate:0 1 udp 1694498815 100.64.0.1 40000 typ srflx raddr 172.16.0.1 rport 50000
a=candidate:0 1 udp 16777215 10.0.0.1 60000 typ relay raddr 192.168.1.1 rport 30000
a=inactive
a=recvonly
a=sendonly
a=setup:passive
v=0
o=- 4000000000 4000000000 IN IP4 0.0.0.0
s=-
t=0 0
a=group:BUNDLE 0 1
a=msid-semantic:WMS *
m=audio 50000 UDP/TLS/RTP/SAVPF 96
c=IN IP4 192.168.1.1
a=sendrecv
a=mid:0
a=msid:-4000-8000-9000-a000-b000-
a=rtcp:9 IN IP4 0.0.0.0
a=rtcp-mux
a=ssrc:1000000000 cname:
a=rtpmap:96 opus/48000/2
a=candidate:0 1 udp 2130706431 192.168.1.1 50000 typ host
a=candidate:0 1 udp 2130706431 2001:fd00::1 50000 typ host
a=end-of-candidates
a=ice-ufrag:
a=ice-pwd:
a=fingerprint:sha-256\x20
a=setup:active
a=setup:actpass
m=application 50000 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 192.168.1.1
a=mid:1
a=sctp-port:5000
a=max-message-size:262144
"""
_DIGEST: Final = re.compile(r"(?<=\na=fingerprint:sha-256 )([0-9A-F]{2}(?::[0-9A-F]{2}){31})?(?=\r\n)")
_DIGEST_BYTES: Final = 32
DICTIONARY: Final = _COMMON_LINES.replace("\n", "\r\n").encode()
"""Part of the protocol: a change needs another protocol version. Lines near the end are the cheapest to refer to."""


def compress_sdp(sdp: str) -> str | None:
    """The compressed SDP; None if it or the result is too long, or if it does not have exactly one distinct
    fingerprint."""
    digests = set(_DIGEST.findall(sdp))
    if len(digests) != 1 or len(sdp) > MAX_SDP:
        return None
    digest = bytes.fromhex(digests.pop().replace(":", ""))
    deflate = zlib.compressobj(zlib.Z_BEST_COMPRESSION, zlib.DEFLATED, _RAW, 9, zlib.Z_DEFAULT_STRATEGY, DICTIONARY)
    data = deflate.compress(_DIGEST.sub("", sdp).encode()) + deflate.flush()
    text = b64encode(digest + data).decode()
    return text if len(digest) == _DIGEST_BYTES and len(text) <= MAX_COMPRESSED else None


def decompress_sdp(text: str) -> str:
    """Inverse of `compress_sdp`. Raises ValueError for anything else. Never inflates to more than MAX_SDP
    characters."""
    if len(text) > MAX_COMPRESSED:
        raise ValueError("too long")
    inflate = zlib.decompressobj(_RAW, DICTIONARY)
    try:
        data = b64decode(text, validate=True)
        body = inflate.decompress(data[_DIGEST_BYTES:], MAX_SDP)
    except (Error, zlib.error) as error:
        raise ValueError("not deflated") from error
    if not inflate.eof or inflate.unused_data:
        raise ValueError("does not end with the DEFLATE stream")
    sdp = _DIGEST.sub(data[:_DIGEST_BYTES].hex(":").upper(), body.decode())
    if len(sdp) > MAX_SDP:
        raise ValueError("too long")
    return sdp
