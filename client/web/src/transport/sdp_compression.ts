/** Inflating session descriptions (client/transport/sdp_compression.py); ours are sent as they are. */

import { inflateSync } from "fflate";
import { FormatError } from "../errors";

const MAX_SDP = 32_000;
const MAX_COMPRESSED = 8_000;
const DIGEST_BYTES = 32;
/** Part of the protocol. */
const COMMON_LINES = `\
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
`;
const DICTIONARY = new TextEncoder().encode(COMMON_LINES.replaceAll("\n", "\r\n"));

/** Return the SDP of a compressed one. Throws FormatError. Never inflates to more than MAX_SDP bytes. */
export function decompressSdp(text: string): string {
  if (text.length > MAX_COMPRESSED) throw new FormatError("A session description is too long.");
  let digest: Uint8Array;
  let body: string;
  try {
    const data = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
    digest = data.subarray(0, DIGEST_BYTES);
    // fflate drops what does not fit.
    const inflated = inflateSync(data.subarray(DIGEST_BYTES), { dictionary: DICTIONARY, out: new Uint8Array(MAX_SDP) });
    if (inflated.length >= MAX_SDP) throw new RangeError();
    body = new TextDecoder("utf-8", { fatal: true }).decode(inflated);
  } catch {
    throw new FormatError("A session description cannot be inflated.");
  }
  const fingerprint = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0").toUpperCase()).join(":");
  return body.replaceAll(/(?<=\na=fingerprint:sha-256 )(?=\r\n)/g, fingerprint);
}
