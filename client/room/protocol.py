"""Messages of the signalling protocol as a participant sees them: room addresses, close codes, events and their parser.

The server's OpenAPI document (`/openapi.json`) and `iwcodec.server.messages` describe the protocol. Everything received
is untrusted: the parser checks types, lengths and ranges, and raises MalformedMessage for anything else.
"""

import json
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from iwcodec.client.transport.sdp_compression import MAX_COMPRESSED, MAX_SDP, compress_sdp, decompress_sdp
from iwcodec.codec.errors import CodecError

PROTOCOL_VERSION: Final = 2
MAX_MESSAGE_BYTES: Final = 128 * 1024
"""Maximum size of a message from the server: fits a welcome to a full room, or the largest SDP in escaped JSON."""
MAX_NAME: Final = 40
"""Maximum length of a displayed participant name, in characters."""

SERVICE_RESTART: Final = 1012
"""WebSocket close code: this server process is shutting down and another one takes over."""
ROOM_FULL: Final = 4002
"""WebSocket close code: the room, or the server, is full."""
MEMBERSHIP_EXPIRED: Final = 4007
"""WebSocket close code: the resume token has expired; join again as a new participant."""
FATAL_CLOSE_CODES: Final[dict[int, str]] = {
    1002: "The server does not speak the protocol of this program.",
    1008: "The server refused the connection.",
    4001: "The room is by invitation: the invitation is missing, has expired or belongs to another room.",
    ROOM_FULL: "The room is full.",
    4003: "The server speaks another version of the protocol; update iwcodec on one of the two sides.",
    4004: "The server closed the connection because too many messages were sent.",
    4008: "The host has locked the room.",
    4009: "The host has removed you from the call.",
    4006: "This call was taken over by another connection of the same participant.",
}
"""WebSocket close codes after which reconnecting cannot succeed, and the message for the user."""

_ID = re.compile(r"[A-Za-z0-9_-]{1,32}")


class SignallingError(CodecError):
    """The room cannot be joined, or the connection to it cannot be restored; the text says why."""


class MalformedMessage(ValueError):
    """A message that violates the protocol; the text names the offending field."""


@dataclass(frozen=True)
class RoomAddress:
    """Where to join a room."""

    websocket_url: str
    room: str
    token: str | None
    """Invitation token, for rooms by invitation."""
    exposed_host: str | None = None
    """The server's host if the connection to it is not encrypted and leaves this machine: whoever is on the way can
    read and change what is signalled."""

    @property
    def link(self) -> str:
        """The address without the token: a link that a browser opens, and `iwcodec call` takes."""
        return f"http{self.websocket_url.removeprefix('ws').removesuffix('/ws')}"


@dataclass(frozen=True)
class Joined:
    """The server has admitted us to the room: the first event after joining or resuming."""

    id: str
    resumed: bool
    """Whether the server restored our earlier membership, rather than creating a new one."""
    peers: dict[str, str]
    """Names of the other participants by id."""
    ice_servers: list[dict[str, Any]]
    ice_ttl_s: float
    host: bool = False
    """Whether we may lock the room and remove participants."""
    locked: bool = False
    """Whether the room is locked."""


@dataclass(frozen=True)
class Welcome:
    """The server's answer to a join request."""

    joined: Joined
    resume: str
    """Token that restores the membership after a reconnection."""
    ping_s: float
    """Ping interval that the server asks for, at least 1 s."""


@dataclass(frozen=True)
class PeerJoined:
    id: str
    name: str


@dataclass(frozen=True)
class PeerLeft:
    id: str
    lost: bool
    """The server lost the participant without a goodbye; a direct connection to it may still work."""


@dataclass(frozen=True)
class RemoteDescription:
    """An SDP offer or answer from a peer."""

    sender: str
    kind: str
    """Either `offer` or `answer`."""
    sdp: str
    call: str
    """Names the peer connection that the offer created; an answer and its candidates repeat it."""


@dataclass(frozen=True)
class RemoteCandidate:
    """An ICE candidate from a peer, trickled (RFC 8838)."""

    sender: str
    candidate: dict[str, Any] | None
    """RTCIceCandidateInit; None marks the end of candidates."""
    call: str


@dataclass(frozen=True)
class IceServers:
    """Fresh STUN and TURN servers, as RTCIceServer dictionaries."""

    servers: list[dict[str, Any]]
    ttl_s: float


@dataclass(frozen=True)
class RoomLocked:
    """A host has locked or unlocked the room."""

    on: bool


@dataclass(frozen=True)
class ServerError:
    """The server rejected one of our messages; the connection stays open."""

    code: str
    text: str


@dataclass(frozen=True)
class Disconnected:
    """The WebSocket is lost; `Signalling` reconnects by itself."""

    why: str


Event = (
    Joined
    | PeerJoined
    | PeerLeft
    | RemoteDescription
    | RemoteCandidate
    | RoomLocked
    | IceServers
    | ServerError
    | Disconnected
)


def parse_address(address: str) -> RoomAddress:
    """Parse `https://HOST/r/ROOM`, optionally with an invitation's `#token=...`. Without a scheme it is https, or http
    on this machine. Raises SignallingError."""
    invalid = SignallingError(f"{address!r} is not the address of a room: https://HOST/r/ROOM.")
    scheme, separator, rest = address.partition("://")
    if not separator:
        host = re.split(r"[:/]", address, maxsplit=1)[0]
        scheme, rest = "http" if _is_loopback(host) else "https", address
    try:
        parts = urlsplit(f"{scheme}://{rest}")
        host, token = parts.hostname or "", parse_qs(parts.fragment).get("token", [None])[0]
        host.encode("idna")
        _ = parts.port
    except ValueError:
        raise invalid from None
    path = re.fullmatch(r"(.*)/r/([^/]+)/?", parts.path)
    if parts.scheme not in ("http", "https") or not re.fullmatch(r"[^\s\x00-\x1f\x7f]+", host) or path is None:
        raise invalid
    if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9_-]{0,63}", room := unquote(path[2])):
        raise SignallingError(
            f"{address!r} is not the address of a room: {clean_text(room)!r} is no name of one, which has letters, "
            "digits, - and _, at most 64, and begins with a letter or digit."
        )
    websocket_scheme = "ws" if parts.scheme == "http" else "wss"
    url = f"{websocket_scheme}://{parts.netloc}{path[1]}/r/{room}/ws"
    return RoomAddress(url, room, token, host if parts.scheme == "http" and not _is_loopback(host) else None)


def _is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name or address alone."""
    if host.lower().rstrip(".") == "localhost" or host.lower().rstrip(".").endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def clean_name(name: str) -> str:
    """A participant's name made safe to display: printable, 1 to MAX_NAME characters."""
    kept = "".join(c for c in unicodedata.normalize("NFC", name) if c.isprintable()).strip()
    return kept[:MAX_NAME].strip() or "somebody"


def clean_text(text: str) -> str:
    """Text from the server without control characters, safe to print on a terminal."""
    return "".join(c for c in text if c.isprintable())


def sdp_fields(kind: str, sdp: str) -> dict[str, str]:
    """The `sdp` object of a signal message: compressed where the SDP has the usual form, plain otherwise."""
    compressed = compress_sdp(sdp)
    return {"type": kind, "sdp": sdp} if compressed is None else {"type": kind, "deflated": compressed}


def parse_welcome(text: str | bytes) -> Welcome | ServerError:
    """Parse the server's answer to a join request. Raises MalformedMessage."""
    message = _object(text)
    if message.get("type") == "error":
        return ServerError("", clean_text(_text(message, "text", 400)))
    if message.get("type") != "welcome":
        raise MalformedMessage("not a welcome")
    joined = Joined(
        id=_id(message.get("id")),
        resumed=message.get("resumed") is True,
        peers={peer.id: peer.name for peer in map(_peer, _list(message, "peers", 64))},
        ice_servers=_ice_servers(message),
        ice_ttl_s=_seconds(message, "ice_ttl_s"),
        host=message.get("host") is True,
        locked=message.get("locked") is True,
    )
    return Welcome(joined, _text(message, "resume", 128), max(1.0, _seconds(message, "ping_s")))


def parse_message(text: str | bytes) -> Event | None:
    """Parse a message received after the welcome; None for a pong. Raises MalformedMessage."""
    message = _object(text)
    kind = message.get("type")
    parser = _PARSERS.get(kind) if isinstance(kind, str) else None
    if parser is None:
        raise MalformedMessage("unknown type")
    return parser(message)


def _object(text: str | bytes) -> dict[str, Any]:
    if len(text) > MAX_MESSAGE_BYTES:
        raise MalformedMessage("too long")
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise MalformedMessage("not JSON") from None
    if not isinstance(message, dict):
        raise MalformedMessage("not an object")
    return message


def _id(value: Any) -> str:
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise MalformedMessage("id")
    return value


def _text(message: dict[str, Any], name: str, max_length: int) -> str:
    value = message.get(name)
    if not isinstance(value, str) or len(value) > max_length:
        raise MalformedMessage(name)
    return value


def _list(message: dict[str, Any], name: str, max_length: int) -> list[Any]:
    value = message.get(name)
    if not isinstance(value, list) or len(value) > max_length:
        raise MalformedMessage(name)
    return value


def _seconds(message: dict[str, Any], name: str) -> float:
    value = message.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1e7:
        raise MalformedMessage(name)
    return float(value)


def _peer(value: Any) -> PeerJoined:
    if not isinstance(value, dict):
        raise MalformedMessage("peer")
    return PeerJoined(_id(value.get("id")), clean_name(_text(value, "name", 400)))


def _ice_servers(message: dict[str, Any]) -> list[dict[str, Any]]:
    """RTCIceServer dictionaries with stun:, stuns:, turn: and turns: URLs (RFC 7064, RFC 7065)."""
    servers = []
    for server in _list(message, "ice_servers", 16):
        urls = server.get("urls") if isinstance(server, dict) else None
        if not isinstance(urls, list) or len(urls) > 16:
            raise MalformedMessage("ice_servers")
        if not all(isinstance(url, str) and re.fullmatch(r"(stun|turn)s?:[!-~]{1,250}", url) for url in urls):
            raise MalformedMessage("ice_servers")
        entry: dict[str, Any] = {"urls": urls}
        for name in ("username", "credential"):
            if server.get(name) is not None:
                entry[name] = _text(server, name, 512)
        servers.append(entry)
    return servers


def _signal(message: dict[str, Any]) -> RemoteDescription | RemoteCandidate:
    sender = _id(message.get("from"))
    call = _id(message["call"]) if message.get("call") is not None else ""
    if "sdp" in message:
        description = message["sdp"]
        if not isinstance(description, dict) or description.get("type") not in ("offer", "answer"):
            raise MalformedMessage("sdp")
        return RemoteDescription(sender, description["type"], _sdp(description), call)
    if "candidate" not in message:
        raise MalformedMessage("signal")
    candidate = message["candidate"]
    if candidate is None:
        return RemoteCandidate(sender, None, call)
    if not isinstance(candidate, dict):
        raise MalformedMessage("candidate")
    fields: dict[str, Any] = {"candidate": _text(candidate, "candidate", 512)}
    if candidate.get("sdpMid") is not None:
        fields["sdpMid"] = _text(candidate, "sdpMid", 64)
    line = candidate.get("sdpMLineIndex")
    if line is not None:
        if not isinstance(line, int) or isinstance(line, bool) or not 0 <= line <= 255:
            raise MalformedMessage("sdpMLineIndex")
        fields["sdpMLineIndex"] = line
    return RemoteCandidate(sender, fields, call)


def _sdp(description: dict[str, Any]) -> str:
    if "deflated" not in description:
        return _text(description, "sdp", MAX_SDP)
    try:
        return decompress_sdp(_text(description, "deflated", MAX_COMPRESSED))
    except ValueError:
        raise MalformedMessage("deflated") from None


_PARSERS: Final[dict[str, Callable[[dict[str, Any]], Event | None]]] = {
    "peer-joined": lambda message: _peer(message.get("peer")),
    "peer-left": lambda message: PeerLeft(_id(message.get("id")), message.get("reason") != "left"),
    "locked": lambda message: RoomLocked(message.get("on") is True),
    "signal": _signal,
    "ice": lambda message: IceServers(_ice_servers(message), _seconds(message, "ice_ttl_s")),
    "error": lambda message: ServerError(_text(message, "code", 40), clean_text(_text(message, "text", 400))),
    "pong": lambda message: None,
}
