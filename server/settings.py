"""What the operator of a server decides."""

import re
from dataclasses import dataclass, field
from ipaddress import ip_network

from iwcodec.server.limits import Limits
from iwcodec.server.turn import IceConfig

_ORIGIN = re.compile(r"https?://[a-z0-9.:\[\]-]+")


@dataclass(frozen=True)
class Settings:
    """Settings of a server process. Raises ValueError for a malformed origin or proxy."""

    secret: bytes
    """Signs tokens. All processes that share state need the same one."""
    limits: Limits = field(default_factory=Limits)
    ice: IceConfig = field(default_factory=IceConfig)
    invitation_only: bool = False
    """Every room needs a token, and only the operator makes rooms."""
    allowed_origins: tuple[str, ...] = ()
    """Origins, such as https://calls.example.org, whose pages may use this server besides its own."""
    trusted_proxies: tuple[str, ...] = ()
    """IP addresses or networks (CIDR) of reverse proxies whose X-Forwarded-For is believed."""
    metrics_token: str = ""
    """Bearer token that opens /metrics; without one nobody reads them."""

    def __post_init__(self) -> None:
        for origin in self.allowed_origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is no origin such as https://calls.example.org.")
        for proxy in self.trusted_proxies:
            try:
                ip_network(proxy)
            except ValueError as error:
                raise ValueError(
                    f"A trusted proxy is an IP address or a network such as 10.0.0.0/8: {error}."
                ) from None
