"""Join tokens: signed, expiring, bound to one room.

    iw1.PAYLOAD.SIGNATURE

PAYLOAD is base64url of the JSON list [room, role, expiry in Unix seconds]; SIGNATURE is base64url of HMAC-SHA256 under
the server's secret over "iw1." and the PAYLOAD as it is written. Nothing is stored: every process that has the secret
accepts the token until it expires; changing the secret revokes all of them. A token travels in the fragment of an
invitation's address (`https://HOST/r/ROOM#token=...`), which browsers never send, and in the join message.
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
"""A guest may join; a host may also invite."""

MIN_SECRET: Final = 16
"""Bytes."""
MAX_LIFE_S: Final = 30 * 24 * 3600
CLOSED_PREFIX: Final = "private-"
"""Rooms so named take nobody without a token: by the name alone every process knows, and no state can forget it."""

_SHAPE = re.compile(r"iw1\.([A-Za-z0-9_-]{1,300})\.([A-Za-z0-9_-]{43})")


class TokenError(Exception):
    """A token that does not open the room; the text says why and can be shown to whoever brought it."""


@dataclass(frozen=True)
class Token:
    room: str
    role: Role
    expires: int
    """Unix seconds."""


def sign(token: Token, secret: bytes) -> str:
    """Raises ValueError where the secret is shorter than MIN_SECRET or the room has no valid name."""
    if len(secret) < MIN_SECRET:
        raise ValueError(f"the secret must have at least {MIN_SECRET} bytes")
    if not is_room_name(token.room):
        raise ValueError("no valid name of a room")
    payload = _b64(json.dumps([token.room, token.role, token.expires], separators=(",", ":")).encode())
    return f"iw1.{payload}.{_b64(_signature(payload, secret))}"


def verify(text: str, room: str, secret: bytes, now: float) -> Token:
    """The token, if it is genuine, of this room and not expired at `now` (Unix seconds); TokenError otherwise."""
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise TokenError("This is not a token.")
    payload, signature = match.groups()
    if not hmac.compare_digest(_b64(_signature(payload, secret)), signature):
        raise TokenError("The token was not signed by this server.")
    try:
        named, role, expires = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        token = Token(named, role, expires)
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
    """Whether a room is by invitation: by its name, or because the server has no others (`all_rooms`)."""
    return all_rooms or room.startswith(CLOSED_PREFIX)


def _signature(payload: str, secret: bytes) -> bytes:
    return hmac.new(secret, b"iw1." + payload.encode(), hashlib.sha256).digest()


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
