"""TCP connections below HTTP: caps on their number, and a deadline for each request.

uvicorn has neither: a request that is never completed keeps its connection forever, and a client that opens enough of
them takes all file descriptors. `ServerConfig` adds both to uvicorn's protocol classes. They also start TLS, instead of
uvicorn, so that connections whose handshake is not complete are counted and closed as well.
"""

import asyncio
import contextlib
import socket
import sys
from collections import Counter
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from ssl import SSLContext
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.utils import get_remote_addr
from uvicorn.protocols.websockets.auto import AutoWebSocketsProtocol

from iwcodec.server.http.app import create_app
from iwcodec.server.hub import Hub
from iwcodec.server.limits import address_key
from iwcodec.server.messages import MAX_MESSAGE_BYTES

MAX_HEADER_BYTES: Final = 16 * 1024
"""Longest request line and headers. Browsers send 1 to 2 KB."""
HTTP_CONNECTIONS: Final = 100
"""Connections beyond those of WebSockets, for pages and the API."""
RESERVED_DESCRIPTORS: Final = 256
"""File descriptors that are not for admitted clients, but for Redis (16), for files, and for connections that were
accepted and are about to be refused."""
ACCEPT_SHARE: Final = 8
"""asyncio accepts up to uvicorn's `backlog` connections per turn of the event loop, and it takes four turns until those
in excess are refused and closed. `backlog` is the reserve divided by this, so that the reserve suffices."""
LISTEN_QUEUE: Final = 1024
"""Connections that the system keeps until they are accepted."""
SHUTDOWN_S: Final = 10
"""Seconds that connections have to close when the server stops."""
assert AutoWebSocketsProtocol is not None, "uvicorn needs the package websockets"


class Connections:
    """The open TCP connections of this process, counted by address."""

    def __init__(self, hub: Hub, capacity: int) -> None:
        """`capacity`: connections of all addresses together."""
        self.hub = hub
        self.capacity = capacity
        # Where the system allows few descriptors, one address must not take them all.
        self.address_limit = min(hub.settings.limits.address_connections, capacity // 2)
        self.open: Counter[str] = Counter()
        self.proxies = [ip_network(proxy) for proxy in hub.settings.trusted_proxies]

    def admit(self, address: str) -> bool:
        """Return whether one more connection of `address` is accepted. A trusted proxy has no cap of its own."""
        if self.open.total() >= self.capacity:
            self.hub.refuse("capacity", address)
        elif self.open[address_key(address)] >= self.address_limit and not _is_in(address, self.proxies):
            self.hub.refuse("connections", address)
        else:
            return True
        return False

    def count(self, address: str) -> None:
        """Count a connection that was opened."""
        self.open[address_key(address)] += 1

    def discount(self, address: str) -> None:
        """Count a connection that was closed."""
        key = address_key(address)
        self.open[key] -= 1
        if not self.open[key]:
            del self.open[key]


class ServerConfig(uvicorn.Config):
    """uvicorn's configuration of a server for the rooms of `hub`, with caps and deadlines for connections."""

    def __init__(self, hub: Hub, certificate: tuple[Path, Path] | None = None) -> None:
        """`certificate`: PEM files of the certificate and its key; without them the server speaks plain HTTP."""
        settings = hub.settings
        clients = settings.limits.connections + HTTP_CONNECTIONS
        descriptors = allow_descriptors(clients + RESERVED_DESCRIPTORS)
        reserved = min(RESERVED_DESCRIPTORS, descriptors // 2)
        self.clients = Connections(hub, descriptors - reserved)
        self.tls: SSLContext | None = None
        super().__init__(
            create_app(hub),
            # uvloop does not pause reading before TLS starts, and loses the client's first message.
            loop="asyncio",
            # h11 limits the size of headers; httptools does not.
            http=HttpProtocol,
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
            ws=WebSocketProtocol,
            ws_max_size=MAX_MESSAGE_BYTES,
            ws_max_queue=8,
            # Messages are small, and without compression no small frame can expand to a huge one.
            ws_per_message_deflate=False,
            # uvicorn's own log lines contain the addresses of rooms.
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=list(settings.trusted_proxies),
            ssl_certfile=certificate[0] if certificate else None,
            ssl_keyfile=certificate[1] if certificate else None,
            backlog=max(1, reserved // ACCEPT_SHARE),
            timeout_graceful_shutdown=SHUTDOWN_S,
        )

    def load(self) -> None:
        super().load()
        # uvicorn would accept TLS connections itself, and show them to the protocol only after the handshake.
        self.tls, self.ssl = self.ssl, None


class Server(uvicorn.Server):
    """uvicorn's server, with a listening queue that is longer than the number of connections accepted at once."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(LISTEN_QUEUE)


class HttpProtocol(H11Protocol):
    """HTTP on a counted connection. Each response must be complete `Limits.request_s` after the previous one."""

    config: ServerConfig

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.tcp = transport
        """The transport below TLS."""
        self.address = _address(transport)
        self.counted = self.config.clients.admit(self.address)
        self.early = b""
        """Data that arrived with the last message of the TLS handshake."""
        self.deadline: asyncio.TimerHandle | None = None
        if not self.counted:
            transport.abort()
            return
        self.config.clients.count(self.address)
        # asyncio sets this only on sockets made with the protocol number of TCP. Without it each answer, which is
        # written in two parts, is 40 ms late.
        with contextlib.suppress(OSError):
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._start_deadline()
        if self.config.tls:
            # start_tls resumes reading, once the data no longer comes here.
            transport.pause_reading()
            self.handshake = self.loop.create_task(self._start_tls(self.config.tls))
        else:
            super().connection_made(transport)

    async def _start_tls(self, context: SSLContext) -> None:
        secure = None
        with contextlib.suppress(OSError):
            secure = await self.loop.start_tls(self.tcp, self, context, server_side=True)
        if secure is None or not self.counted:
            # The peer has left, does not speak TLS, or was too slow.
            self.tcp.abort()
            self._stop_counting()
            return
        super().connection_made(secure)
        if self.early:
            super().data_received(self.early)

    def data_received(self, data: bytes) -> None:
        if self.transport is None:
            self.early += data
        else:
            super().data_received(data)

    def on_response_complete(self) -> None:
        self._start_deadline()
        super().on_response_complete()

    def handle_websocket_upgrade(self, event: Any) -> None:
        # From here on the connection is counted by the WebSocket's protocol, and has the deadlines of the hub.
        self._stop_counting()
        super().handle_websocket_upgrade(event)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_counting()
        if self.transport is not None:
            super().connection_lost(exc)

    def _start_deadline(self) -> None:
        if self.deadline:
            self.deadline.cancel()
        self.deadline = self.loop.call_later(self.config.clients.hub.settings.limits.request_s, self._expire)

    def _expire(self) -> None:
        self.config.clients.hub.refuse("slow", self.address)
        self.tcp.abort()

    def _stop_counting(self) -> None:
        if self.deadline:
            self.deadline.cancel()
        if self.counted:
            self.config.clients.discount(self.address)
            self.counted = False


class WebSocketProtocol(AutoWebSocketsProtocol):  # type: ignore[misc, valid-type]
    """A WebSocket on a counted connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.address = _address(transport)
        self.config.clients.count(self.address)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.config.clients.discount(self.address)
        super().connection_lost(exc)


def allow_descriptors(needed: int) -> int:
    """Raise this process' limit of open files to `needed`, as far as the system allows.

    Returns `needed`, or the limit if that is lower.
    """
    if sys.platform == "win32":
        return needed
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return needed
    raised = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
    return raised


def _address(transport: asyncio.Transport) -> str:
    peer = get_remote_addr(transport)
    return peer[0] if peer else ""


def _is_in(address: str, networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    try:
        return any(ip_address(address) in network for network in networks)
    except ValueError:
        return False
