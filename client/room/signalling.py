"""WebSocket client of the signalling server.

Losing the WebSocket does not end the call: `Signalling` reconnects with growing delays and resumes the membership in
the room, while the peer connections carry on. Malformed messages from the server are dropped and counted.
"""

import asyncio
import json
import random
import ssl
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from socket import IPPROTO_TCP
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from iwcodec.client.room.protocol import (
    FATAL_CLOSE_CODES,
    MAX_MESSAGE_BYTES,
    MEMBERSHIP_EXPIRED,
    PROTOCOL_VERSION,
    ROOM_FULL,
    SERVICE_RESTART,
    Disconnected,
    Event,
    Joined,
    MalformedMessage,
    ServerError,
    SignallingError,
    Welcome,
    clean_name,
    parse_address,
    parse_message,
    parse_welcome,
    sdp_fields,
)
from iwcodec.client.room.resume_file import ResumeFile

OPEN_TIMEOUT_S: Final = 12.0
"""Maximum time to open a WebSocket, all attempts included."""
CONNECT_ATTEMPTS_S: Final = (0.0, 1.5, 4.0)
"""Start times of parallel connection attempts; the first to finish decides. TCP retransmits a lost SYN only after 1, 3
and 7 s, so a new attempt between those is faster."""
WELCOME_TIMEOUT_S: Final = 5.0
"""Maximum wait for the answer to a join request."""
FULL_PATIENCE_S: Final = 45.0
"""Time for which joining a full room is tried again: longer than the server keeps the place of somebody it has lost,
who may be ourselves."""
MAX_JOIN_ATTEMPTS: Final = 3
"""Join requests without an answer after which the first join fails. One lost answer does not prove a broken server."""
RECONNECT_DELAYS_S: Final = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
"""Delays between reconnection attempts, each with 25 % jitter; the last one repeats."""
PING_INTERVAL_S: Final = 5.0
"""Maximum interval between pings; the server can ask for a shorter one."""
FIRST_PING_S: Final = 1.0
"""Delay of the first ping after joining, so that offers go first."""
PONG_TIMEOUT_S: Final = 3.0
"""Maximum wait for any message after a ping. By then TCP's retransmission timer has backed off to seconds, and a new
connection is faster."""
MAX_UNCONFIRMED: Final = 64
"""Signals kept for retransmission until the server confirms them."""
TCP_THIN_LINEAR_TIMEOUTS: Final = 16
"""Linux socket option: retransmit on sparse connections at a constant interval instead of backing off exponentially.
At 33 % loss, the back-off would dominate the time to join."""


class Signalling:
    """Connection of one participant to a room. Iterate over `events` once.

    Messages sent while the server is unreachable are lost: the peers make new offers instead. Signals that were in
    flight when the connection broke are sent again after it is resumed.
    """

    def __init__(
        self,
        address: str,
        name: str,
        reconnect_delays_s: tuple[float, ...] = RECONNECT_DELAYS_S,
        token: str | None = None,
        authority: Path | None = None,
        resume_file: ResumeFile | None = None,
    ) -> None:
        """`token`: of the invitation, instead of one in the address. `authority`: PEM file with the certificate that
        signed the server's, besides those that the system trusts. `resume_file` keeps our place if the program is
        killed.

        Raises SignallingError where `address` is not the address of a room or `authority` cannot be read."""
        parsed = parse_address(address)
        self.address = replace(parsed, token=token or parsed.token)
        self._tls = _tls_context(authority) if parsed.websocket_url.startswith("wss:") else None
        self.name = clean_name(name)
        self.dropped: dict[str, int] = {}
        """Malformed messages from the server, by reason."""
        self._reconnect_delays_s = reconnect_delays_s
        self._socket: ClientConnection | None = None
        self._resume_file = resume_file
        self._resume: str | None = None if resume_file is None else resume_file.read()
        self._full_until_s: float | None = None
        """Until when joining a full room is tried again; None before it was full."""
        self._leaving = asyncio.Event()
        self._joined: Joined
        self._received = False
        """Whether anything has arrived since the last ping."""
        self._unanswered_joins = 0
        self._signals = 0
        """Signals sent so far."""
        self._unconfirmed: deque[tuple[int, str]] = deque(maxlen=MAX_UNCONFIRMED)
        """(number, message) of signals that may not have reached the server: no ping sent after them is answered."""
        self._pings: deque[int] = deque()
        """For each unanswered ping, the number of signals sent before it."""
        self._server_error: str | None = None
        """Text of the last error message, which explains a close code that follows."""

    async def events(self) -> AsyncIterator[Event]:
        """Yield what happens in the room until `leave`.

        Raises SignallingError where joining cannot succeed; on the first attempt also when the server is unreachable.
        """
        failures = 0
        has_joined = False
        while not self._leaving.is_set():
            lost = None
            try:
                async for event in self._session():
                    if isinstance(event, Joined):
                        failures, has_joined = 0, True
                    yield event
            except _ConnectionLost as error:
                if not has_joined and not error.retry and not self._leaving.is_set():
                    raise SignallingError(error.text) from None
                lost = error
            if self._leaving.is_set():
                return
            if lost is not None:
                yield Disconnected(lost.text)
                failures = 0 if lost.at_once else failures
            delay_s = self._reconnect_delays_s[min(failures, len(self._reconnect_delays_s) - 1)]
            failures += 1
            with suppress(TimeoutError):
                await asyncio.wait_for(self._leaving.wait(), delay_s * random.uniform(0.75, 1.25))

    async def send_description(self, to: str, kind: str, sdp: str, call: str) -> None:
        """Send an SDP `offer` or `answer` (`kind`) to the participant `to`, for the peer connection named `call`."""
        await self._send(type="signal", to=to, sdp=sdp_fields(kind, sdp), call=call)

    async def request_ice_servers(self) -> None:
        """Request fresh STUN and TURN servers, which arrive as an IceServers event."""
        await self._send(type="ice")

    async def lock(self, on: bool) -> None:
        """As the host: admit nobody else, or unlock the room."""
        await self._send(type="lock", on=on)

    async def remove(self, id: str) -> None:
        """As the host: remove a participant."""
        await self._send(type="remove", id=id)

    def reconnect(self) -> None:
        """Drop the WebSocket and reconnect at once, after a network change that no time-out has to confirm."""
        if self._socket is not None:
            self._socket.transport.abort()

    async def leave(self) -> None:
        """Leave the room and end `events`."""
        self._leaving.set()
        if self._resume_file is not None:
            self._resume_file.forget()
        await self._send(type="leave")
        if self._socket is not None:
            await self._socket.close()

    async def _open(self) -> ClientConnection:
        """Open a WebSocket. Raises _ConnectionLost if `leave` is called first."""
        opening = asyncio.create_task(self._race_attempts())
        leaving = asyncio.create_task(self._leaving.wait())
        try:
            await asyncio.wait((opening, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not opening.done():
                raise _ConnectionLost("The call was left.")
            return await opening
        finally:
            leaving.cancel()
            opening.cancel()

    async def _race_attempts(self) -> ClientConnection:
        """Start staggered attempts and return, or raise, the outcome of the first to finish."""
        attempts = [asyncio.create_task(self._attempt(delay_s)) for delay_s in CONNECT_ATTEMPTS_S]
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await asyncio.wait(attempts, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for attempt in attempts:
                attempt.cancel()
        finished = [attempt for attempt in attempts if attempt.done()]
        for attempt in finished[1:]:  # finished in the same iteration of the event loop
            if attempt.exception() is None:
                await attempt.result().close()
        return finished[0].result()

    async def _attempt(self, delay_s: float) -> ClientConnection:
        await asyncio.sleep(delay_s)
        socket = await connect(
            self.address.websocket_url,
            open_timeout=None,
            max_size=MAX_MESSAGE_BYTES,
            compression=None,
            ping_interval=None,
            ssl=self._tls,
        )
        if sys.platform == "linux":
            socket.transport.get_extra_info("socket").setsockopt(IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, 1)
        return socket

    async def _session(self) -> AsyncIterator[Event]:
        """Run one WebSocket from the join request to its end.

        Raises _ConnectionLost, or SignallingError where another attempt cannot succeed.
        """
        try:
            socket = self._socket = await self._open()
            try:
                if self._leaving.is_set():  # while the WebSocket was opening
                    return
                ping_s = await self._join(socket)
                await self._resend_unconfirmed(socket)
                pinging = asyncio.create_task(self._ping(socket, min(ping_s, PING_INTERVAL_S)))
                try:
                    yield self._joined
                    async for text in socket:
                        self._received = True
                        event = self._parse(text)
                        if event is not None:
                            yield event
                finally:
                    pinging.cancel()
            finally:
                await socket.close()
            raise _ConnectionLost("The server closed the connection.", retry=True)
        except ConnectionClosed as error:
            raise self._closed(error) from None
        except InvalidStatus as error:
            status = error.response.status_code
            if status in (403, 404):
                raise SignallingError(f"There is no room at this address (HTTP status {status}).") from None
            raise _ConnectionLost(f"The server is not available (HTTP status {status}).") from None
        except (InvalidHandshake, InvalidURI, EOFError, UnicodeError) as error:  # UnicodeError: host of a redirection
            raise _ConnectionLost(f"What answers at {self.address.websocket_url} is not an iwcodec server.") from error
        except TimeoutError:
            raise _ConnectionLost("The server does not answer.") from None
        except ssl.SSLCertVerificationError as error:
            raise SignallingError(
                f"The server's certificate is not trusted ({error.verify_message}). If it is your own server's, name "
                "the certificate that signed it: --ca FILE."
            ) from None
        except OSError as error:
            raise _ConnectionLost(f"The server cannot be reached: {error.strerror or error}.") from None
        finally:
            self._socket = None

    async def _join(self, socket: ClientConnection) -> float:
        """Send the join request and set `_joined`; returns the ping interval that the server asks for, in seconds."""
        request: dict[str, Any] = {"type": "join", "protocol": PROTOCOL_VERSION, "name": self.name}
        request |= {"token": self.address.token} if self.address.token else {}
        request |= {"resume": self._resume} if self._resume else {}
        await socket.send(json.dumps(request))
        try:
            async with asyncio.timeout(WELCOME_TIMEOUT_S):
                while not isinstance(answer := parse_welcome(await socket.recv()), Welcome):
                    self._server_error = answer.text
        except TimeoutError:
            socket.transport.abort()
            self._unanswered_joins += 1
            can_retry = self._unanswered_joins < MAX_JOIN_ATTEMPTS
            raise _ConnectionLost("The server does not answer.", retry=can_retry) from None
        except MalformedMessage as error:
            raise _ConnectionLost(f"The server's welcome cannot be understood: {error}.") from None
        self._joined, self._resume, self._full_until_s = answer.joined, answer.resume, None
        if self._resume_file is not None:
            self._resume_file.write(self._resume)
        return answer.ping_s

    def _parse(self, text: str | bytes) -> Event | None:
        try:
            event = parse_message(text)
        except MalformedMessage as error:
            self.dropped[str(error)] = self.dropped.get(str(error), 0) + 1
            return None
        if event is None:  # a pong
            self._confirm()
        if isinstance(event, ServerError):
            self._server_error = event.text
        return event

    def _confirm(self) -> None:
        """A pong has arrived: the server has every signal that was sent before the ping."""
        confirmed = self._pings.popleft() if self._pings else 0
        while self._unconfirmed and self._unconfirmed[0][0] <= confirmed:
            self._unconfirmed.popleft()

    def _closed(self, error: ConnectionClosed) -> Exception:
        """The exception to raise for a close code."""
        code = error.rcvd.code if error.rcvd else 1006
        reason, self._server_error = self._server_error, None
        if code == MEMBERSHIP_EXPIRED:
            self._resume = None
        if code == ROOM_FULL:
            now = asyncio.get_running_loop().time()
            self._full_until_s = self._full_until_s or now + FULL_PATIENCE_S
            if now < self._full_until_s:
                return _ConnectionLost("The room is full; waiting for a place.", retry=True)
        if code in FATAL_CLOSE_CODES:
            return SignallingError(reason if reason and code in (4001, ROOM_FULL) else FATAL_CLOSE_CODES[code])
        if code == SERVICE_RESTART:
            return _ConnectionLost("The server is restarting.", retry=True, at_once=True)
        return _ConnectionLost(reason or "The connection to the server was lost.", retry=True)

    async def _resend_unconfirmed(self, socket: ClientConnection) -> None:
        """Resend, in order, the signals that may not have reached the server; receivers ignore duplicates."""
        if not self._joined.resumed:
            self._unconfirmed.clear()
        self._pings.clear()
        for _, text in list(self._unconfirmed):
            await socket.send(text)

    async def _ping(self, socket: ClientConnection, interval_s: float) -> None:
        """Keep the membership alive, and detect a dead connection within seconds; TCP alone takes minutes."""
        await asyncio.sleep(min(FIRST_PING_S, interval_s))
        while True:
            self._received = False
            self._pings.append(self._signals)
            try:
                await socket.send('{"type":"ping"}')
            except ConnectionClosed:
                return
            await asyncio.sleep(min(PONG_TIMEOUT_S, interval_s))
            if not self._received:
                socket.transport.abort()
                return
            await asyncio.sleep(interval_s - min(PONG_TIMEOUT_S, interval_s))

    async def _send(self, **message: Any) -> None:
        socket, text = self._socket, json.dumps(message, separators=(",", ":"))
        if socket is None:
            return
        if message["type"] == "signal":
            self._signals += 1
            self._unconfirmed.append((self._signals, text))
        try:
            await socket.send(text)
        except ConnectionClosed:
            return


def _tls_context(authority: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if authority is not None:
        try:
            context.load_verify_locations(authority)
        except OSError as error:  # ssl.SSLError is one
            raise SignallingError(
                f"{authority} holds no certificate in PEM format: {error.strerror or error}."
            ) from None
    return context


class _ConnectionLost(Exception):
    """The WebSocket cannot be opened or was lost. `retry`: try again even if the room was never joined; `at_once`:
    without delay."""

    def __init__(self, text: str, retry: bool = False, at_once: bool = False) -> None:
        super().__init__(text)
        self.text, self.retry, self.at_once = text, retry, at_once
