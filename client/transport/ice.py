"""Selection of ICE servers for aiortc.

aiortc uses one STUN and one TURN server, and raises exceptions for URLs that it cannot parse. So unusable URLs are
removed, and each connection attempt uses the next server of either kind.
"""

from typing import Any

from aiortc.rtcicetransport import parse_stun_turn_uri

Servers = list[dict[str, Any]]
"""As in the server's `welcome` message: {urls, [username], [credential]}."""


def usable_servers(servers: Servers) -> tuple[Servers, list[str]]:
    """(servers that aiortc can use, with one URL each; URLs that it cannot use). It supports no STUN over TLS, no TURN
    over TLS on UDP, and no IPv6 addresses in URLs."""
    kept: Servers = []
    dropped = []
    for server in servers:
        for url in server["urls"]:
            if is_usable_url(url):
                kept.append({**server, "urls": [url]})
            else:
                dropped.append(url)
    return kept, dropped


def is_usable_url(url: str) -> bool:
    try:
        parsed = parse_stun_turn_uri(url)
    except ValueError:
        return False
    transports = {"stun": (None,), "turn": ("udp", "tcp"), "turns": ("tcp",)}.get(parsed["scheme"], ())
    return parsed.get("transport") in transports and 0 < parsed["port"] < 1 << 16


def servers_for_attempt(servers: Servers, attempt: int) -> Servers:
    """One STUN and one TURN server of those that are usable, the next ones with each `attempt` (0, 1, ...)."""
    kinds = [[server for server in servers if server["urls"][0].startswith(kind)] for kind in ("stun", "turn")]
    return [kind[attempt % len(kind)] for kind in kinds if kind]
