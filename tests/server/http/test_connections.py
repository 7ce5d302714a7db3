"""TCP connections: deadlines of requests, caps for addresses and for the process, and what the log says about them."""

import asyncio
import json
import logging
import ssl
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from iwcodec.server import logs
from iwcodec.server.http.connections import MAX_HEADER_BYTES, Connections, allow_descriptors
from iwcodec.server.hub import REFUSAL_BURST, Hub
from iwcodec.server.limits import Limits
from iwcodec.server.store.memory import MemoryStore
from support.server.certificates import write_certificate
from support.server.signalling import PATIENCE_S, Clock, connected, make_hub, running

pytestmark = pytest.mark.realtime

SOON_S = 0.5
"""Deadline of requests in these tests."""


@asynccontextmanager
async def opened(address: str, count: int = 1, **options: Any) -> AsyncIterator[list[tuple[Any, Any]]]:
    """Open that many TCP connections and yield their readers and writers."""
    host, _, port = address.partition("://")[2].partition(":")
    streams = [await asyncio.open_connection(host, int(port), **options) for _ in range(count)]
    try:
        yield streams
    finally:
        for _, writer in streams:
            writer.transport.abort()


async def ended(reader: asyncio.StreamReader) -> bool:
    """Read until the server closes or resets the connection."""
    async with asyncio.timeout(PATIENCE_S):
        try:
            while await reader.read(65536):
                pass
        except ConnectionError:
            pass
        return True


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Return the status line of a request for /health; nothing where the connection is reset."""
    try:
        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(PATIENCE_S):
            status = await reader.readline()
            while (await reader.readline()).strip():
                pass
            await reader.read(65536)
        return status.strip()
    except ConnectionError:
        return b""


def quick(**limits: Any) -> Hub:
    """A hub with short deadlines."""
    return make_hub(MemoryStore(), limits=Limits(request_s=SOON_S, **limits))


def refusals(hub: Hub, reason: str) -> float:
    labels = {"reason": reason}
    return hub.metrics.registry.get_sample_value("iwcodec_refused_requests_total", labels) or 0.0


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HT",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-More: ",
        b"POST /api/rooms HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
        b"POST /api/rooms HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /hea",
        b"GET /r/blue/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n",
    ],
)
async def test_a_request_that_is_never_completed_is_closed(sent: bytes) -> None:
    hub = quick()
    async with running(hub) as address, opened(address) as [(reader, writer)]:
        writer.write(sent)
        assert await ended(reader)
    assert refusals(hub, "slow") == 1


async def test_a_request_that_trickles_is_closed() -> None:
    """Each byte in time does not extend the deadline."""
    hub = quick()
    async with running(hub) as address, opened(address) as [(reader, writer)]:
        closed = asyncio.create_task(ended(reader))
        writer.write(b"GET / HTTP/1.1\r\nX-Long: ")
        while not closed.done():
            writer.write(b"x")
            await asyncio.sleep(0.05)
    assert refusals(hub, "slow") == 1


async def test_a_client_that_does_not_read_is_closed() -> None:
    hub = quick()
    async with running(hub) as address, opened(address, limit=1024) as [(reader, writer)]:
        # The reader's buffer has a limit, above which asyncio stops reading.
        for _ in range(2000):
            writer.write(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(PATIENCE_S):
            while not refusals(hub, "slow"):
                await asyncio.sleep(0.05)
        assert await ended(reader)


async def test_headers_have_a_limit() -> None:
    hub = make_hub(MemoryStore())
    async with running(hub) as address, opened(address) as [(reader, writer)]:
        writer.write(b"GET / HTTP/1.1\r\n" + b"X-Long: %s\r\n" % (b"x" * 1000) * (MAX_HEADER_BYTES // 1000 + 10))
        assert await ended(reader)
    assert refusals(hub, "slow") == 0


async def test_requests_and_calls_outlive_the_deadline() -> None:
    hub = quick()
    async with running(hub) as address, opened(address) as [(reader, writer)], connected(address) as ada:
        await ada.join()
        for _ in range(4):
            assert await answer(reader, writer) == b"HTTP/1.1 200 OK"
            await asyncio.sleep(0.4 * SOON_S)
        await asyncio.sleep(SOON_S)
        await ada.say(type="ping")
        await ada.hear("pong")


async def test_answers_do_not_wait_for_delayed_acknowledgements() -> None:
    """Without TCP_NODELAY the second part of each answer waits 40 ms for the acknowledgement of the first."""
    times = []
    async with running(make_hub(MemoryStore())) as address, opened(address) as [(reader, writer)]:
        for _ in range(20):
            start = time.perf_counter()
            await answer(reader, writer)
            times.append(time.perf_counter() - start)
    assert min(times[5:]) < 0.03


async def test_an_unfinished_tls_handshake_is_closed(tmp_path: Path) -> None:
    certificate = write_certificate(tmp_path)
    trusted = ssl.create_default_context(cafile=str(certificate[0]))
    hub = quick(address_connections=3)
    async with running(hub, certificate) as address:
        async with opened(address, 5) as streams:
            for _, writer in streams:
                writer.write(b"\x16\x03\x01\x02\x00\x01")
            await asyncio.gather(*(ended(reader) for reader, _ in streams))
        assert refusals(hub, "connections") == 2
        assert refusals(hub, "slow") == 3
        async with opened(address) as [(reader, writer)]:
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            assert await ended(reader)
        async with httpx.AsyncClient(verify=trusted, base_url=address) as client:
            assert (await client.get("/health")).status_code == 200
        async with connected(address, ssl=trusted) as ada:
            assert (await ada.join())["type"] == "welcome"


async def test_an_address_has_a_cap_and_others_are_served() -> None:
    hub = make_hub(MemoryStore(), limits=Limits(address_connections=10))
    async with running(hub) as address, opened(address, 30) as streams:
        for _, writer in streams:
            writer.write(b"GET / HTTP/1.1\r\nX-")
        closed = [asyncio.create_task(ended(reader)) for reader, _ in streams]
        async with asyncio.timeout(PATIENCE_S):
            while sum(task.done() for task in closed) < 20:
                await asyncio.sleep(0.01)
        assert refusals(hub, "connections") == 20
        assert not any(task.done() for task in closed[:10])
        if sys.platform == "linux":  # elsewhere 127.0.0.1 is the only loopback address
            async with opened(address, local_addr=("127.0.0.2", 0)) as [(reader, writer)]:
                assert await answer(reader, writer) == b"HTTP/1.1 200 OK"
        for task in closed:
            task.cancel()


async def test_a_closed_connection_makes_place_for_another() -> None:
    hub = make_hub(MemoryStore(), limits=Limits(address_connections=2))
    async with running(hub) as address:
        for _ in range(5):
            async with connected(address) as ada, opened(address) as [(reader, writer)]:
                await ada.join()
                assert await answer(reader, writer) == b"HTTP/1.1 200 OK"
                async with opened(address) as [(third, _)]:
                    assert await ended(third)
            await closed(hub)
    assert refusals(hub, "connections") == 5


async def closed(hub: Hub) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while hub.links:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)


async def test_a_flood_of_connections_writes_a_few_lines_without_addresses(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    hub = make_hub(MemoryStore(), Clock(), limits=Limits(address_connections=5))
    async with running(hub) as address, opened(address, 105) as streams:
        await asyncio.gather(*(ended(reader) for reader, _ in streams[5:]))
        hub.ticks.now += 1
        async with opened(address) as [(reader, _)]:
            await ended(reader)
    lines = [json.loads(logs.JsonFormatter().format(record)) for record in caplog.records]
    lines = [line for line in lines if line["event"] == "refused"]
    assert len(lines) == REFUSAL_BURST + 1
    assert sum(line["count"] for line in lines) == 101
    assert {(line["reason"], line["level"]) for line in lines} == {("connections", "warning")}
    assert {line["address"] for line in lines} == {hub.tag("127.0.0.1")}


def test_the_process_has_a_cap_and_a_trusted_proxy_none_of_its_own() -> None:
    hub = make_hub(MemoryStore(), limits=Limits(address_connections=2), trusted_proxies=("10.0.0.0/8", "2001:db8::1"))
    connections = Connections(hub, capacity=6)
    for address in ("192.0.2.1", "192.0.2.1", "10.1.2.3", "10.1.2.3", "10.1.2.3"):
        assert connections.admit(address)
        connections.count(address)
    assert not connections.admit("192.0.2.1")
    assert connections.admit("2001:db8::1")
    connections.count("2001:db8::2")
    assert not connections.admit("10.1.2.3")
    assert not connections.admit("192.0.2.2")
    assert (refusals(hub, "connections"), refusals(hub, "capacity")) == (1, 2)
    connections.discount("192.0.2.1")
    assert connections.admit("192.0.2.1")
    for address in ("192.0.2.1", "10.1.2.3", "10.1.2.3", "10.1.2.3", "2001:db8::2"):
        connections.discount(address)
    assert not connections.open


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of file descriptors")
def test_the_limit_of_descriptors_is_raised_as_far_as_allowed() -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, before[1]))
        assert allow_descriptors(100) == 100
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 200
        assert allow_descriptors(250) == 250
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 250
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
