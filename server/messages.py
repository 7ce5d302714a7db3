"""The signalling protocol: JSON messages over one WebSocket per participant.

The address of a room is `https://HOST/r/ROOM`, and its WebSocket is the same address with `/ws` appended. Messages are
text frames with one JSON object each, at most MAX_MESSAGE_BYTES of UTF-8. Unknown or malformed messages are dropped,
counted and answered by an `error`; the connection stays open unless there are too many (see `iwcodec.server.limits`).

From a participant:

| type | fields | meaning |
|---|---|---|
| join | protocol = 2, name, [token], [resume] | comes first, within 10 s; `resume` is that of an earlier welcome |
| signal | to, and either sdp {type, sdp} or candidate {candidate, ...} or null, [call] | relayed to `to` alone |
| ice | | asks for fresh ICE servers (TURN credentials expire) |
| ping | | answered by `pong`; something must be sent at least every `ping_s` seconds |
| lock | on | from a host: closes the room to newcomers, or opens it again; members may still resume |
| remove | id | from a host: ends the participant's connection and its place |
| leave | | leaves at once; the server closes the connection |

From the server:

| type | fields | meaning |
|---|---|---|
| welcome | protocol, room, id, resume, resumed, peers [{id, name}], ice_servers, ice_ttl_s, ping_s, grace_s | joined |
| peer-joined | peer {id, name} | a participant joined; for a known peer it changes nothing |
| peer-left | id, reason = "left" or "lost" | a participant left, or was disconnected for `grace_s` seconds |
| signal | from, and sdp or candidate as they were sent, [call] | |
| locked | on | a host has locked or unlocked the room |
| ice | ice_servers, ice_ttl_s | |
| pong | | |
| error | code, text | see `ErrorCode`; the codes in CLOSE_CODES close the connection |

A welcome also says whether the participant is a `host`, who has a host's token, and whether the room is `locked`.

`sdp` is an RTCSessionDescriptionInit (type offer or answer) and `candidate` an RTCIceCandidateInit, so a browser relays
`pc.localDescription` and `event.candidate` unchanged and an aiortc client needs only `candidate_from_sdp`.
`candidate: null` is the end of candidates (trickle ICE, RFC 8838), unless the SDP already contains
`a=end-of-candidates`. Instead of `sdp` text there may be `deflated`: the same text, compressed by
`iwcodec.client.transport.sdp_compression` to about a quarter. Every client accepts both.
`call` is opaque to the server: an offer may name the peer connection that it belongs to, and its answer and candidates
carry the same name, so that late messages of an earlier connection can be told apart.

Who offers: a newcomer sends an offer to every peer of its welcome. Later offers may come from either side; if two
cross, the peer with the smaller id yields ("perfect negotiation" of WebRTC 1.0).

Losing the WebSocket is not leaving. For `grace_s` seconds the participant keeps its place and id, and at most MAILBOX
messages wait for it. A `join` with `resume`, to any server process, gets the same id, a welcome with `resumed: true`
and the current peers, and then the waiting messages. If the place is gone, because it expired or the server was
restarted, it gets a new place with the same id, and `resumed: false`. A direct connection does not depend on
signalling: after `peer-left` with reason "lost" a client keeps it as long as it carries traffic. Close code 1012 means
that this process is shutting down: reconnect at once, to any process.
"""

import json
import re
import unicodedata
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

PROTOCOL: Final = 2
"""Version of the protocol."""
MAX_MESSAGE_BYTES: Final = 64 * 1024
"""Longest message, in bytes of UTF-8."""
MAX_SDP: Final = 32_000
"""Longest SDP, in characters. A browser's offer of audio, video and data has 6000 to 10 000."""
MAX_DEFLATED: Final = 8_000
"""Longest compressed SDP, in characters of base64."""
MAX_CANDIDATE: Final = 512
"""Longest ICE candidate, in characters."""
MAX_NAME: Final = 40
"""Longest name of a participant, in characters."""
MAILBOX: Final = 256
"""Messages that may wait for one participant: enough for all peers of a full room to trickle all their candidates."""

ErrorCode = Literal[
    "bad-message",  # not JSON, not a known message, out of bounds, or out of turn
    "rate",  # too many messages or bytes; this message was dropped
    "no-peer",  # `to` is not in the room
    "peer-busy",  # the mailbox of `to` is full
    "not-host",  # only a host, who has a host's token, may do that
    "locked",  # the host has locked the room
    "removed",  # the host has removed this participant
    "refused",  # the room needs a token, or the token is expired, forged or for another room
    "full",  # the room, or the server, is full
    "version",  # the server speaks another protocol version
    "flood",  # too many messages were dropped
    "idle",  # no message came for too long
    "replaced",  # the same participant connected again elsewhere
    "lost",  # this participant's place expired; join again
    "unavailable",  # rooms cannot be reached or opened now, try later; closes the connection unless it answers a signal
]

CLOSE_CODES: Final[dict[str, int]] = {
    "refused": 4001,
    "full": 4002,
    "version": 4003,
    "flood": 4004,
    "idle": 4005,
    "replaced": 4006,
    "lost": 4007,
    "locked": 4008,
    "removed": 4009,
    "unavailable": 1013,  # "try again later"
}
"""WebSocket close codes (RFC 6455 section 7.4; 4000 to 4999 are private use)."""

_ROOM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_LINES = re.compile(r"[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*")


class BadMessage(ValueError):
    """The message is not part of the protocol. The text says what is wrong and never quotes the message."""


def is_room_name(room: str) -> bool:
    """Return whether `room` has 1 to 64 letters, digits, `_` and `-` and starts with a letter or digit. Such names are
    safe in addresses, shell commands and Redis keys."""
    return _ROOM.fullmatch(room) is not None


def _name(value: str) -> str:
    value = unicodedata.normalize("NFC", value).strip()
    if not 1 <= len(value) <= MAX_NAME or not value.isprintable():
        raise ValueError(f"must be 1 to {MAX_NAME} printable characters")
    return value


def _lines(value: str) -> str:
    if not _LINES.fullmatch(value):
        raise ValueError("must not contain control characters")
    return value


PeerId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,32}$")]
CallName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,32}$")]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Init(BaseModel):
    """A WebRTC dictionary. Fields that browsers may add to it are ignored and not relayed."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class Description(_Init):
    """RTCSessionDescriptionInit, or the same with `deflated` instead of `sdp`."""

    type: Literal["offer", "answer"]
    sdp: Annotated[str, Field(max_length=MAX_SDP, pattern="^v=0"), AfterValidator(_lines)] | None = None
    deflated: Annotated[str, Field(max_length=MAX_DEFLATED, pattern=r"^[A-Za-z0-9+/]+=*$")] | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> "Description":
        if (self.sdp is None) == (self.deflated is None):
            raise ValueError("needs either sdp or deflated")
        return self


class Candidate(_Init):
    """RTCIceCandidateInit."""

    candidate: Annotated[str, Field(max_length=MAX_CANDIDATE, pattern=r"^[ -~]*$")]
    sdpMid: Annotated[str, Field(max_length=64, pattern=r"^[ -~]*$")] | None = None
    sdpMLineIndex: Annotated[int, Field(ge=0, le=255)] | None = None
    usernameFragment: Annotated[str, Field(max_length=256, pattern=r"^[ -~]*$")] | None = None


class Join(_Message):
    type: Literal["join"]
    protocol: Annotated[int, Field(ge=0, le=65535)]
    name: Annotated[str, Field(max_length=4 * MAX_NAME), AfterValidator(_name)]
    token: Annotated[str, Field(max_length=512)] | None = None
    resume: Annotated[str, Field(max_length=128)] | None = None


class Signal(_Message):
    type: Literal["signal"]
    to: PeerId
    sdp: Description | None = None
    candidate: Candidate | None = None
    call: CallName | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> "Signal":
        given = self.model_fields_set & {"sdp", "candidate"}
        if len(given) != 1 or (given == {"sdp"} and self.sdp is None):
            raise ValueError("needs either sdp or candidate")
        return self


class Ice(_Message):
    type: Literal["ice"]


class Ping(_Message):
    type: Literal["ping"]


class Lock(_Message):
    type: Literal["lock"]
    on: bool


class Remove(_Message):
    type: Literal["remove"]
    id: PeerId


class Leave(_Message):
    type: Literal["leave"]


ClientMessage = Join | Signal | Ice | Ping | Lock | Remove | Leave
_CLIENT: TypeAdapter[ClientMessage] = TypeAdapter(Annotated[ClientMessage, Field(discriminator="type")])


class Peer(_Message):
    id: PeerId
    name: str


class IceServer(_Message):
    """RTCIceServer. Only a TURN server has username and credential."""

    urls: list[str]
    username: str | None = None
    credential: str | None = None


class Welcome(_Message):
    type: Literal["welcome"] = "welcome"
    protocol: int = PROTOCOL
    room: str
    id: PeerId
    resume: str
    resumed: bool
    peers: list[Peer]
    ice_servers: list[IceServer]
    ice_ttl_s: int
    ping_s: float
    grace_s: float
    host: bool = False
    locked: bool = False


class PeerJoined(_Message):
    type: Literal["peer-joined"] = "peer-joined"
    peer: Peer


class PeerLeft(_Message):
    type: Literal["peer-left"] = "peer-left"
    id: PeerId
    reason: Literal["left", "lost"]


class Relayed(_Message):
    """A `signal` as its addressee receives it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_by_name=True)

    type: Literal["signal"] = "signal"
    sender: Annotated[PeerId, Field(alias="from")]
    sdp: Description | None = None
    candidate: Candidate | None = None
    call: CallName | None = None


class Locked(_Message):
    type: Literal["locked"] = "locked"
    on: bool


class IceServers(_Message):
    type: Literal["ice"] = "ice"
    ice_servers: list[IceServer]
    ice_ttl_s: int


class Pong(_Message):
    type: Literal["pong"] = "pong"


class Error(_Message):
    type: Literal["error"] = "error"
    code: ErrorCode
    text: str


ServerMessage = Welcome | PeerJoined | PeerLeft | Locked | Relayed | IceServers | Pong | Error


def parse(text: str | bytes) -> ClientMessage:
    """Parse one message of a participant. Raises BadMessage, also for more than MAX_MESSAGE_BYTES."""
    if len(text) > MAX_MESSAGE_BYTES:
        raise BadMessage(f"a message may have at most {MAX_MESSAGE_BYTES} bytes")
    try:
        return _CLIENT.validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        # Name only known fields: the location may contain keys chosen by the sender.
        place = ".".join(str(part) for part in first["loc"] if part in _FIELDS)
        ours = first["type"] == "value_error"
        reason = first["msg"].removeprefix("Value error, ") if ours else _PLAIN.get(first["type"], "is not valid")
        raise BadMessage(f"{place or 'message'}: {reason}") from None
    except (ValueError, RecursionError):
        raise BadMessage("message: is not valid") from None


_FIELDS = {
    field
    for model in (Join, Signal, Ice, Ping, Lock, Remove, Leave, Description, Candidate)
    for field in (*model.model_fields, model.__name__.lower())
}
_PLAIN = {
    "json_invalid": "is not JSON",
    "missing": "is missing",
    "extra_forbidden": "has an unknown field",
    "union_tag_invalid": "has an unknown type",
    "union_tag_not_found": "has no type",
    "string_too_long": "is too long",
    "string_type": "must be a string",
    "int_type": "must be a whole number",
}


def relayed(signal: Signal, sender: str) -> Relayed:
    """Return what `signal.to` receives, built from the parsed fields only, so nothing unknown passes through."""
    return Relayed.model_construct(
        _fields_set=(signal.model_fields_set - {"to"}) | {"sender"},
        sender=sender,
        sdp=signal.sdp,
        candidate=signal.candidate,
        call=signal.call,
    )


def encode(message: ServerMessage) -> str:
    """Return the message as a text frame. Fields that were not set are left out; `candidate: null` stays."""
    fields: dict[str, Any] = {"type": message.type, **message.model_dump(by_alias=True, exclude_unset=True)}
    if isinstance(message, Welcome):
        fields["protocol"] = message.protocol
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False)
