"""The signalling client against a scripted server: joining, resuming, close codes, malformed messages."""

import asyncio
import json
import random
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("websockets")
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosedOK

from iwcodec.client.room import protocol
from iwcodec.client.room import signalling as s
from iwcodec.client.room.protocol import (
    PROTOCOL_VERSION,
    Disconnected,
    Joined,
    PeerJoined,
    PeerLeft,
    RemoteDescription,
    SignallingError,
)
from iwcodec.client.room.resume_file import ResumeFile
from iwcodec.client.transport.sdp_compression import compress_sdp
from support.server.certificates import write_certificate

pytestmark = pytest.mark.realtime

PATIENCE_S = 60.0
SDP = "v=0\r\na=fingerprint:sha-256 " + bytes(32).hex(":") + "\r\n"
WELCOME = {
    "type": "welcome",
    "protocol": PROTOCOL_VERSION,
    "room": "blue",
    "id": "ada",
    "resume": "secret",
    "resumed": False,
    "peers": [{"id": "bob", "name": "Bob"}],
    "ice_servers": [{"urls": ["turn:turn.example:3478"], "username": "u", "credential": "c"}],
    "ice_ttl_s": 3600,
    "ping_s": 20,
    "grace_s": 30,
}
Script = Callable[[ServerConnection, dict[str, Any]], Awaitable[None]]


async def against(
    scripts: list[Script], take: Callable[[s.Signalling], Awaitable[Any]], fragment: str = ""
) -> list[Any]:
    """Run `take` against a server and return the join requests. Each script serves one connection, the last one all
    further ones."""
    joins: list[Any] = []

    async def handle(socket: ServerConnection) -> None:
        joins.append(json.loads(await socket.recv()))
        await scripts[min(len(joins), len(scripts)) - 1](socket, joins[-1])

    async with asyncio.timeout(PATIENCE_S), serve(handle, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        await take(s.Signalling(f"http://127.0.0.1:{port}/r/blue{fragment}", " Ada\n", reconnect_delays_s=(0.0,)))
    return joins


def say(*messages: Any, code: int | None = None, **changes: Any) -> Script:
    """A script that sends a welcome and `messages`, and closes with the code or waits for the client to close."""

    async def script(socket: ServerConnection, join: dict[str, Any]) -> None:
        await socket.send(json.dumps(WELCOME | {"resumed": "resume" in join} | changes))
        for message in messages:
            await socket.send(message if isinstance(message, str | bytes) else json.dumps(message))
        if code is not None:
            await socket.close(code)
        await socket.wait_closed()

    return script


def refuse(code: int, text: str = "no") -> Script:
    async def script(socket: ServerConnection, join: dict[str, Any]) -> None:
        await socket.send(json.dumps({"type": "error", "code": "refused", "text": text}))
        await socket.close(code)

    return script


def test_join_and_leave() -> None:
    events: list[Any] = []

    async def take(signalling: s.Signalling) -> None:
        async for event in signalling.events():
            events.append(event)
            if isinstance(event, PeerJoined):
                await signalling.leave()

    joins = asyncio.run(
        against([say({"type": "peer-joined", "peer": {"id": "cyd", "name": "C\u0007yd"}})], take, "#token=tk")
    )
    assert joins == [{"type": "join", "protocol": PROTOCOL_VERSION, "name": "Ada", "token": "tk"}]
    assert events == [
        Joined("ada", False, {"bob": "Bob"}, WELCOME["ice_servers"], 3600.0),
        PeerJoined("cyd", "Cyd"),
    ]


def test_parallel_attempts_replace_a_connection_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """If all hang, joining fails with a message."""
    monkeypatch.setattr(s, "CONNECT_ATTEMPTS_S", (0.0, 0.1))
    monkeypatch.setattr(s, "OPEN_TIMEOUT_S", 0.5)

    async def join_through(hanging: int) -> list[Any]:
        """The events from a server behind a relay whose first `hanging` connections lead nowhere."""
        came = 0

        async def handle(socket: ServerConnection) -> None:
            await socket.recv()
            await say()(socket, {})

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal came
            came += 1
            if came > hanging:
                there, back = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
                await asyncio.gather(pass_on(reader, back), pass_on(there, writer))

        events = []
        async with asyncio.timeout(PATIENCE_S), serve(handle, "127.0.0.1", 0) as server:
            front = await asyncio.start_server(relay, "127.0.0.1", 0)
            signalling = s.Signalling(f"http://127.0.0.1:{front.sockets[0].getsockname()[1]}/r/blue", "Ada")
            try:
                async for event in signalling.events():
                    events.append(event)
                    await signalling.leave()
            finally:
                front.close()
        return events

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            writer.write(data)
        writer.close()

    assert [type(event) for event in asyncio.run(join_through(1))] == [Joined]
    with pytest.raises(SignallingError, match="does not answer"):
        asyncio.run(join_through(2))


def test_leave_ends_joining() -> None:
    """Before the welcome, and between two attempts."""

    async def silent(socket: ServerConnection, join: dict[str, Any]) -> None:
        await socket.wait_closed()

    async def leave_soon(signalling: s.Signalling) -> list[Any]:
        left = asyncio.get_running_loop().create_task(leave(signalling))
        events = [type(event) async for event in signalling.events()]
        await left
        return events

    async def leave(signalling: s.Signalling) -> None:
        await asyncio.sleep(0.2)
        await signalling.leave()

    async def between(signalling: s.Signalling) -> None:
        signalling._reconnect_delays_s = (1000.0,)
        assert await leave_soon(signalling) == [Joined, Disconnected]

    async def before(signalling: s.Signalling) -> None:
        assert await leave_soon(signalling) == []

    asyncio.run(against([silent], before))
    asyncio.run(against([say(code=4007)], between))


def test_descriptions_are_sent_and_received() -> None:
    relayed: list[Any] = []

    async def echo(socket: ServerConnection, join: dict[str, Any]) -> None:
        await socket.send(json.dumps(WELCOME))
        async for text in socket:
            message = json.loads(text)
            if message["type"] == "signal":
                relayed.append(message)
                await socket.send(json.dumps({**message, "from": message["to"]}))

    async def take(signalling: s.Signalling) -> None:
        events = []
        async for event in signalling.events():
            if isinstance(event, Joined):
                await signalling.send_description("bob", "offer", SDP, "call1")
                await signalling.send_description("bob", "answer", unusual, "call1")
                continue
            events.append(event)
            if len(events) == 2:
                await signalling.leave()
        assert events == [
            RemoteDescription("bob", "offer", SDP, "call1"),
            RemoteDescription("bob", "answer", unusual, "call1"),
        ]

    unusual = "v=0\r\n" + "".join(chr(random.Random(n).randrange(33, 127)) for n in range(16_000))
    asyncio.run(against([echo], take))
    assert [sorted(message) for message in relayed] == [["call", "sdp", "to", "type"]] * 2
    assert relayed[0]["sdp"] == {"type": "offer", "deflated": compress_sdp(SDP)}
    assert relayed[1]["sdp"] == {"type": "answer", "sdp": unusual}


@pytest.mark.parametrize("code", [1006, 1011, 1012, 4005])
def test_a_lost_connection_is_resumed(code: int) -> None:
    events: list[Any] = []

    async def cut(socket: ServerConnection, join: dict[str, Any]) -> None:
        await socket.send(json.dumps(WELCOME))
        if code == 1006:
            socket.transport.abort()
        else:
            await socket.close(code)

    async def take(signalling: s.Signalling) -> None:
        async for event in signalling.events():
            events.append(event)
            if sum(isinstance(event, Joined) for event in events) == 2:
                await signalling.leave()

    joins = asyncio.run(against([cut, say()], take))
    assert [join.get("resume") for join in joins] == [None, "secret"]
    assert [type(event) for event in events] == [Joined, Disconnected, Joined]
    assert events[-1].resumed


def test_unconfirmed_signals_are_resent_after_a_reconnection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pong confirms all signals sent before its ping, which are not resent."""
    monkeypatch.setattr(s, "PING_INTERVAL_S", 0.3)
    monkeypatch.setattr(s, "PONG_TIMEOUT_S", 0.1)
    had: list[list[str]] = [[], []]

    def serving(into: list[str], most: int) -> Script:
        """Abort the connection at signal number `most`."""

        async def script(socket: ServerConnection, join: dict[str, Any]) -> None:
            await socket.send(json.dumps(WELCOME | {"resumed": "resume" in join}))
            while len(into) < most:
                message = json.loads(await socket.recv())
                if message["type"] == "signal":
                    into.append(message["call"])
                else:
                    await socket.send('{"type": "pong"}')
            socket.transport.abort()

        return script

    async def speak(signalling: s.Signalling) -> None:
        await signalling.send_description("bob", "offer", "v=0\r\n", "one")
        while signalling._unconfirmed:
            await asyncio.sleep(0.01)
        await signalling.send_description("bob", "offer", "v=0\r\n", "two")
        await signalling.send_description("bob", "offer", "v=0\r\n", "three")
        while len(had[1]) < 2:
            await asyncio.sleep(0.01)
        await signalling.leave()

    async def take(signalling: s.Signalling) -> None:
        speaking = None
        async for event in signalling.events():
            if isinstance(event, Joined) and speaking is None:
                speaking = asyncio.create_task(speak(signalling))

    asyncio.run(against([serving(had[0], 3), serving(had[1], 2)], take))
    assert had == [["one", "two", "three"], ["two", "three"]]


def test_joining_is_retried_when_no_answer_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limited number of times: one answer may just have been lost."""
    monkeypatch.setattr(s, "WELCOME_TIMEOUT_S", 0.1)

    async def silent(socket: ServerConnection, join: dict[str, Any]) -> None:
        await socket.wait_closed()

    async def joined(signalling: s.Signalling) -> None:
        async for event in signalling.events():
            if isinstance(event, Joined):
                await signalling.leave()

    async def in_vain(signalling: s.Signalling) -> None:
        with pytest.raises(SignallingError, match="does not answer"):
            await joined(signalling)

    assert len(asyncio.run(against([silent, silent, say()], joined))) == 3
    assert len(asyncio.run(against([silent], in_vain))) == s.MAX_JOIN_ATTEMPTS


def test_an_expired_membership_is_joined_anew() -> None:
    async def take(signalling: s.Signalling) -> None:
        count = 0
        async for event in signalling.events():
            count += isinstance(event, Joined)
            if count == 2:
                await signalling.leave()

    joins = asyncio.run(against([say(code=4005), refuse(4007), say(id="ada2")], take))
    assert [join.get("resume") for join in joins] == [None, "secret", None]


@pytest.mark.parametrize(
    ("code", "words"), [(4001, "token is expired"), (4002, "token is expired"), (4003, "version"), (4006, "taken over")]
)
def test_fatal_close_codes_raise_with_a_message(code: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s, "FULL_PATIENCE_S", 0.0)

    async def take(signalling: s.Signalling) -> None:
        with pytest.raises(SignallingError, match=words):
            async for _ in signalling.events():
                pass

    assert len(asyncio.run(against([refuse(code, "The token is expired.")], take))) == 1


def test_a_full_room_is_tried_again() -> None:
    """One of its places may be our own, of a program that was killed."""
    heard: list[Any] = []

    async def take(signalling: s.Signalling) -> None:
        async for event in signalling.events():
            heard.append(event)
            if isinstance(event, Joined):
                await signalling.leave()

    assert len(asyncio.run(against([refuse(4002), refuse(4002), say()], take))) == 3
    assert [type(event) for event in heard] == [Disconnected, Disconnected, Joined]
    assert "waiting for a place" in heard[0].why


def test_a_killed_program_gets_its_place_back(tmp_path: Path) -> None:
    """The resume token is on disk until the room is left."""
    resumes: list[str | None] = []

    async def handle(socket: ServerConnection) -> None:
        resumes.append(json.loads(await socket.recv()).get("resume"))
        await socket.send(json.dumps(WELCOME))
        await socket.wait_closed()

    async def join(port: int, leaves: bool) -> None:
        file = ResumeFile("room", "Ada", tmp_path)
        signalling = s.Signalling(f"http://127.0.0.1:{port}/r/blue", "Ada", resume_file=file)
        events = signalling.events()
        await anext(events)
        if leaves:
            await signalling.leave()
        await events.aclose()
        file.close()

    async def scenario() -> None:
        async with asyncio.timeout(PATIENCE_S), serve(handle, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            for leaves in (False, True, False):
                await join(port, leaves)

    asyncio.run(scenario())
    assert resumes == [None, "secret", None]


def test_an_unreachable_server_raises() -> None:
    async def take() -> None:
        async with serve(lambda socket: socket.wait_closed(), "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
        with pytest.raises(SignallingError, match="cannot be reached"):
            async for _ in s.Signalling(f"http://127.0.0.1:{port}/r/blue", "Ada").events():
                pass

    asyncio.run(take())


def test_a_malformed_welcome_raises() -> None:
    async def take(signalling: s.Signalling) -> None:
        with pytest.raises(SignallingError, match="welcome cannot be understood"):
            async for _ in signalling.events():
                pass

    asyncio.run(against([say(peers="everybody")], take))


def test_malformed_messages_are_dropped_and_counted() -> None:
    bad = [
        "{",
        "[]",
        '{"type": "no"}',
        b"\xff\xfe",
        {"type": "signal", "from": "bob"},
        {"type": "signal", "from": "bob", "sdp": {"type": "offer", "deflated": "AAAA"}},
        {"type": "peer-left", "id": "!"},
    ]

    async def take(signalling: s.Signalling) -> None:
        events = []
        async for event in signalling.events():
            events.append(event)
            if isinstance(event, PeerLeft):
                await signalling.leave()
        assert [type(event) for event in events] == [Joined, PeerLeft]
        assert sum(signalling.dropped.values()) == len(bad)

    asyncio.run(against([say(*bad, {"type": "peer-left", "id": "bob", "reason": "lost"})], take))


@pytest.mark.parametrize(
    "answer", ["{", "[]", b"\xff", '{"type": "error", "text": 5}', '{"type": "welcome", "id": "!"}']
)
def test_a_malformed_answer_raises(answer: str | bytes) -> None:
    async def babble(socket: ServerConnection, join: dict[str, Any]) -> None:
        await socket.send(answer)
        await socket.wait_closed()

    async def take(signalling: s.Signalling) -> None:
        with pytest.raises(SignallingError, match="welcome cannot be understood"):
            async for _ in signalling.events():
                pass

    asyncio.run(against([babble], take))


def test_control_characters_of_server_messages_are_removed() -> None:
    async def take(signalling: s.Signalling) -> None:
        with pytest.raises(SignallingError) as raised:
            async for _ in signalling.events():
                pass
        assert str(raised.value) == "Expired.[2J"

    asyncio.run(against([refuse(4001, "Expired.\x1b[2J\n")], take))


class FakeSocket:
    """A socket that delivers the given messages and is then closed."""

    def __init__(self, *texts: str | bytes) -> None:
        self.texts = list(texts)

    async def send(self, text: str) -> None:
        pass

    async def recv(self) -> str | bytes:
        if not self.texts:
            raise ConnectionClosedOK(None, None)
        return self.texts.pop(0)


def damaged(text: str, rng: random.Random, values: list[str]) -> bytes:
    """Replace one JSON value, or a few bytes."""
    if rng.random() < 0.5:
        out = bytearray(text.encode())
        at = rng.randrange(len(out))
        out[at : at + rng.randrange(4)] = rng.randbytes(rng.randrange(4))
        return bytes(out)
    parts = text.split(": ")
    at = rng.randrange(1, len(parts))
    parts[at] = rng.choice(values) + parts[at][len(parts[at].split(",")[0].rstrip("]}")) :]
    return ": ".join(parts).encode()


def test_mutated_welcomes_are_accepted_or_lose_the_connection() -> None:
    """5,000 mutations: whatever is accepted has the right types and ranges."""
    rng = random.Random(11)
    values = ["null", "[]", "{}", "1e999", "-1", '""', "true", '"' + "x" * 600 + '"', "[" * 2000, '"\\ud800"', "NaN"]

    async def scenario() -> tuple[int, int]:
        joined = lost = 0
        for _ in range(5000):
            signalling = s.Signalling("http://host/r/blue", "Ada")
            messages = [json.dumps({"type": "error", "code": "c", "text": "t"})] * rng.randrange(2) + [
                json.dumps(WELCOME)
            ]
            at = rng.randrange(len(messages))
            try:
                ping_s = await signalling._join(
                    FakeSocket(*(damaged(t, rng, values) if n == at else t for n, t in enumerate(messages)))
                )  # type: ignore[arg-type]
            except (s._ConnectionLost, ConnectionClosedOK):
                lost += 1
                continue
            joined += 1
            found = signalling._joined
            assert 1.0 <= ping_s <= 1e7
            assert 0.0 <= found.ice_ttl_s <= 1e7
            assert protocol._ID.fullmatch(found.id)
            assert all(protocol._ID.fullmatch(id) and name.isprintable() for id, name in found.peers.items())
            assert isinstance(signalling._resume, str)
            assert len(signalling._resume) <= 128
            json.dumps(signalling._resume).encode()
        return joined, lost

    joined, lost = asyncio.run(scenario())
    assert min(joined, lost) > 500


def test_a_self_signed_server_needs_its_certificate(tmp_path: Path) -> None:
    """`--ca`: without it the message says so."""
    certificate, key = write_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def handle(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(json.dumps(WELCOME))
        await socket.wait_closed()

    async def scenario() -> None:
        async with asyncio.timeout(PATIENCE_S), serve(handle, "127.0.0.1", 0, ssl=context) as server:
            address = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/r/blue"
            with pytest.raises(SignallingError, match="--ca FILE"):
                await anext(s.Signalling(address, "Ada").events())
            signalling = s.Signalling(address, "Ada", authority=certificate)
            events = signalling.events()
            assert isinstance(await anext(events), Joined)
            await signalling.leave()

    asyncio.run(scenario())
