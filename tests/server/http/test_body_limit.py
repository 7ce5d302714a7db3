"""Request bodies: a long one is answered 413 before it is read, on every route."""

import asyncio

import pytest

from iwcodec.server.http.body_limit import MAX_BODY_BYTES
from iwcodec.server.limits import Limits
from iwcodec.server.store.memory import MemoryStore
from support.server.signalling import PATIENCE_S, browser, make_hub, running

pytestmark = pytest.mark.realtime

ROUTES = ["POST /api/rooms", "POST /api/rooms/blue/invitations", "GET /api/rooms/blue", "GET /", "PUT /nowhere"]


async def exchange(address: str, head: str, body: bytes = b"", copies: int = 0) -> tuple[bytes, int]:
    """Send a request with `copies` times `body`, while there is no answer. Return the answer and the bytes sent."""
    host, _, port = address.removeprefix("http://").partition(":")
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection(host, int(port))
        answer = asyncio.create_task(reader.read())
        writer.write(f"{head}\r\n\r\n".encode())
        sent = 0
        try:
            while sent < copies * len(body) and not answer.done():
                writer.write(body)
                await writer.drain()
                sent += len(body)
            await asyncio.wait([answer])
            return answer.result(), sent
        except ConnectionError:
            return b"reset", sent
        finally:
            writer.transport.abort()


@pytest.mark.parametrize("route", ROUTES)
async def test_a_long_body_is_refused_by_its_declared_length(route: str) -> None:
    async with running(make_hub(MemoryStore())) as address:
        head = f"{route} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 200000000"
        answer, _ = await exchange(address, head)
    assert answer.startswith(b"HTTP/1.1 413 ")
    # `exchange` has read to the end: the server has closed the connection.
    assert b"connection: close" in answer.lower()


@pytest.mark.parametrize("route", ROUTES)
async def test_a_long_chunked_body_is_refused_when_it_exceeds_the_limit(route: str) -> None:
    async with running(make_hub(MemoryStore())) as address:
        head = f"{route} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked"
        chunk = b"1000\r\n" + bytes(4096) + b"\r\n"
        answer, _ = await exchange(address, head, chunk, copies=2)
    assert answer.startswith(b"HTTP/1.1 413 ")


async def test_an_endless_chunked_body_is_cut_off() -> None:
    async with running(make_hub(MemoryStore())) as address:
        head = "POST /api/rooms HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked"
        chunk = b"100000\r\n" + bytes(2**20) + b"\r\n"
        answer, sent = await exchange(address, head, chunk, copies=200)
    # A client that goes on sending may see a reset instead of the answer.
    assert answer.startswith(b"HTTP/1.1 413 ") or answer == b"reset"
    # What the buffers of both sockets hold.
    assert sent < 50 * 2**20


async def test_the_limit_comes_before_the_rate_and_is_sharp() -> None:
    hub = make_hub(MemoryStore(), limits=Limits(request_burst=2, requests_per_s=0))
    async with browser(hub) as client:
        padded = b'{"access": "open"}' + b" " * (MAX_BODY_BYTES - 18)
        headers = {"Content-Type": "application/json"}
        assert (await client.post("/api/rooms", content=padded, headers=headers)).status_code == 201
        for _ in range(3):
            answer = await client.post("/api/rooms", content=padded + b" ", headers=headers)
            assert answer.status_code == 413
            assert str(MAX_BODY_BYTES) in answer.json()["detail"]
            assert answer.headers["x-content-type-options"] == "nosniff"
        for length in ("-1", "1e9", "²"):
            answer = await client.post("/api/rooms", headers={"Content-Length": length.encode()})
            assert answer.status_code == 413
