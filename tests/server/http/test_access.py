"""Access rules: pages of other origins, metrics, and the addresses that proxies forward."""

from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from starlette.requests import HTTPConnection
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from iwcodec.server.http.access import is_foreign, is_misdirected, may_read_metrics
from iwcodec.server.limits import Limits
from iwcodec.server.store.memory import MemoryStore
from support.server.signalling import browser, connected, make_hub, running

pytestmark = pytest.mark.realtime


def connection(client: str = "192.0.2.1", **headers: str) -> HTTPConnection:
    """A request from that address; underscores in header names become hyphens."""
    encoded = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return HTTPConnection({"type": "http", "client": (client, 1), "headers": encoded})


@pytest.mark.parametrize(
    ("origin", "host", "foreign"),
    [
        (None, "calls.example", False),
        ("https://calls.example", "calls.example", False),
        ("https://calls.example:443", "calls.example", False),
        ("https://calls.example", "calls.example:443", False),
        ("http://127.0.0.1:8000", "127.0.0.1:8000", False),
        ("http://[::1]:8000", "[::1]:8000", False),
        ("https://Calls.example", "calls.EXAMPLE", False),
        ("https://friend.example", "calls.example", False),
        ("http://evil.example", "calls.example", True),
        ("http://calls.example", "calls.example:8000", True),
        ("http://calls.example:8001", "calls.example:8000", True),
        ("https://calls.example.evil.example", "calls.example", True),
        ("https://evil.example/https://friend.example", "calls.example", True),
        ("http://friend.example", "calls.example", True),
        ("null", "calls.example", True),
        ("", "", True),
        ("https://", "", True),
        ("file://", "calls.example", True),
        ("https://[", "calls.example", True),
        ("https://calls.example:port", "calls.example", True),
    ],
)
def test_pages_of_other_origins_are_recognized(origin: str | None, host: str, foreign: bool) -> None:
    headers = {"host": host} | ({} if origin is None else {"origin": origin})
    assert is_foreign(connection(**headers), ("https://friend.example",)) is foreign


@pytest.mark.parametrize(
    ("host", "server", "misdirected"),
    [
        *((name, "127.0.0.1", False) for name in ("localhost:8000", "LOCALHOST", "a.localhost", "localhost.:80")),
        *((name, "127.0.0.1", False) for name in ("127.0.0.1:8000", "127.9.9.9", "[::1]:8000", "192.0.2.7")),
        *(
            (name, "127.0.0.1", True)
            for name in ("evil.example:8000", "", "localhost.evil.example", "[", "127.0.0.1.x")
        ),
        ("friend.example", "127.0.0.1", False),
        ("evil.example", "::1", True),
        ("calls.example", "192.0.2.1", False),
    ],
)
def test_names_that_were_made_to_point_at_this_machine_are_recognized(
    host: str, server: str, misdirected: bool
) -> None:
    """DNS rebinding."""
    request = connection(host=host)
    request.scope["server"] = (server, 8000)
    assert is_misdirected(request, ("https://friend.example",)) is misdirected


async def test_a_rebound_name_opens_neither_pages_nor_websockets() -> None:
    """Its page has the origin that it asks for."""
    hub = make_hub(MemoryStore())
    async with running(hub) as address, httpx.AsyncClient(base_url=address) as client:
        port = address.rpartition(":")[2]
        rebound = {"Host": f"evil.example:{port}", "Origin": f"http://evil.example:{port}"}
        for path in ("/", "/metrics", "/api/rooms/blue"):
            assert (await client.get(path, headers=rebound)).status_code == 421
        assert (await client.get("/", headers={"Host": f"localhost:{port}"})).status_code == 200
        uri, origin = f"ws://evil.example:{port}/r/blue/ws", rebound["Origin"]
        with pytest.raises(InvalidStatus, match="403"):
            await connect(uri, host="127.0.0.1", port=int(port), origin=origin, proxy=None)


async def test_a_websocket_for_a_page_of_another_origin_is_refused() -> None:
    hub = make_hub(MemoryStore(), allowed_origins=("https://friend.example",))
    async with running(hub) as address:
        for origin in ("http://evil.example", "null"):
            with pytest.raises(InvalidStatus) as refusal:
                async with connected(address, origin=origin):
                    pass
            assert refusal.value.response.status_code == 403
        for origin in (None, address, "https://friend.example"):
            async with connected(address, origin=origin) as ada:
                assert (await ada.join())["type"] == "welcome"
    assert hub.metrics.registry.get_sample_value("iwcodec_refused_requests_total", {"reason": "origin"}) == 2


async def test_rooms_and_invitations_are_not_made_for_pages_of_other_origins() -> None:
    async with browser(make_hub(MemoryStore())) as client:
        for path in ("/api/rooms", "/api/rooms/blue/invitations"):
            foreign = {"Origin": "http://evil.example"}
            assert (await client.post(path, json={"access": "open"}, headers=foreign)).status_code == 403
            own = {"Origin": "http://test"}
            assert (await client.post(path, json={"access": "open"}, headers=own)).status_code == 201


async def test_pages_of_allowed_origins_may_use_the_api() -> None:
    friend, evil = {"Origin": "https://friend.example"}, {"Origin": "https://evil.example"}
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    async with browser(make_hub(MemoryStore(), allowed_origins=("https://friend.example",))) as client:
        assert (await client.options("/api/rooms", headers=friend | asked)).status_code == 200
        answer = await client.post("/api/rooms", json={"access": "open"}, headers=friend)
        assert answer.status_code == 201
        assert answer.headers["access-control-allow-origin"] == "https://friend.example"
        assert (await client.options("/api/rooms", headers=evil | asked)).status_code == 400
        answer = await client.post("/api/rooms", json={"access": "open"}, headers=evil)
        assert (answer.status_code, answer.headers.get("access-control-allow-origin")) == (403, None)


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, False),
        ({"authorization": "Bearer north wind"}, True),
        ({"authorization": "bearer  north wind"}, True),
        ({"via": "1.1 proxy", "authorization": "Bearer north wind"}, True),
        ({"authorization": "Bearer north"}, False),
        ({"authorization": "Basic north wind"}, False),
        ({"authorization": "Bearer "}, False),
    ],
)
@pytest.mark.parametrize("client", ["127.0.0.1", "::1", "192.0.2.1", ""])
def test_metrics_need_the_token(client: str, headers: dict[str, str], allowed: bool) -> None:
    assert may_read_metrics(connection(client, **headers), "north wind") is allowed


def test_without_a_metrics_token_no_bearer_is_accepted() -> None:
    for value in ("Bearer ", "Bearer", "Bearer x"):
        assert not may_read_metrics(connection(authorization=value), "")


async def test_metrics_behind_a_proxy_need_the_token() -> None:
    """Also behind one that is not known as such and adds no header: its clients seem to be on this machine."""
    for proxies in ((), ("127.0.0.1",)):
        hub = make_hub(MemoryStore(), metrics_token="north wind", trusted_proxies=proxies)
        async with running(hub) as address, httpx.AsyncClient(base_url=address) as client:
            forwarded = {"X-Forwarded-For": "192.0.2.1"}
            assert (await client.get("/metrics")).status_code == 403
            assert (await client.get("/metrics", headers=forwarded)).status_code == 403
            token = {"Authorization": "Bearer north wind"}
            assert (await client.get("/metrics", headers=token)).status_code == 200
            assert (await client.get("/metrics", headers=forwarded | token)).status_code == 200


async def statuses(addresses: Sequence[str], **settings: Any) -> list[int]:
    """The answers to requests that are forwarded for those addresses; each address may send two."""
    hub = make_hub(MemoryStore(), limits=Limits(request_burst=2, requests_per_s=0), **settings)
    async with running(hub) as address, httpx.AsyncClient(base_url=address) as client:
        answers = [await client.get("/api/rooms/blue", headers={"X-Forwarded-For": given}) for given in addresses]
    return [answer.status_code for answer in answers]


async def test_a_forwarded_address_is_believed_only_from_a_trusted_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    # uvicorn's own setting must have no effect.
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    many = [f"192.0.2.{number}" for number in range(4)]
    assert await statuses(many) == [200, 200, 429, 429]
    assert await statuses(many, trusted_proxies=("10.0.0.0/8",)) == [200, 200, 429, 429]
    assert await statuses(many, trusted_proxies=("10.0.0.0/8", "127.0.0.0/8")) == [200] * 4
    # The proxy appends the client's address after whatever the client sent itself.
    spoofed = [f"{claim}, 203.0.113.9" for claim in many]
    assert await statuses(spoofed, trusted_proxies=("127.0.0.1",)) == [200, 200, 429, 429]


async def test_websockets_behind_a_proxy_are_counted_by_client() -> None:
    hub = make_hub(MemoryStore(), limits=Limits(address_connections=1), trusted_proxies=("127.0.0.1",))
    async with running(hub) as address:
        first, second = ({"X-Forwarded-For": f"2001:db8:0:{number}::1"} for number in range(2))
        neighbour = {"X-Forwarded-For": "2001:db8:0:0::2"}
        async with connected(address, additional_headers=first) as ada:
            await ada.join()
            async with connected(address, additional_headers=neighbour) as eve:
                assert "open from here" in (await eve.hear("error"))["text"]
            async with connected(address, additional_headers=second) as bob:
                assert (await bob.join())["type"] == "welcome"
