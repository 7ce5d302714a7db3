"""The application: page, API, health, metrics, and the WebSocket on a real uvicorn, up to a call of aiortc peers."""

import base64
import hashlib
import html.parser
import json
import logging
import re
from typing import Any

import httpx
import pytest

from iwcodec.server import logs, tokens
from iwcodec.server.limits import Limits
from iwcodec.server.messages import MAX_MESSAGE_BYTES
from iwcodec.server.store.base import StoreError
from iwcodec.server.store.memory import MemoryStore
from iwcodec.server.turn import IceConfig
from support.server.signalling import NOW, SECRET, Clock, DirectCall, browser, connected, make_hub, running, sdp

pytestmark = pytest.mark.realtime


class Page(html.parser.HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.mark.parametrize("path", ["/", "/r/blue"])
async def test_the_page_explains_how_to_join_and_runs_only_its_own_script(path: str) -> None:
    async with browser(make_hub(MemoryStore())) as client:
        answer = await client.get(path)
    assert answer.status_code == 200
    assert "iwcodec call" in answer.text
    policy = answer.headers["content-security-policy"]
    for tag in ("script", "style"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", answer.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert not re.search(r"(src|href)=|innerHTML|https?://", answer.text)


async def test_the_page_is_accessible() -> None:
    async with browser(make_hub(MemoryStore())) as client:
        page = Page((await client.get("/r/blue")).text)
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("main")) == len(page.all("h1")) == len(page.all("title")) == 1
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    roles = {attributes.get("role") for _, attributes in page.tags}
    assert {"status", "alert"} <= roles
    for attributes in page.all("ul"):
        assert attributes["aria-labelledby"] in ids
    assert all(attributes["type"] == "button" for attributes in page.all("button"))


async def test_a_room_by_invitation_from_creation_to_call() -> None:
    clock = Clock()
    hub = make_hub(MemoryStore(), clock)
    async with running(hub) as address, httpx.AsyncClient(base_url=address) as client:
        made = (await client.post("/api/rooms", json={"access": "invitation", "hours": 2})).json()
        room, host = made["room"], {"Authorization": f"Bearer {made['token']}"}
        assert room.startswith(tokens.CLOSED_PREFIX)
        assert made["expires"] == NOW + 7200
        assert made["path"] == f"/r/{room}#token={made['token']}"

        assert (await client.post(f"/api/rooms/{room}/invitations")).status_code == 401
        invited = (await client.post(f"/api/rooms/{room}/invitations", headers=host)).json()
        assert invited["expires"] == made["expires"]
        guest = {"Authorization": f"Bearer {invited['token']}"}
        assert (await client.post(f"/api/rooms/{room}/invitations", headers=guest)).status_code == 403

        async with connected(address, room) as ada:
            assert (await ada.join(token=invited["token"]))["type"] == "welcome"
            assert (await client.get(f"/api/rooms/{room}")).status_code == 401
            content = (await client.get(f"/api/rooms/{room}", headers=guest)).json()
            assert content == {
                "room": room,
                "access": "invitation",
                "size": 6,
                "people": [{"name": "Ada", "joined": int(NOW)}],
            }
        clock.now += 7200
        assert (await client.get(f"/api/rooms/{room}", headers=guest)).status_code == 401


async def test_an_open_room_needs_no_token() -> None:
    async with browser(make_hub(MemoryStore())) as client:
        made = (await client.post("/api/rooms", json={"access": "open"})).json()
        assert (made["token"], made["path"]) == (None, f"/r/{made['room']}")
        content = (await client.get(f"/api/rooms/{made['room']}")).json()
        assert (content["access"], content["people"]) == ("open", [])


async def test_invitation_only_leaves_making_rooms_to_the_operator() -> None:
    async with browser(make_hub(MemoryStore(), invitation_only=True)) as client:
        assert (await client.post("/api/rooms", json={})).status_code == 403
        assert (await client.get("/api/rooms/blue")).status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/rooms/a:b", None),
        ("GET", "/api/rooms/" + "x" * 65, None),
        ("POST", "/api/rooms", {"access": "secret"}),
        ("POST", "/api/rooms", {"hours": 10_000}),
        ("POST", "/api/rooms", {"hours": -1}),
    ],
)
async def test_invalid_requests_are_rejected(method: str, path: str, body: Any) -> None:
    async with browser(make_hub(MemoryStore())) as client:
        assert (await client.request(method, path, json=body)).status_code == 422


async def test_an_address_over_its_request_rate_is_refused() -> None:
    clock = Clock()
    hub = make_hub(MemoryStore(), clock, limits=Limits(request_burst=3, requests_per_s=1))
    async with browser(hub) as client:
        statuses = [(await client.get("/api/rooms/blue")).status_code for _ in range(4)]
        assert statuses == [200, 200, 200, 429]
        clock.now += 1
        assert (await client.get("/api/rooms/blue")).status_code == 200
        assert (await client.get("/health")).status_code == 200


async def test_an_address_is_given_a_limited_number_of_rooms() -> None:
    clock = Clock()
    hub = make_hub(MemoryStore(), clock, limits=Limits(room_burst=2, rooms_per_s=0.1))
    async with browser(hub) as client:
        statuses = [(await client.post("/api/rooms", json={"access": "open"})).status_code for _ in range(3)]
        assert statuses == [201, 201, 429]
        clock.now += 10
        assert (await client.post("/api/rooms", json={})).status_code == 201
        assert (await client.get("/api/rooms/blue")).status_code == 200
    assert hub.metrics.registry.get_sample_value("iwcodec_refused_requests_total", {"reason": "rooms"}) == 1


async def test_health_and_metrics() -> None:
    hub = make_hub(MemoryStore(), metrics_token="north wind")
    async with running(hub) as address, httpx.AsyncClient(base_url=address) as client:
        assert (await client.get("/health")).json()["status"] == "ok"
        async with connected(address) as ada:
            await ada.join()
            answer = await client.get("/metrics", headers={"Authorization": "Bearer north wind"})
            assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
            values = dict(line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#"))
            assert values["iwcodec_connections"] == values["iwcodec_rooms"] == values["iwcodec_participants"] == "1.0"
            assert values['iwcodec_joins_total{outcome="joined"}'] == "1.0"
            assert "blue" not in answer.text

        async def unreachable() -> None:
            raise StoreError("gone")

        hub.store.ping = unreachable
        answer = await client.get("/health")
        assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")


async def test_an_oversized_frame_closes_only_its_own_connection() -> None:
    hub = make_hub(MemoryStore())
    async with running(hub) as address, connected(address) as ada, connected(address) as eve:
        await ada.join("Ada")
        welcome = await eve.join("Eve")
        await ada.hear("peer-joined")
        await eve.socket.send("x" * (10 * MAX_MESSAGE_BYTES))
        assert await eve.closed() == 1009
        await ada.say(type="ping")
        await ada.hear("pong")
        async with connected(address) as again:
            assert (await again.join("Eve", resume=welcome["resume"]))["id"] == welcome["id"]


async def test_invalid_rooms_and_too_many_connections_get_an_error() -> None:
    hub = make_hub(MemoryStore(), limits=Limits(connections=1, request_burst=3, requests_per_s=0))
    async with running(hub) as address:
        async with connected(address, "a:b") as remote:
            assert (await remote.hear("error"))["code"] == "refused"
            assert await remote.closed() == 4001
        async with connected(address) as ada:
            await ada.join()
            for reason in ("as many connections", "as many connections", "Too many connections"):
                async with connected(address) as bob:
                    assert reason in (await bob.hear("error"))["text"]
                    assert await bob.closed() == 1013


async def test_shutdown_closes_websockets_with_1012() -> None:
    hub = make_hub(MemoryStore())
    async with running(hub) as address:
        ada = await stay(address)
        await ada.join()
    assert await ada.closed() == 1012
    assert not hub.links


async def stay(address: str) -> Any:
    """Return a connection that the test does not close."""
    from websockets.asyncio.client import connect

    from support.server.signalling import Remote

    return Remote(await connect(f"ws{address.removeprefix('http')}/r/blue/ws"))


async def test_aiortc_peers_connect_with_trickled_candidates() -> None:
    async with running(make_hub(MemoryStore())) as address, connected(address) as ada, connected(address) as bob:
        first = (await ada.join("Ada"))["id"]
        second = (await bob.join("Bob"))["id"]
        await ada.hear("peer-joined")
        call = DirectCall()
        # The newcomer offers.
        await call.set_up(bob, ada, second, first)
        await call.works("directly")
        await call.close()


async def test_nothing_secret_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    hub = make_hub(MemoryStore(), ice=IceConfig((), ("turn:t.example",), "north wind"))
    token = tokens.sign(tokens.Token("private-blue", "host", int(NOW) + 60), SECRET)
    async with running(hub) as address, httpx.AsyncClient(base_url=address) as client:
        await client.get("/api/rooms/private-blue", headers={"Authorization": f"Bearer {token}"})
        async with connected(address, "private-blue") as ada, connected(address, "private-blue") as bob:
            welcome = await ada.join("Ada Lovelace", token=token)
            target = (await bob.join("Bob", token=token))["id"]
            await ada.say(type="signal", to=target, sdp=sdp("v=0\r\na=ice-pwd:hush"))
            await ada.say(type="signal", to=target, candidate={"candidate": "candidate:1 192.0.2.77"})
            await bob.hear("signal")
            await ada.say(nonsense=token)
        async with connected(address, "private-blue") as eve:
            await eve.join(token=token[:-1])
    ours = [record for record in caplog.records if record.name.startswith(("iwcodec", "uvicorn"))]
    kept = [record for record in ours if record.name.startswith("iwcodec") or record.levelno >= logging.WARNING]
    formatter = logs.JsonFormatter()
    text = "\n".join(formatter.format(record) for record in kept)
    assert {"joined", "closed", "stopped"} <= {json.loads(line)["event"] for line in text.splitlines()}
    secret = ["private-blue", token, token.split(".")[2], welcome["resume"], "Lovelace", "hush", "192.0.2.77"]
    secret += [welcome["ice_servers"][0]["credential"], "north wind", SECRET.decode(), "127.0.0.1"]
    for needle in secret:
        assert needle not in text
