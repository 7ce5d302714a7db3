"""STUN and TURN servers for a participant, with short-lived coturn credentials.

Implements draft-uberti-behave-turn-rest-00 section 2.2, which coturn supports as `use-auth-secret` with
`static-auth-secret`: the username is "EXPIRY:ID" (Unix seconds), the credential is base64 of HMAC-SHA1 of the username
under the secret that coturn and this server share. A copied credential works only until it expires. Anyone who may
open a room gets one; to prevent that, `--invitation-only` lets only the operator make rooms.
"""

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Final

from iwcodec.server.messages import IceServer

MIN_SECRET: Final = 8
"""Shortest shared secret, in characters."""
TTL_S: Final = 3600
"""Life of a credential, in seconds. It limits new allocations; coturn keeps existing ones alive."""

# RFC 7064 and RFC 7065.
_HOST = r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::\d{1,5})?"
_STUN = re.compile(rf"stuns?:{_HOST}")
_TURN = re.compile(rf"turns?:{_HOST}(?:\?transport=(?:udp|tcp))?")


@dataclass(frozen=True)
class IceConfig:
    """STUN and TURN servers, and the secret shared with the TURN servers.

    Addresses are those of RFC 7064 and RFC 7065: `stun:HOST[:PORT]`, `turn:HOST[:PORT][?transport=udp|tcp]`,
    `turns:...`. Raises ValueError for any other address, and for TURN servers without a secret.
    """

    stun: tuple[str, ...] = ()
    turn: tuple[str, ...] = ()
    turn_secret: str = ""

    def __post_init__(self) -> None:
        for url in self.stun:
            if not _STUN.fullmatch(url):
                raise ValueError(f"{url!r} is no STUN address such as stun:stun.example.org:3478.")
        for url in self.turn:
            if not _TURN.fullmatch(url):
                raise ValueError(f"{url!r} is no TURN address such as turn:turn.example.org:3478?transport=udp.")
        if self.turn and len(self.turn_secret) < MIN_SECRET:
            raise ValueError(f"A TURN server needs coturn's static-auth-secret, of {MIN_SECRET} characters or more.")

    def servers(self, participant: str, now: float) -> list[IceServer]:
        """Return the servers with credentials for that participant, valid for TTL_S from `now` (Unix seconds)."""
        servers = [IceServer(urls=[url]) for url in self.stun]
        if self.turn:
            username, credential = credentials(participant, now, self.turn_secret)
            servers.append(IceServer(urls=list(self.turn), username=username, credential=credential))
        return servers


def credentials(participant: str, now: float, secret: str) -> tuple[str, str]:
    """Return (username, credential), valid until `now` + TTL_S."""
    username = f"{int(now) + TTL_S}:{participant}"
    digest = hmac.new(secret.encode(), username.encode(), hashlib.sha1).digest()
    return username, base64.b64encode(digest).decode()
