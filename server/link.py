"""One WebSocket connection of the hub, and the reasons for which it ends or a message of it is dropped."""

import asyncio
from typing import Protocol

from iwcodec.server.limits import Allowance
from iwcodec.server.messages import ErrorCode, ServerMessage, encode
from iwcodec.server.store.base import Member


class Disconnected(Exception):
    """The peer has closed or lost the connection."""


class End(Exception):
    """The server closes this connection. `code` None: the participant left; otherwise an error message says why."""

    def __init__(self, code: ErrorCode | None, text: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Dropped(Exception):
    """This message is not processed. The participant gets an error, and the connection stays open."""

    def __init__(self, code: ErrorCode, text: str, suspicious: bool = True) -> None:
        """`suspicious`: a correct client never sends such a message, so it counts towards `Limits.dropped_burst`."""
        super().__init__(text)
        self.code = code
        self.text = text
        self.suspicious = suspicious


class Socket(Protocol):
    """One accepted WebSocket. Its methods raise Disconnected once it is closed."""

    async def receive(self) -> str | bytes: ...

    async def send(self, text: str) -> None: ...

    async def close(self, code: int) -> None: ...


class Link:
    """The state of one connection. `member` is None until the participant has joined."""

    def __init__(self, socket: Socket, room: str, address: str, allowance: Allowance, now: float) -> None:
        self.socket = socket
        self.room = room
        self.address = address
        """The peer's, as `iwcodec.server.limits.address_key` gives it."""
        self.allowance = allowance
        self.opened = now
        """Monotonic seconds, as is `heard`."""
        self.heard = now
        """Time of the last message."""
        self.member: Member | None = None
        self.is_host = False
        """Whether the participant has shown a host's token."""
        self.renewed = 0.0
        """Unix seconds of the last lease renewal that the store confirmed."""
        self.mail = asyncio.Event()
        """Set when the member's mailbox may hold messages."""
        self.ended: asyncio.Future[End | Disconnected] = asyncio.get_running_loop().create_future()
        self._sending = asyncio.Lock()

    async def send(self, message: ServerMessage) -> None:
        """Send one message; see `send_text`."""
        await self.send_text(encode(message))

    async def send_text(self, text: str) -> None:
        """Send one text frame. Waits while the peer does not read, which also pauses reading from that peer."""
        async with self._sending:
            await self.socket.send(text)

    def end(self, why: End | Disconnected) -> None:
        """Have the connection closed. Later calls are ignored."""
        if not self.ended.done():
            self.ended.set_result(why)
