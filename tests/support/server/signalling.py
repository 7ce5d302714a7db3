"""Doubles and helpers for tests of the server: settable clocks, sockets without a network, servers, Redis."""

import asyncio
import json
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from iwcodec.server.hub import Hub
from iwcodec.server.link import Disconnected
from iwcodec.server.messages import PROTOCOL
from iwcodec.server.settings import Settings
from iwcodec.server.store.base import Member, Store

SECRET = b"a secret of the tests, long enough"
NOW = 1_800_000_000.0
PATIENCE_S = 20.0
"""Timeout in seconds for things that normally happen at once."""


class Clock:
    """A clock that tests set; Unix or monotonic seconds."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class FakeSocket:
    """A WebSocket without a network. `say` and `hear` are the participant's end."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self.outgoing: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.closed: int | None = None

    async def receive(self) -> str | bytes:
        raw = await self.incoming.get()
        if raw is None:
            raise Disconnected
        return raw

    async def send(self, text: str) -> None:
        if self.closed is not None:
            raise Disconnected
        self.outgoing.put_nowait(json.loads(text))

    async def close(self, code: int) -> None:
        self.closed = code

    def say(self, **message: Any) -> None:
        self.incoming.put_nowait(json.dumps(message))

    async def hear(self, kind: str | None = None) -> dict[str, Any]:
        """Return the next message. Its type must be `kind`, if given."""
        async with asyncio.timeout(PATIENCE_S):
            message = await self.outgoing.get()
        assert kind in (None, message["type"]), message
        return message


class Caller:
    """A participant connected to a hub through a FakeSocket."""

    def __init__(self, hub: Hub, room: str = "blue", address: str = "192.0.2.1") -> None:
        self.socket = FakeSocket()
        self.say = self.socket.say
        self.hear = self.socket.hear
        self.task = asyncio.create_task(hub.serve(self.socket, room, address))

    async def join(self, name: str = "Ada", **fields: Any) -> dict[str, Any]:
        """Send a join message and return the answer."""
        self.say(type="join", protocol=PROTOCOL, name=name, **fields)
        return await self.hear()

    async def vanish(self) -> None:
        """Break the connection."""
        self.socket.incoming.put_nowait(None)
        await self.ended()

    async def ended(self) -> int | None:
        """Wait until the server has finished with the connection; return the close code."""
        async with asyncio.timeout(PATIENCE_S):
            await self.task
        return self.socket.closed

    async def silent(self) -> None:
        """Check that no message is pending: the next one is the answer to a ping."""
        self.say(type="ping")
        await self.hear("pong")


def make_hub(store: Store, clock: Clock | None = None, **settings: Any) -> Hub:
    clock = clock or Clock()
    return Hub(store, Settings(SECRET, **settings), clock=clock, ticks=clock)


def make_member(member: str = "ada", session: str = "s1", node: str = "n1", **fields: Any) -> Member:
    return Member(id=member, session=session, node=node, **{"name": "Ada", "joined": 1, "resume": "hash"} | fields)


def sdp(text: str = "v=0\r\n", kind: str = "offer") -> dict[str, str]:
    return {"type": kind, "sdp": text}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class RedisServer:
    """A redis-server on loopback that stores nothing on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        arguments = [
            "redis-server",
            "--bind",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--save",
            "",
            "--loglevel",
            "notice",
        ]
        self.process = subprocess.Popen(
            [*arguments, "--dir", str(self.folder)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self.process.stdout
        for line in self.process.stdout:
            if "Ready to accept connections" in line:
                return
        raise RuntimeError("redis-server did not start")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()


@contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    """Run a RedisServer. Skips the test if Redis or its client is not installed."""
    pytest.importorskip("redis")
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    server = RedisServer(folder)
    try:
        yield server
    finally:
        server.stop()


class Remote:
    """A participant over a real WebSocket."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket

    async def say(self, **message: Any) -> None:
        await self.socket.send(json.dumps(message))

    async def hear(self, kind: str | None = None) -> dict[str, Any]:
        """Return the next message. Its type must be `kind`, if given."""
        async with asyncio.timeout(PATIENCE_S):
            message: dict[str, Any] = json.loads(await self.socket.recv())
        assert kind in (None, message["type"]), message
        return message

    async def join(self, name: str = "Ada", **fields: Any) -> dict[str, Any]:
        await self.say(type="join", protocol=PROTOCOL, name=name, **fields)
        return await self.hear()

    async def closed(self) -> int:
        """Wait until the server closes; return the close code."""
        async with asyncio.timeout(PATIENCE_S):
            await self.socket.wait_closed()
        code: int = self.socket.close_code
        return code


def browser(hub: Hub, token: str | None = None) -> Any:
    """Return an httpx client that calls the application without a network."""
    httpx = pytest.importorskip("httpx")
    from iwcodec.server.http.app import create_app

    transport = httpx.ASGITransport(create_app(hub))
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers)


@asynccontextmanager
async def running(hub: Hub, certificate: tuple[Path, Path] | None = None) -> AsyncIterator[str]:
    """Run a real server on loopback; yields its address."""
    pytest.importorskip("uvicorn")
    from iwcodec.server.http.connections import Server, ServerConfig

    server = Server(ServerConfig(hub, certificate))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield f"{'https' if certificate else 'http'}://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            async with asyncio.timeout(PATIENCE_S):
                await task


@asynccontextmanager
async def connected(address: str, room: str = "blue", **options: Any) -> AsyncIterator[Remote]:
    """Open a WebSocket to a room. `address`: http:// or https:// address of the server."""
    websockets = pytest.importorskip("websockets.asyncio.client")
    async with websockets.connect(f"ws{address.removeprefix('http')}/r/{room}/ws", **options) as socket:
        yield Remote(socket)


class DirectCall:
    """Two aiortc peers that connect through the server with trickled candidates and use a data channel."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[str] = asyncio.Queue()

    async def set_up(self, caller: Remote, callee: Remote, caller_id: str, callee_id: str) -> None:
        aiortc = pytest.importorskip("aiortc")
        # Loopback candidates suffice; tests must not contact STUN servers.
        configuration = aiortc.RTCConfiguration(iceServers=[])
        self.caller = aiortc.RTCPeerConnection(configuration)
        self.callee = aiortc.RTCPeerConnection(configuration)
        self.channel = self.caller.createDataChannel("motion", ordered=False, maxRetransmits=0)
        opened = asyncio.Event()
        self.channel.on("open", opened.set)
        self.callee.on("datachannel", lambda channel: channel.on("message", self.heard.put_nowait))

        await self.caller.setLocalDescription(await self.caller.createOffer())
        await trickle(self.caller, caller, callee_id)
        await self.take(self.callee, callee, caller_id)
        await self.callee.setLocalDescription(await self.callee.createAnswer())
        await trickle(self.callee, callee, caller_id)
        await self.take(self.caller, caller, callee_id)
        async with asyncio.timeout(PATIENCE_S):
            await opened.wait()

    async def take(self, pc: Any, remote: Remote, sender: str) -> None:
        """Apply the signals of the other side until its end of candidates."""
        from aiortc import RTCSessionDescription
        from aiortc.sdp import candidate_from_sdp

        while True:
            signal = await remote.hear("signal")
            assert signal["from"] == sender
            if "sdp" in signal:
                await pc.setRemoteDescription(RTCSessionDescription(**signal["sdp"]))
            elif signal["candidate"] is None:
                return
            else:
                candidate = candidate_from_sdp(signal["candidate"]["candidate"].removeprefix("candidate:"))
                candidate.sdpMid = signal["candidate"]["sdpMid"]
                await pc.addIceCandidate(candidate)

    async def works(self, text: str) -> None:
        self.channel.send(text)
        async with asyncio.timeout(PATIENCE_S):
            assert await self.heard.get() == text

    async def close(self) -> None:
        await self.caller.close()
        await self.callee.close()


async def trickle(pc: Any, remote: Remote, to: str) -> None:
    """Send the SDP without candidates, then each candidate, then the end of candidates, as a browser does."""
    lines = pc.localDescription.sdp.splitlines(keepends=True)
    candidates = [line[2:].strip() for line in lines if line.startswith("a=candidate:")]
    kept = "".join(line for line in lines if not line.startswith(("a=candidate:", "a=end-of-candidates")))
    await remote.say(type="signal", to=to, sdp={"type": pc.localDescription.type, "sdp": kept}, call="c1")
    for candidate in candidates:
        fields = {"candidate": candidate, "sdpMid": "0", "sdpMLineIndex": 0}
        await remote.say(type="signal", to=to, candidate=fields, call="c1")
    await remote.say(type="signal", to=to, candidate=None, call="c1")
