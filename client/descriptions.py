"""Session descriptions made small for the way through the server: raw DEFLATE (RFC 1951) with a preset dictionary, in
base64 (RFC 4648, section 4).

A description crosses the links of two participants, an offer and an answer each, one after the other: at 30 kbps the
plain text, 1.3 kB of which are known beforehand but for the keys and addresses, would take half of the time that
joining takes.
"""

import zlib
from base64 import b64decode, b64encode
from binascii import Error
from typing import Final

MOST: Final = 32_000
"""Characters of a description."""
MOST_PACKED: Final = 8_000
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
a=fingerprint:sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF
a=setup:active
a=setup:actpass
m=application 50000 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 192.168.1.1
a=mid:1
a=sctp-port:5000
a=max-message-size:262144
"""
DICTIONARY: Final = _COMMON.replace("\n", "\r\n").encode()
"""Part of the protocol: who changes it changes its version. The last is the nearest, and costs the fewest bits."""


def packed(sdp: str) -> str | None:
    """The description in base64; None where it would not fit."""
    deflate = zlib.compressobj(zlib.Z_BEST_COMPRESSION, zlib.DEFLATED, _RAW, 9, zlib.Z_DEFAULT_STRATEGY, DICTIONARY)
    text = b64encode(deflate.compress(sdp.encode()) + deflate.flush()).decode()
    return text if len(text) <= MOST_PACKED and len(sdp) <= MOST else None


def unpacked(text: str) -> str:
    """The description of what `packed` gave. Raises ValueError for all else; never inflates to more than MOST."""
    if len(text) > MOST_PACKED:
        raise ValueError("too long")
    inflate = zlib.decompressobj(_RAW, DICTIONARY)
    try:
        data = inflate.decompress(b64decode(text, validate=True), MOST)
    except (Error, zlib.error) as error:
        raise ValueError("not deflated") from error
    if not inflate.eof or inflate.unused_data:
        raise ValueError("does not end where it should")
    return data.decode()
