"""Peer connections whose data channels cost less."""

from typing import Any

from aiortc import RTCPeerConnection


def make_connection(ice_servers: list[dict[str, Any]]) -> RTCPeerConnection:
    """`ice_servers` as the server's `welcome` has them: {urls, [username], [credential]}."""
    raise NotImplementedError
