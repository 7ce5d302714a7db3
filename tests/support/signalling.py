"""Stand-ins for the tests of the server: clocks that are moved by hand, sockets without a network, Redis servers."""

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

for needed in ("fastapi", "prometheus_client"):
    pytest.importorskip(needed)
from iwcodec.server.hub import Disconnected, Hub, Settings
from iwcodec.server.messages import PROTOCOL
from iwcodec.server.rooms import Member, Store

SECRET = b"a secret of the tests, long enough"
NOW = 1_800_000_000.0
PATIENCE_S = 20.0
"""For things that happen at once: a test that waits so long has failed."""


class Clock:
    """Unix or monotonic seconds."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class FakeSocket:
    """The server's end of a WebSocket, and, by `say` and `hear`, the participant's."""

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
        """The next message, which must be of that type."""
        async with asyncio.timeout(PATIENCE_S):
            message = await self.outgoing.get()
        assert kind in (None, message["type"]), message
        return message


class Caller:
    """A participant that is connected to a hub through a FakeSocket."""

    def __init__(self, hub: Hub, room: str = "blue") -> None:
        self.socket = FakeSocket()
        self.say = self.socket.say
        self.hear = self.socket.hear
        self.task = asyncio.create_task(hub.serve(self.socket, room))

    async def join(self, name: str = "Ada", **fields: Any) -> dict[str, Any]:
        """The answer, whatever it is."""
        self.say(type="join", protocol=PROTOCOL, name=name, **fields)
        return await self.hear()

    async def vanish(self) -> None:
        """The connection breaks."""
        self.socket.incoming.put_nowait(None)
        await self.ended()

    async def ended(self) -> int | None:
        """The close code, once the server is done with the connection."""
        async with asyncio.timeout(PATIENCE_S):
            await self.task
        return self.socket.closed

    async def silent(self) -> None:
        """Nothing is on its way: what the server answers now is the answer to our ping."""
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
    """A redis-server of our own on loopback, which keeps nothing on disk."""

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
    """Skips the test where Redis, or its client, is not installed."""
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
        """The next message, which must be of that type."""
        async with asyncio.timeout(PATIENCE_S):
            message: dict[str, Any] = json.loads(await self.socket.recv())
        assert kind in (None, message["type"]), message
        return message

    async def join(self, name: str = "Ada", **fields: Any) -> dict[str, Any]:
        await self.say(type="join", protocol=PROTOCOL, name=name, **fields)
        return await self.hear()

    async def closed(self) -> int:
        """The close code, once the server has closed."""
        async with asyncio.timeout(PATIENCE_S):
            await self.socket.wait_closed()
        code: int = self.socket.close_code
        return code


@asynccontextmanager
async def connected(address: str, room: str = "blue", **options: Any) -> AsyncIterator[Remote]:
    """`address`: of the server, http:// or https://."""
    websockets = pytest.importorskip("websockets.asyncio.client")
    async with websockets.connect(f"ws{address.removeprefix('http')}/r/{room}/ws", **options) as socket:
        yield Remote(socket)


class DirectCall:
    """Two aiortc peers that find each other through the server, candidates trickled, and talk over a data channel."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[str] = asyncio.Queue()

    async def set_up(self, caller: Remote, callee: Remote, caller_id: str, callee_id: str) -> None:
        aiortc = pytest.importorskip("aiortc")
        # No servers: loopback candidates are enough, and a test asks nobody on the internet.
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
        """Apply what the other side signals until its candidates end."""
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
    """Send the description without its candidates, then each of them, then their end, as a browser does."""
    lines = pc.localDescription.sdp.splitlines(keepends=True)
    candidates = [line[2:].strip() for line in lines if line.startswith("a=candidate:")]
    kept = "".join(line for line in lines if not line.startswith(("a=candidate:", "a=end-of-candidates")))
    await remote.say(type="signal", to=to, sdp={"type": pc.localDescription.type, "sdp": kept}, call="c1")
    for candidate in candidates:
        fields = {"candidate": candidate, "sdpMid": "0", "sdpMLineIndex": 0}
        await remote.say(type="signal", to=to, candidate=fields, call="c1")
    await remote.say(type="signal", to=to, candidate=None, call="c1")
