"""Break a connection: its packets no longer arrive."""

from typing import Any

from iwcodec.client.room import peer as p


def silence(peer: p.Peer) -> None:
    """Discard everything that `peer` sends from now on."""
    peer.connection.sctp.transport.transport._connection.sendto = lambda data, component: nothing()
    peer.connection.sctp.transport.transport._connection.send = lambda data: nothing()


async def nothing(*args: Any) -> None:
    return
