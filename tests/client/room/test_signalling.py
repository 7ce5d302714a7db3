"""The signalling client against a scripted server: joining, resuming, close codes, malformed messages."""

import asyncio
import json
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
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


@asynccontextmanager
async def served(*scripts: Script, fragment: str = "") -> AsyncIterator[tuple[s.Signalling, list[Any]]]:
    """A client of a server, and the join requests so far. Each script serves one connection, the last one all further
    ones."""
    joins: list[Any] = []

    async def handle(socket: ServerConnection) -> None:
        joins.append(json.loads(await socket.recv()))
        await scripts[min(len(joins), len(scripts)) - 1](socket, joins[-1])

    async with serve(handle, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield s.Signalling(f"http://127.0.0.1:{port}/r/blue{fragment}", " Ada\n", reconnect_delays_s=(0.0,)), joins


async def heard(signalling: s.Signalling, last: type, count: int = 1) -> list[Any]:
    """The events up to the `count`-th of a type, after which the client leaves."""
    events: list[Any] = []
    async for event in signalling.events():
        events.append(event)
        if sum(isinstance(event, last) for event in events) == count:
            await signalling.leave()
    return events


async def silent(socket: ServerConnection, join: dict[str, Any]) -> None:
    await socket.wait_closed()


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


async def test_join_and_leave() -> None:
    newcomer = {"type": "peer-joined", "peer": {"id": "cyd", "name": "C\u0007yd"}}
    async with served(say(newcomer), fragment="#token=tk") as (signalling, joins):
        assert await heard(signalling, PeerJoined) == [
            Joined("ada", False, {"bob": "Bob"}, WELCOME["ice_servers"], 3600.0),
            PeerJoined("cyd", "Cyd"),
        ]
    assert joins == [{"type": "join", "protocol": PROTOCOL_VERSION, "name": "Ada", "token": "tk"}]


async def test_parallel_attempts_replace_a_connection_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
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

        async with serve(handle, "127.0.0.1", 0) as server:
            front = await asyncio.start_server(relay, "127.0.0.1", 0)
            signalling = s.Signalling(f"http://127.0.0.1:{front.sockets[0].getsockname()[1]}/r/blue", "Ada")
            try:
                return await heard(signalling, Joined)
            finally:
                front.close()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            writer.write(data)
        writer.close()

    assert [type(event) for event in await join_through(1)] == [Joined]
    with pytest.raises(SignallingError, match="does not answer"):
        await join_through(2)


@pytest.mark.parametrize(("script", "events"), [(silent, []), (say(code=4007), [Joined, Disconnected])])
async def test_leave_ends_joining(script: Script, events: list[type]) -> None:
    """Before the welcome, and between two attempts."""

    async def leave() -> None:
        await asyncio.sleep(0.2)
        await signalling.leave()

    async with served(script) as (signalling, _):
        signalling._reconnect_delays_s = (1000.0,)
        leaving = asyncio.create_task(leave())
        assert [type(event) async for event in signalling.events()] == events
        await leaving


async def test_descriptions_are_sent_and_received() -> None:
    relayed: list[Any] = []
    unusual = "v=0\r\n" + "".join(chr(random.Random(n).randrange(33, 127)) for n in range(16_000))
    sent = [("bob", "offer", SDP, "call1"), ("bob", "answer", unusual, "call1")]

    async def echo(socket: ServerConnection, join: dict[str, Any]) -> None:
        await socket.send(json.dumps(WELCOME))
        async for text in socket:
            message = json.loads(text)
            if message["type"] == "signal":
                relayed.append(message)
                await socket.send(json.dumps({**message, "from": message["to"]}))

    events = []
    async with served(echo) as (signalling, _):
        async for event in signalling.events():
            events.append(event)
            if isinstance(event, Joined):
                for description in sent:
                    await signalling.send_description(*description)
            if len(events) == 3:
                await signalling.leave()
    assert events[1:] == [RemoteDescription(*description) for description in sent]
    assert [sorted(message) for message in relayed] == [["call", "sdp", "to", "type"]] * 2
    assert relayed[0]["sdp"] == {"type": "offer", "deflated": compress_sdp(SDP)}
    assert relayed[1]["sdp"] == {"type": "answer", "sdp": unusual}


@pytest.mark.parametrize("code", [1006, 1011, 1012, 4005])
async def test_a_lost_connection_is_resumed(code: int) -> None:
    async def cut(socket: ServerConnection, join: dict[str, Any]) -> None:
        await socket.send(json.dumps(WELCOME))
        if code == 1006:
            socket.transport.abort()
        else:
            await socket.close(code)

    async with served(cut, say()) as (signalling, joins):
        events = await heard(signalling, Joined, 2)
    assert [join.get("resume") for join in joins] == [None, "secret"]
    assert [type(event) for event in events] == [Joined, Disconnected, Joined]
    assert events[-1].resumed


async def test_unconfirmed_signals_are_resent_after_a_reconnection(monkeypatch: pytest.MonkeyPatch) -> None:
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

    async def speak() -> None:
        await signalling.send_description("bob", "offer", "v=0\r\n", "one")
        while signalling._unconfirmed:
            await asyncio.sleep(0.01)
        await signalling.send_description("bob", "offer", "v=0\r\n", "two")
        await signalling.send_description("bob", "offer", "v=0\r\n", "three")
        while len(had[1]) < 2:
            await asyncio.sleep(0.01)
        await signalling.leave()

    speaking = None
    async with served(serving(had[0], 3), serving(had[1], 2)) as (signalling, _):
        async for event in signalling.events():
            if isinstance(event, Joined) and speaking is None:
                speaking = asyncio.create_task(speak())
    assert had == [["one", "two", "three"], ["two", "three"]]


async def test_joining_is_retried_when_no_answer_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limited number of times: one answer may just have been lost."""
    monkeypatch.setattr(s, "WELCOME_TIMEOUT_S", 0.1)
    async with served(silent, silent, say()) as (signalling, joins):
        await heard(signalling, Joined)
    assert len(joins) == 3
    async with served(silent) as (signalling, joins):
        with pytest.raises(SignallingError, match="does not answer"):
            await heard(signalling, Joined)
    assert len(joins) == s.MAX_JOIN_ATTEMPTS


async def test_an_expired_membership_is_joined_anew() -> None:
    async with served(say(code=4005), refuse(4007), say(id="ada2")) as (signalling, joins):
        await heard(signalling, Joined, 2)
    assert [join.get("resume") for join in joins] == [None, "secret", None]


@pytest.mark.parametrize(
    ("code", "words"), [(4001, "token is expired"), (4002, "token is expired"), (4003, "version"), (4006, "taken over")]
)
async def test_fatal_close_codes_raise_with_a_message(code: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s, "FULL_PATIENCE_S", 0.0)
    async with served(refuse(code, "The token is expired.")) as (signalling, joins):
        with pytest.raises(SignallingError, match=words):
            await heard(signalling, Joined)
    assert len(joins) == 1


async def test_a_full_room_is_tried_again() -> None:
    """One of its places may be our own, of a program that was killed."""
    async with served(refuse(4002), refuse(4002), say()) as (signalling, joins):
        events = await heard(signalling, Joined)
    assert len(joins) == 3
    assert [type(event) for event in events] == [Disconnected, Disconnected, Joined]
    assert "waiting for a place" in events[0].why


async def test_a_killed_program_gets_its_place_back(tmp_path: Path) -> None:
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

    async with serve(handle, "127.0.0.1", 0) as server:
        for leaves in (False, True, False):
            await join(server.sockets[0].getsockname()[1], leaves)
    assert resumes == [None, "secret", None]


async def test_an_unreachable_server_raises() -> None:
    async with serve(lambda socket: socket.wait_closed(), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
    with pytest.raises(SignallingError, match="cannot be reached"):
        async for _ in s.Signalling(f"http://127.0.0.1:{port}/r/blue", "Ada").events():
            pass


async def test_malformed_messages_are_dropped_and_counted() -> None:
    bad = [
        "{",
        "[]",
        '{"type": "no"}',
        b"\xff\xfe",
        {"type": "signal", "from": "bob"},
        {"type": "signal", "from": "bob", "sdp": {"type": "offer", "deflated": "AAAA"}},
        {"type": "peer-left", "id": "!"},
    ]

    async with served(say(*bad, {"type": "peer-left", "id": "bob", "reason": "lost"})) as (signalling, _):
        assert [type(event) for event in await heard(signalling, PeerLeft)] == [Joined, PeerLeft]
        assert sum(signalling.dropped.values()) == len(bad)


@pytest.mark.parametrize(
    "answer",
    [
        "{",
        "[]",
        b"\xff",
        '{"type": "error", "text": 5}',
        '{"type": "welcome", "id": "!"}',
        json.dumps(WELCOME | {"peers": "everybody"}),
    ],
)
async def test_a_malformed_answer_raises(answer: str | bytes) -> None:
    async def babble(socket: ServerConnection, join: dict[str, Any]) -> None:
        await socket.send(answer)
        await socket.wait_closed()

    async with served(babble) as (signalling, _):
        with pytest.raises(SignallingError, match="welcome cannot be understood"):
            await heard(signalling, Joined)


async def test_control_characters_of_server_messages_are_removed() -> None:
    async with served(refuse(4001, "Expired.\x1b[2J\n")) as (signalling, _):
        with pytest.raises(SignallingError) as raised:
            await heard(signalling, Joined)
    assert str(raised.value) == "Expired.[2J"


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


async def test_mutated_welcomes_are_accepted_or_lose_the_connection() -> None:
    """5,000 mutations: whatever is accepted has the right types and ranges."""
    rng = random.Random(11)
    values = ["null", "[]", "{}", "1e999", "-1", '""', "true", '"' + "x" * 600 + '"', "[" * 2000, '"\\ud800"', "NaN"]
    joined = lost = 0
    for _ in range(5000):
        signalling = s.Signalling("http://host/r/blue", "Ada")
        messages: list[Any] = [json.dumps({"type": "error", "code": "c", "text": "t"})] * rng.randrange(2)
        messages.append(json.dumps(WELCOME))
        at = rng.randrange(len(messages))
        messages[at] = damaged(messages[at], rng, values)
        try:
            ping_s = await signalling._join(FakeSocket(*messages))
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
    assert min(joined, lost) > 500


async def test_a_self_signed_server_needs_its_certificate(tmp_path: Path) -> None:
    """`--ca`: without it the message says so."""
    certificate, key = write_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def handle(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(json.dumps(WELCOME))
        await socket.wait_closed()

    async with serve(handle, "127.0.0.1", 0, ssl=context) as server:
        address = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/r/blue"
        with pytest.raises(SignallingError, match="--ca FILE"):
            await anext(s.Signalling(address, "Ada").events())
        signalling = s.Signalling(address, "Ada", authority=certificate)
        events = signalling.events()
        assert isinstance(await anext(events), Joined)
        await signalling.leave()
