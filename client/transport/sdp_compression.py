"""Session descriptions made small for the way through the server. In base64 (RFC 4648, section 4): the 32 bytes of the
certificate's SHA-256 fingerprint, then the description without it in raw DEFLATE (RFC 1951) with a preset dictionary.

A description crosses the links of two participants, an offer and an answer each, one after the other: at 30 kbps the
plain text, 1.3 kB of which little but keys and addresses is not known beforehand, would take a third of the time that
joining takes.
"""

import re
import zlib
from base64 import b64decode, b64encode
from binascii import Error
from typing import Final

MOST: Final = 32_000
"""Characters of a description."""
MAX_PACKED: Final = 8_000
"""Characters of a packed one; what does not fit goes as it is."""
_RAW: Final = -15
_COMMON: Final = """\
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
DICTIONARY: Final = _COMMON.replace("\n", "\r\n").encode()
"""Part of the protocol: who changes it changes its version. The last is the nearest, and costs the fewest bits."""


def packed(sdp: str) -> str | None:
    """The description in base64; None where it would not fit, or has not one fingerprint, wherever it says it."""
    digests = set(_DIGEST.findall(sdp))
    if len(digests) != 1 or len(sdp) > MOST:
        return None
    digest = bytes.fromhex(digests.pop().replace(":", ""))
    deflate = zlib.compressobj(zlib.Z_BEST_COMPRESSION, zlib.DEFLATED, _RAW, 9, zlib.Z_DEFAULT_STRATEGY, DICTIONARY)
    data = deflate.compress(_DIGEST.sub("", sdp).encode()) + deflate.flush()
    text = b64encode(digest + data).decode()
    return text if len(digest) == _DIGEST_BYTES and len(text) <= MAX_PACKED else None


def unpacked(text: str) -> str:
    """The description of what `packed` gave. Raises ValueError for all else; never inflates to more than MOST."""
    if len(text) > MAX_PACKED:
        raise ValueError("too long")
    inflate = zlib.decompressobj(_RAW, DICTIONARY)
    try:
        bare = b64decode(text, validate=True)
        data = inflate.decompress(bare[_DIGEST_BYTES:], MOST)
    except (Error, zlib.error) as error:
        raise ValueError("not deflated") from error
    if not inflate.eof or inflate.unused_data:
        raise ValueError("does not end where it should")
    sdp = _DIGEST.sub(bare[:_DIGEST_BYTES].hex(":").upper(), data.decode())
    if len(sdp) > MOST:
        raise ValueError("too long")
    return sdp
