"""The way to the others: a participant's end of the server's signalling protocol, over one WebSocket.

The protocol is described in the server's OpenAPI document (`/openapi.json`) and in `iwcodec.server.messages`. Losing
the WebSocket is not leaving: `Signalling` reconnects with growing pauses and resumes its place, and the connections to
the others go on meanwhile. Everything received is foreign: what is not of the protocol is dropped and counted.
"""

import asyncio
import json
import random
import re
import sys
import unicodedata
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from socket import IPPROTO_TCP
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from iwcodec.client.transport.sdp_compression import MAX_PACKED, MOST, packed, unpacked
from iwcodec.codec.errors import CodecError

PROTOCOL: Final = 2
MAX_MESSAGE_BYTES: Final = 128 * 1024
"""A welcome to a full room, or the largest description, in escaped JSON."""
MAX_NAME: Final = 40
OPEN_S: Final = 12.0
"""Longest wait for the server when connecting."""
ATTEMPTS_S: Final = (0.0, 1.5, 4.0)
"""When connections to it are tried, until one stands: what TCP loses at its beginning it repeats after 1, 3 and 7 s."""
WELCOME_S: Final = 5.0
PAUSES_S: Final = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
"""Between attempts to reconnect; the last one goes on for ever. Each is spread by a quarter."""
WELCOMES: Final = 3
"""Tries to join at a server that takes connections and then says nothing: it may have, and all of it was lost."""
PING_S: Final = 5.0
"""Between pings, at most."""
FIRST_PING_S: Final = 1.0
PONG_S: Final = 3.0
"""Longest wait for the answer: by then TCP waits for seconds after every loss, and a new connection is faster."""
MAX_UNCONFIRMED: Final = 64
THIN_LINEAR_TIMEOUTS: Final = 16
"""Linux's TCP_THIN_LINEAR_TIMEOUTS: what little there is to send is repeated at an even pace, not after ever longer
pauses. Where every third packet is lost those would be what joining takes."""
GOING_AWAY: Final = 1012
"""Close code: this server process ends, another one is there."""

FINAL: Final[dict[int, str]] = {
    1002: "The server does not speak the protocol of this program.",
    1008: "The server refused the connection.",
    4001: "The room is by invitation: the invitation is missing, has expired or belongs to another room.",
    4002: "The room is full.",
    4003: "The server speaks another version of the protocol; update iwcodec on one of the two sides.",
    4004: "The server closed the connection because too many messages were sent.",
    4006: "This call was taken over by another connection of the same participant.",
}
"""Close codes after which reconnecting cannot help, and what they mean."""
LOST: Final = 4007
"""Close code: the place in the room lapsed; join anew."""

_ID = re.compile(r"[A-Za-z0-9_-]{1,32}")


class SignallingError(CodecError):
    """The room cannot be joined, or not any more; the text says why."""


class Dropped(ValueError):
    """A message that is none of the protocol's."""


@dataclass(frozen=True)
class Address:
    """Where a room is: its WebSocket's URL and the token of an invitation."""

    socket: str
    room: str
    token: str | None


@dataclass(frozen=True)
class Joined:
    """We are in the room: the answer to joining or to resuming."""

    id: str
    resumed: bool
    peers: dict[str, str]
    """Names by id."""
    ice_servers: list[dict[str, Any]]
    ice_ttl_s: float


@dataclass(frozen=True)
class PeerJoined:
    id: str
    name: str


@dataclass(frozen=True)
class PeerLeft:
    id: str
    lost: bool
    """It did not say goodbye; a direct connection to it may still carry traffic."""


@dataclass(frozen=True)
class Description:
    """An offer or answer from a peer; `call` names the peer connection it belongs to."""

    sender: str
    kind: str
    sdp: str
    call: str


@dataclass(frozen=True)
class Candidate:
    """A trickled ICE candidate (RFC 8838); None: there will be no more."""

    sender: str
    candidate: dict[str, Any] | None
    call: str


@dataclass(frozen=True)
class IceServers:
    servers: list[dict[str, Any]]
    ttl_s: float


@dataclass(frozen=True)
class Refused:
    """The server's complaint about a message of ours; the connection stays."""

    code: str
    text: str


@dataclass(frozen=True)
class Disconnected:
    """The WebSocket is lost; reconnecting goes on by itself."""

    why: str


Event = Joined | PeerJoined | PeerLeft | Description | Candidate | IceServers | Refused | Disconnected


def parse_address(address: str) -> Address:
    """`https://HOST/r/ROOM`, with `#token=...` of an invitation where there is one. Raises SignallingError."""
    refused = SignallingError(f"{address!r} is not the address of a room: https://HOST/r/ROOM.")
    try:
        parts = urlsplit(address)
        host, token = parts.hostname or "", parse_qs(parts.fragment).get("token", [None])[0]
        host.encode("idna")
        _ = parts.port
    except ValueError:
        raise refused from None
    found = re.fullmatch(r"(.*)/r/([A-Za-z0-9][A-Za-z0-9_-]{0,63})/?", parts.path)
    if parts.scheme not in ("http", "https") or not re.fullmatch(r"[^\s\x00-\x1f\x7f]+", host) or found is None:
        raise refused
    scheme = "ws" if parts.scheme == "http" else "wss"
    return Address(f"{scheme}://{parts.netloc}{found[1]}/r/{found[2]}/ws", found[2], token)


def clean_name(name: str) -> str:
    """A participant's name as it may be shown: printable, at most MAX_NAME characters, never empty."""
    kept = "".join(c for c in unicodedata.normalize("NFC", name) if c.isprintable()).strip()
    return kept[:MAX_NAME].strip() or "somebody"


class Signalling:
    """One participant's way to the server. Iterate over `events` once. What is sent while the server is away is lost,
    as offers are made anew; what was on its way as the connection broke is sent again."""

    def __init__(self, address: str, name: str, pauses_s: tuple[float, ...] = PAUSES_S) -> None:
        """Raises SignallingError for what is no room's address."""
        self.address = parse_address(address)
        self.name = clean_name(name)
        self.dropped: dict[str, int] = {}
        """Malformed messages from the server, by reason."""
        self._pauses_s = pauses_s
        self._socket: ClientConnection | None = None
        self._resume: str | None = None
        self._leaving = asyncio.Event()
        self._joined: Joined
        self._heard = False
        self._mute = 0
        """Connections on which the server did not answer."""
        self._signals = 0
        """Sent so far."""
        self._unconfirmed: deque[tuple[int, str]] = deque(maxlen=MAX_UNCONFIRMED)
        """Signals that the server may not have, numbered: it has not answered a ping that was sent after them."""
        self._pings: deque[int] = deque()
        """Of those without an answer yet, how many signals had been sent before."""
        self._said: str | None = None
        """The server's last words before it closed."""

    async def events(self) -> AsyncIterator[Event]:
        """What happens, until `leave`. Raises SignallingError where joining cannot succeed: at the first attempt also
        when the server cannot be reached."""
        failures = 0
        known = False
        while not self._leaving.is_set():
            why = None
            try:
                async for event in self._session():
                    if isinstance(event, Joined):
                        failures, known = 0, True
                    yield event
            except _Lost as lost:
                if not known and not lost.retry and not self._leaving.is_set():
                    raise SignallingError(lost.text) from None
                why = lost
            if self._leaving.is_set():
                return
            if why is not None:
                yield Disconnected(why.text)
                failures = 0 if why.at_once else failures
            pause = self._pauses_s[min(failures, len(self._pauses_s) - 1)]
            failures += 1
            with suppress(TimeoutError):
                await asyncio.wait_for(self._leaving.wait(), pause * random.uniform(0.75, 1.25))

    async def send_description(self, to: str, kind: str, sdp: str, call: str) -> None:
        await self._send(type="signal", to=to, sdp={"type": kind, **_carried(sdp)}, call=call)

    async def ask_ice(self) -> None:
        """Ask for fresh ICE servers; they come as an event."""
        await self._send(type="ice")

    def renew(self) -> None:
        """The network has changed: connect again at once instead of waiting for an answer that cannot come."""
        if self._socket is not None:
            self._socket.transport.abort()

    async def leave(self) -> None:
        """Say goodbye and end `events`."""
        self._leaving.set()
        await self._send(type="leave")
        if self._socket is not None:
            await self._socket.close()

    async def _open(self) -> ClientConnection:
        """Raises _Lost where `leave` comes first."""
        opening = asyncio.create_task(self._connected())
        leaving = asyncio.create_task(self._leaving.wait())
        try:
            await asyncio.wait((opening, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not opening.done():
                raise _Lost("The call was left.")
            return await opening
        finally:
            leaving.cancel()
            opening.cancel()

    async def _connected(self) -> ClientConnection:
        """The first attempt to end decides, whichever way."""
        attempts = [asyncio.create_task(self._attempt(after_s)) for after_s in ATTEMPTS_S]
        try:
            async with asyncio.timeout(OPEN_S):
                await asyncio.wait(attempts, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for attempt in attempts:
                attempt.cancel()
        ended = [attempt for attempt in attempts if attempt.done()]
        for attempt in ended[1:]:  # in the same turn
            if attempt.exception() is None:
                await attempt.result().close()
        return ended[0].result()

    async def _attempt(self, after_s: float) -> ClientConnection:
        await asyncio.sleep(after_s)
        socket = await connect(
            self.address.socket, open_timeout=None, max_size=MAX_MESSAGE_BYTES, compression=None, ping_interval=None
        )
        if sys.platform == "linux":
            socket.transport.get_extra_info("socket").setsockopt(IPPROTO_TCP, THIN_LINEAR_TIMEOUTS, 1)
        return socket

    async def _session(self) -> AsyncIterator[Event]:
        """One WebSocket from joining to its end. Raises _Lost, or SignallingError where trying again is useless."""
        try:
            socket = self._socket = await self._open()
            try:
                if self._leaving.is_set():  # in the same moment
                    return
                ping_s = await self._join(socket)
                await self._repeat(socket)
                pinging = asyncio.create_task(self._ping(socket, min(ping_s, PING_S)))
                try:
                    yield self._joined
                    async for text in socket:
                        self._heard = True
                        event = self._parsed(text)
                        if event is not None:
                            yield event
                finally:
                    pinging.cancel()
            finally:
                await socket.close()
            raise _Lost("The server closed the connection.", retry=True)
        except ConnectionClosed as error:
            raise self._closed(error) from None
        except InvalidStatus as error:
            status = error.response.status_code
            if status in (403, 404):
                raise SignallingError(f"There is no room at this address (the server answers {status}).") from None
            raise _Lost(f"The server cannot be used just now (it answers {status}).") from None
        except (InvalidHandshake, InvalidURI, EOFError, UnicodeError) as error:  # the last: a host in a redirection
            raise _Lost(f"What answers at {self.address.socket} is not an iwcodec server.") from error
        except TimeoutError:
            raise _Lost("The server does not answer.") from None
        except OSError as error:
            raise _Lost(f"The server cannot be reached: {error.strerror or error}.") from None
        finally:
            self._socket = None

    async def _join(self, socket: ClientConnection) -> float:
        """Sets `_joined`; returns the ping interval in seconds."""
        request: dict[str, Any] = {"type": "join", "protocol": PROTOCOL, "name": self.name}
        request |= {"token": self.address.token} if self.address.token else {}
        request |= {"resume": self._resume} if self._resume else {}
        await socket.send(json.dumps(request))
        try:
            async with asyncio.timeout(WELCOME_S):
                message = _object(await socket.recv())
                while message.get("type") == "error":
                    self._said = clean_text(_text(message, "text", 400))
                    message = _object(await socket.recv())
            if message.get("type") != "welcome":
                raise _Lost("The server did not answer as an iwcodec server does.")
            self._joined = Joined(
                id=_id(message.get("id")),
                resumed=message.get("resumed") is True,
                peers={peer.id: peer.name for peer in map(_peer, _list(message, "peers", 64))},
                ice_servers=_servers(message),
                ice_ttl_s=_seconds(message, "ice_ttl_s"),
            )
            self._resume = _text(message, "resume", 128)
            return max(1.0, _seconds(message, "ping_s"))
        except TimeoutError:
            socket.transport.abort()
            self._mute += 1
            raise _Lost("The server does not answer.", retry=self._mute < WELCOMES) from None
        except Dropped as error:
            raise _Lost(f"The server's welcome cannot be understood: {error}.") from None

    def _parsed(self, text: str | bytes) -> Event | None:
        try:
            event = parse(text)
        except Dropped as error:
            self.dropped[str(error)] = self.dropped.get(str(error), 0) + 1
            return None
        if event is None:  # a pong
            self._confirm()
        if isinstance(event, Refused):
            self._said = event.text
        return event

    def _confirm(self) -> None:
        before = self._pings.popleft() if self._pings else 0
        while self._unconfirmed and self._unconfirmed[0][0] <= before:
            self._unconfirmed.popleft()

    def _closed(self, error: ConnectionClosed) -> Exception:
        code = error.rcvd.code if error.rcvd else 1006
        said, self._said = self._said, None
        if code == LOST:
            self._resume = None
        if code in FINAL:
            return SignallingError(said if said and code in (4001, 4002) else FINAL[code])
        if code == GOING_AWAY:
            return _Lost("The server is restarting.", retry=True, at_once=True)
        return _Lost(said or "The connection to the server was lost.", retry=True)

    async def _repeat(self, socket: ClientConnection) -> None:
        """What the server may not have had, in its order: others drop what comes twice."""
        if not self._joined.resumed:
            self._unconfirmed.clear()
        self._pings.clear()
        for _, text in list(self._unconfirmed):
            await socket.send(text)

    async def _ping(self, socket: ClientConnection, every_s: float) -> None:
        """Keeps the place, and notices a server that is out of reach: TCP alone would take minutes."""
        await asyncio.sleep(min(FIRST_PING_S, every_s))  # offers first
        while True:
            self._heard = False
            self._pings.append(self._signals)
            try:
                await socket.send('{"type":"ping"}')
            except ConnectionClosed:
                return
            await asyncio.sleep(min(PONG_S, every_s))
            if not self._heard:
                socket.transport.abort()
                return
            await asyncio.sleep(every_s - min(PONG_S, every_s))

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


class _Lost(Exception):
    def __init__(self, text: str, retry: bool = False, at_once: bool = False) -> None:
        super().__init__(text)
        self.text, self.retry, self.at_once = text, retry, at_once


# ---------------------------------------------------------------------------------------------- foreign bytes


def parse(text: str | bytes) -> Event | None:
    """One message of the server; None for those that tell nothing. Raises Dropped for all that is malformed."""
    message = _object(text)
    kind = message.get("type")
    reader = _READERS.get(kind) if isinstance(kind, str) else None
    if reader is None:
        raise Dropped("unknown type")
    return reader(message)


def _object(text: str | bytes) -> dict[str, Any]:
    if len(text) > MAX_MESSAGE_BYTES:
        raise Dropped("too long")
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise Dropped("not JSON") from None
    if not isinstance(message, dict):
        raise Dropped("not an object")
    return message


def _id(value: Any) -> str:
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise Dropped("id")
    return value


def _text(message: dict[str, Any], name: str, longest: int) -> str:
    value = message.get(name)
    if not isinstance(value, str) or len(value) > longest:
        raise Dropped(name)
    return value


def _list(message: dict[str, Any], name: str, longest: int) -> list[Any]:
    value = message.get(name)
    if not isinstance(value, list) or len(value) > longest:
        raise Dropped(name)
    return value


def _seconds(message: dict[str, Any], name: str) -> float:
    value = message.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1e7:
        raise Dropped(name)
    return float(value)


def _peer(value: Any) -> PeerJoined:
    if not isinstance(value, dict):
        raise Dropped("peer")
    return PeerJoined(_id(value.get("id")), clean_name(_text(value, "name", 400)))


def _servers(message: dict[str, Any]) -> list[dict[str, Any]]:
    """RTCIceServer dictionaries of stun: and turn: servers."""
    kept = []
    for server in _list(message, "ice_servers", 16):
        urls = server.get("urls") if isinstance(server, dict) else None
        if not isinstance(urls, list) or len(urls) > 16:
            raise Dropped("ice_servers")
        if not all(isinstance(url, str) and re.fullmatch(r"(stun|turn)s?:[!-~]{1,250}", url) for url in urls):
            raise Dropped("ice_servers")
        entry: dict[str, Any] = {"urls": urls}
        for name in ("username", "credential"):
            if server.get(name) is not None:
                entry[name] = _text(server, name, 512)
        kept.append(entry)
    return kept


def _signal(message: dict[str, Any]) -> Description | Candidate:
    sender = _id(message.get("from"))
    call = _id(message["call"]) if message.get("call") is not None else ""
    if "sdp" in message:
        description = message["sdp"]
        if not isinstance(description, dict) or description.get("type") not in ("offer", "answer"):
            raise Dropped("sdp")
        return Description(sender, description["type"], _sdp(description), call)
    if "candidate" not in message:
        raise Dropped("signal")
    candidate = message["candidate"]
    if candidate is None:
        return Candidate(sender, None, call)
    if not isinstance(candidate, dict):
        raise Dropped("candidate")
    fields: dict[str, Any] = {"candidate": _text(candidate, "candidate", 512)}
    if candidate.get("sdpMid") is not None:
        fields["sdpMid"] = _text(candidate, "sdpMid", 64)
    line = candidate.get("sdpMLineIndex")
    if line is not None:
        if not isinstance(line, int) or isinstance(line, bool) or not 0 <= line <= 255:
            raise Dropped("sdpMLineIndex")
        fields["sdpMLineIndex"] = line
    return Candidate(sender, fields, call)


def _carried(sdp: str) -> dict[str, str]:
    deflated = packed(sdp)
    return {"sdp": sdp} if deflated is None else {"deflated": deflated}


def _sdp(description: dict[str, Any]) -> str:
    if "deflated" not in description:
        return _text(description, "sdp", MOST)
    try:
        return unpacked(_text(description, "deflated", MAX_PACKED))
    except ValueError:
        raise Dropped("deflated") from None


def _left(message: dict[str, Any]) -> PeerLeft:
    return PeerLeft(_id(message.get("id")), message.get("reason") != "left")


_READERS: Final[dict[str, Callable[[dict[str, Any]], Event | None]]] = {
    "peer-joined": lambda message: _peer(message.get("peer")),
    "peer-left": _left,
    "signal": _signal,
    "ice": lambda message: IceServers(_servers(message), _seconds(message, "ice_ttl_s")),
    "error": lambda message: Refused(_text(message, "code", 40), clean_text(_text(message, "text", 400))),
    "pong": lambda message: None,
}


def clean_text(text: str) -> str:
    """A foreign sentence as it may be shown."""
    return "".join(c for c in text if c.isprintable())
