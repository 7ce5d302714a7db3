"""Peer connections: changes to aiortc's ICE, DTLS and SCTP for narrow and lossy links, and SDP compression."""
