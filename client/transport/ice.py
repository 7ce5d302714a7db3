"""ICE servers as the connections can use them: aiortc takes one STUN and one TURN server, and fails at addresses that
it cannot read. So what it cannot use is left out, and each attempt to connect is given the next one of either kind."""

from typing import Any

from aiortc.rtcicetransport import parse_stun_turn_uri

Servers = list[dict[str, Any]]
"""As the server's `welcome` has them: {urls, [username], [credential]}."""


def usable(servers: Servers) -> tuple[Servers, list[str]]:
    """(servers of one URL each that aiortc can use, URLs that it cannot): no STUN over TLS, no TURN over UDP and TLS,
    no IPv6 addresses in place of names."""
    kept: Servers = []
    dropped = []
    for server in servers:
        for url in server["urls"]:
            if is_usable(url):
                kept.append({**server, "urls": [url]})
            else:
                dropped.append(url)
    return kept, dropped


def is_usable(url: str) -> bool:
    try:
        parsed = parse_stun_turn_uri(url)
    except ValueError:
        return False
    transports = {"stun": (None,), "turn": ("udp", "tcp"), "turns": ("tcp",)}.get(parsed["scheme"], ())
    return parsed.get("transport") in transports and 0 < parsed["port"] < 1 << 16


def chosen(servers: Servers, attempt: int) -> Servers:
    """Of usable ones, one STUN and one TURN server; another one with every attempt, from the first one on."""
    kinds = [[server for server in servers if server["urls"][0].startswith(kind)] for kind in ("stun", "turn")]
    return [kind[attempt % len(kind)] for kind in kinds if kind]
