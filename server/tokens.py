"""Tokens: join tokens that open a room, and resume tokens that give a participant its place back.

A join token is signed, expires, and is bound to one room:

    iw1.PAYLOAD.SIGNATURE

PAYLOAD is base64url of the JSON list [room, role, expiry in Unix seconds]. SIGNATURE is base64url of HMAC-SHA256 under
the server's secret over "iw1." and PAYLOAD as written. Nothing is stored: every process that has the secret accepts the
token until it expires. Changing the secret revokes all tokens. A token travels in the fragment of an invitation's
address (`https://HOST/r/ROOM#token=...`), which browsers never send to a server, and in the join message.

A resume token is `iwr.MEMBER.KEY`, with a random KEY of which the shared state keeps only the SHA-256. MEMBER, the
participant's id, is another digest of KEY. So a server that has lost its state, or removed the participant meanwhile,
gives the same id back to whoever has the key, and to nobody else: the others recognise the participant, and keep their
connection.
"""

import base64
import binascii
import hashlib
import hmac
import json
import re
from dataclasses import dataclass
from typing import Final, Literal, get_args

from iwcodec.server.messages import is_room_name

Role = Literal["host", "guest"]
"""A guest may join. A host may also invite, lock the room, and remove participants."""

MIN_SECRET: Final = 16
"""Shortest secret, in bytes."""
MAX_LIFE_S: Final = 30 * 24 * 3600
"""Longest life of a token that the API issues, in seconds."""
CLOSED_PREFIX: Final = "private-"
"""Rooms whose name starts so need a token. The name alone says it, so no shared state is needed to know it."""
KEY_BYTES: Final = 18
"""Random bytes of a resume token's key: 144 bits cannot be guessed."""

_RESUME_TOKEN = re.compile(r"iwr\.([0-9a-f]{16})\.([A-Za-z0-9_-]{24})")
_JOIN_TOKEN = re.compile(r"iw1\.([A-Za-z0-9_-]{1,300})\.([A-Za-z0-9_-]{43})")


class TokenError(Exception):
    """The token does not open the room. The text says why and may be shown to whoever presented it."""


@dataclass(frozen=True)
class Token:
    """The contents of a join token."""

    room: str
    role: Role
    expires: int
    """Unix seconds."""


def sign(token: Token, secret: bytes) -> str:
    """Return the join token as text. Raises ValueError for a secret shorter than MIN_SECRET or an invalid room name."""
    if len(secret) < MIN_SECRET:
        raise ValueError(f"the secret must have at least {MIN_SECRET} bytes")
    if not is_room_name(token.room):
        raise ValueError("the room has no valid name")
    payload = _b64(json.dumps([token.room, token.role, token.expires], separators=(",", ":")).encode())
    return f"iw1.{payload}.{_b64(_signature(payload, secret))}"


def verify(text: str, room: str, secret: bytes, now: float) -> Token:
    """Return the contents of a join token that is genuine, for `room`, and not expired at `now` (Unix seconds).

    Raises TokenError otherwise.
    """
    match = _JOIN_TOKEN.fullmatch(text)
    if match is None:
        raise TokenError("This is not a token.")
    payload, signature = match.groups()
    if not hmac.compare_digest(_b64(_signature(payload, secret)), signature):
        raise TokenError("The token was not signed by this server.")
    try:
        token_room, role, expires = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        token = Token(token_room, role, expires)
    except (ValueError, TypeError, binascii.Error):
        raise TokenError("This is not a token.") from None
    if role not in get_args(Role) or not isinstance(expires, int):
        raise TokenError("This is not a token.")
    if token.room != room:
        raise TokenError("The token is for another room.")
    if now >= token.expires:
        raise TokenError("The token has expired.")
    return token


def needs_token(room: str, all_rooms: bool) -> bool:
    """Return whether a room is by invitation: by its name, or because all rooms of the server are (`all_rooms`)."""
    return all_rooms or room.startswith(CLOSED_PREFIX)


def member_id(key: str) -> str:
    """Return the id of the member that has the resume token with this key: 64 bits."""
    return hashlib.sha256(b"iwcodec member " + key.encode()).hexdigest()[:16]


def resume_key(token: str | None) -> str | None:
    """Return the key of a resume token whose member id belongs to it, or None for anything else."""
    match = _RESUME_TOKEN.fullmatch(token or "")
    return match[2] if match and match[1] == member_id(match[2]) else None


def resume_token(member: str, key: str) -> str:
    """Return the resume token of the member with that id."""
    return f"iwr.{member}.{key}"


def parse_resume(token: str | None) -> tuple[str, str] | None:
    """Return (member id, digest of the key) of a resume token, or None for anything else."""
    prefix, _, rest = (token or "").partition(".")
    member, _, key = rest.partition(".")
    return (member, key_digest(key)) if prefix == "iwr" and member and key else None


def key_digest(key: str) -> str:
    """Return the SHA-256 of a resume token's key in hexadecimal, which is what the shared state keeps."""
    return hashlib.sha256(key.encode()).hexdigest()


def _signature(payload: str, secret: bytes) -> bytes:
    return hmac.new(secret, b"iw1." + payload.encode(), hashlib.sha256).digest()


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
