"""Who may use what: pages of other origins, addresses under other names, and /metrics."""

import hmac
from collections.abc import Collection
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

_DEFAULT_PORTS = {"http": 80, "https": 443}


def client_address(connection: HTTPConnection) -> str:
    """Return the address of the client. Behind a trusted proxy uvicorn has replaced the proxy's by the client's."""
    return connection.client.host if connection.client else ""


def is_foreign(connection: HTTPConnection, allowed: Collection[str]) -> bool:
    """Return whether a browser sent this for a page of another server, which is not among the `allowed` origins.

    Browsers name the page's origin in a header that pages cannot change (RFC 6454 section 7). Programs other than
    browsers send none, and are accepted.
    """
    origin = connection.headers.get("origin")
    return origin is not None and origin not in allowed and not _is_same(origin, connection.headers.get("host", ""))


def is_misdirected(connection: HTTPConnection, allowed: Collection[str]) -> bool:
    """Return whether this came over loopback, but names a host that is neither this machine nor that of an `allowed`
    origin.

    A page whose name was made to point at 127.0.0.1 (DNS rebinding) has the server's own origin in the browser's eyes;
    only the name in the Host header gives it away. IP addresses cannot be rebound.
    """
    here = (connection.scope.get("server") or ("", None))[0] or ""
    if not _is_loopback(here):
        return False
    try:
        host = urlsplit(f"//{connection.headers.get('host', '')}").hostname or ""
    except ValueError:
        return True
    try:
        ip_address(host)
        return False
    except ValueError:
        named = host.rstrip(".")
        own = named == "localhost" or named.endswith(".localhost")
        return not own and host not in {urlsplit(origin).hostname for origin in allowed}


def may_read_metrics(connection: HTTPConnection, token: str) -> bool:
    """Return whether the metrics may be read: with the bearer `token`, if not empty.

    The client's address proves nothing: whatever a proxy on this machine forwards comes from this machine.
    """
    scheme, _, given = connection.headers.get("authorization", "").partition(" ")
    return bool(token) and scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


def _is_same(origin: str, host: str) -> bool:
    """Return whether `origin` is that of a server whose Host header is `host`."""
    try:
        page = urlsplit(origin)
        default = _DEFAULT_PORTS[page.scheme]
        here = urlsplit(f"//{host}")
        return bool(page.hostname) and (page.hostname, page.port or default) == (here.hostname, here.port or default)
    except (KeyError, ValueError):
        return False
