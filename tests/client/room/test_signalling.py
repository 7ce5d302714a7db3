"""The participant's end of the signalling protocol, against a scripted server: joining, resuming, close codes, foreign
bytes."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import pytest

pytest.importorskip("websockets")
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosedOK

from iwcodec.client.room import signalling as s
from iwcodec.client.transport.sdp_compression import packed

pytestmark = pytest.mark.realtime

PATIENCE_S = 60.0
SDP = "v=0\r\na=fingerprint:sha-256 " + bytes(32).hex(":") + "\r\n"
WELCOME = {
    "type": "welcome",
    "protocol": s.PROTOCOL,
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
    """What each connection asked for at joining; `scripts` serve one connection each, the last one all that follow."""
    joins: list[Any] = []

    async def handle(socket: ServerConnection) -> None:
        joins.append(json.loads(await socket.recv()))
        await scripts[min(len(joins), len(scripts)) - 1](socket, joins[-1])

    async with asyncio.timeout(PATIENCE_S), serve(handle, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        await take(s.Signalling(f"http://127.0.0.1:{port}/r/blue{fragment}", " Ada\n", pauses_s=(0.0,)))
    return joins


def say(*messages: Any, code: int | None = None, **changes: Any) -> Script:
    """Welcome, say these, and close with the code or wait for the other side to do it."""

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
    heard: list[Any] = []

    async def take(signalling: s.Signalling) -> None:
        async for event in signalling.events():
            heard.append(event)
            if isinstance(event, s.PeerJoined):
                await signalling.leave()

    joins = asyncio.run(
        against([say({"type": "peer-joined", "peer": {"id": "cyd", "name": "C\u0007yd"}})], take, "#token=tk")
    )
    assert joins == [{"type": "join", "protocol": s.PROTOCOL, "name": "Ada", "token": "tk"}]
    assert heard == [
        s.Joined("ada", False, {"bob": "Bob"}, WELCOME["ice_servers"], 3600.0),
        s.PeerJoined("cyd", "Cyd"),
    ]


def test_a_connection_that_does_not_come_up_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one is tried meanwhile; where none comes up joining ends with a sentence."""
    monkeypatch.setattr(s, "ATTEMPTS_S", (0.0, 0.1))
    monkeypatch.setattr(s, "OPEN_S", 0.5)

    async def behind(silent: int) -> list[Any]:
        """What is heard of a server whose first connections lead nowhere."""
        came = 0

        async def handle(socket: ServerConnection) -> None:
            await socket.recv()
            await say()(socket, {})

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal came
            came += 1
            if came > silent:
                there, back = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
                await asyncio.gather(pass_on(reader, back), pass_on(there, writer))

        heard = []
        async with asyncio.timeout(PATIENCE_S), serve(handle, "127.0.0.1", 0) as server:
            front = await asyncio.start_server(relay, "127.0.0.1", 0)
            signalling = s.Signalling(f"http://127.0.0.1:{front.sockets[0].getsockname()[1]}/r/blue", "Ada")
            try:
                async for event in signalling.events():
                    heard.append(event)
                    await signalling.leave()
            finally:
                front.close()
        return heard

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            writer.write(data)
        writer.close()

    assert [type(event) for event in asyncio.run(behind(1))] == [s.Joined]
    with pytest.raises(s.SignallingError, match="does not answer"):
        asyncio.run(behind(2))


def test_leaving_while_joining() -> None:
    """Before the server has said welcome, and between two attempts."""

    async def silent(socket: ServerConnection, join: dict[str, Any]) -> None:
        await socket.wait_closed()

    async def leave_soon(signalling: s.Signalling) -> list[Any]:
        left = asyncio.get_running_loop().create_task(leave(signalling))
        heard = [type(event) async for event in signalling.events()]
        await left
        return heard

    async def leave(signalling: s.Signalling) -> None:
        await asyncio.sleep(0.2)
        await signalling.leave()

    async def between(signalling: s.Signalling) -> None:
        signalling._pauses_s = (1000.0,)
        assert await leave_soon(signalling) == [s.Joined, s.Disconnected]

    async def before(signalling: s.Signalling) -> None:
        assert await leave_soon(signalling) == []

    asyncio.run(against([silent], before))
    asyncio.run(against([say(code=4007)], between))


def test_signals_both_ways() -> None:
    relayed: list[Any] = []

    async def echo(socket: ServerConnection, join: dict[str, Any]) -> None:
        await socket.send(json.dumps(WELCOME))
        async for text in socket:
            message = json.loads(text)
            if message["type"] == "signal":
                relayed.append(message)
                await socket.send(json.dumps({**message, "from": message["to"]}))

    async def take(signalling: s.Signalling) -> None:
        heard = []
        async for event in signalling.events():
            if isinstance(event, s.Joined):
                await signalling.send_description("bob", "offer", SDP, "call1")
                await signalling.send_description("bob", "answer", unusual, "call1")
                continue
            heard.append(event)
            if len(heard) == 2:
                await signalling.leave()
        assert heard == [
            s.Description("bob", "offer", SDP, "call1"),
            s.Description("bob", "answer", unusual, "call1"),
        ]

    unusual = "v=0\r\n" + "".join(chr(random.Random(n).randrange(33, 127)) for n in range(16_000))
    asyncio.run(against([echo], take))
    assert [sorted(message) for message in relayed] == [["call", "sdp", "to", "type"]] * 2
    assert relayed[0]["sdp"] == {"type": "offer", "deflated": packed(SDP)}
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
            if sum(isinstance(event, s.Joined) for event in events) == 2:
                await signalling.leave()

    joins = asyncio.run(against([cut, say()], take))
    assert [join.get("resume") for join in joins] == [None, "secret"]
    assert [type(event) for event in events] == [s.Joined, s.Disconnected, s.Joined]
    assert events[-1].resumed


def test_what_was_on_its_way_as_the_connection_broke_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the server has answered a ping after is not."""
    monkeypatch.setattr(s, "PING_S", 0.3)
    monkeypatch.setattr(s, "PONG_S", 0.1)
    had: list[list[str]] = [[], []]

    def serving(into: list[str], most: int) -> Script:
        """Cuts the connection at the last of so many signals."""

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
            if isinstance(event, s.Joined) and speaking is None:
                speaking = asyncio.create_task(speak(signalling))

    asyncio.run(against([serving(had[0], 3), serving(had[1], 2)], take))
    assert had == [["one", "two", "three"], ["two", "three"]]


def test_a_server_that_says_nothing_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have, and all of it was lost. But not for ever."""
    monkeypatch.setattr(s, "WELCOME_S", 0.1)

    async def silent(socket: ServerConnection, join: dict[str, Any]) -> None:
        await socket.wait_closed()

    async def joined(signalling: s.Signalling) -> None:
        async for event in signalling.events():
            if isinstance(event, s.Joined):
                await signalling.leave()

    async def in_vain(signalling: s.Signalling) -> None:
        with pytest.raises(s.SignallingError, match="does not answer"):
            await joined(signalling)

    assert len(asyncio.run(against([silent, silent, say()], joined))) == 3
    assert len(asyncio.run(against([silent], in_vain))) == s.WELCOMES


def test_a_lapsed_place_is_joined_anew() -> None:
    async def take(signalling: s.Signalling) -> None:
        count = 0
        async for event in signalling.events():
            count += isinstance(event, s.Joined)
            if count == 2:
                await signalling.leave()

    joins = asyncio.run(against([say(code=4005), refuse(4007), say(id="ada2")], take))
    assert [join.get("resume") for join in joins] == [None, "secret", None]


@pytest.mark.parametrize(
    ("code", "words"), [(4001, "token is expired"), (4002, "token is expired"), (4003, "version"), (4006, "taken over")]
)
def test_what_cannot_be_mended_ends_with_a_sentence(code: int, words: str) -> None:
    async def take(signalling: s.Signalling) -> None:
        with pytest.raises(s.SignallingError, match=words):
            async for _ in signalling.events():
                pass

    assert len(asyncio.run(against([refuse(code, "The token is expired.")], take))) == 1


def test_nobody_at_the_address() -> None:
    async def take() -> None:
        async with serve(lambda socket: socket.wait_closed(), "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
        with pytest.raises(s.SignallingError, match="cannot be reached"):
            async for _ in s.Signalling(f"http://127.0.0.1:{port}/r/blue", "Ada").events():
                pass

    asyncio.run(take())


def test_a_welcome_that_is_none() -> None:
    async def take(signalling: s.Signalling) -> None:
        with pytest.raises(s.SignallingError, match="welcome cannot be understood"):
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
            if isinstance(event, s.PeerLeft):
                await signalling.leave()
        assert [type(event) for event in events] == [s.Joined, s.PeerLeft]
        assert sum(signalling.dropped.values()) == len(bad)

    asyncio.run(against([say(*bad, {"type": "peer-left", "id": "bob", "reason": "lost"})], take))


@pytest.mark.parametrize(
    ("address", "socket", "token"),
    [
        ("http://localhost:8000/r/blue", "ws://localhost:8000/r/blue/ws", None),
        ("https://x.example/calls/r/a-b_c/#token=abc.def", "wss://x.example/calls/r/a-b_c/ws", "abc.def"),
        ("https://[2001:db8::1]:8443/r/b", "wss://[2001:db8::1]:8443/r/b/ws", None),
    ],
)
def test_addresses(address: str, socket: str, token: str | None) -> None:
    found = s.parse_address(address)
    assert (found.socket, found.token) == (socket, token)


@pytest.mark.parametrize(
    "address",
    [
        *("", "blue", "http://host", "ftp://host/r/blue", "http://host/r/..", "http:///r/b", "http://[/r/b"),
        *("http://a..b/r/b", f"http://{'a' * 70}/r/b", "http://host:99999/r/b", "http://host:x/r/b", "http://a b/r/b"),
        *("http://ho\x00st/r/b", "http://h\u2100st/r/b", "http://x]/r/b", "http://:80/r/b"),
    ],
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(s.SignallingError, match="not the address of a room"):
        s.parse_address(address)


@pytest.mark.parametrize(
    "answer", ["{", "[]", b"\xff", '{"type": "error", "text": 5}', '{"type": "welcome", "id": "!"}']
)
def test_an_answer_that_is_none_ends_with_a_sentence(answer: str | bytes) -> None:
    async def babble(socket: ServerConnection, join: dict[str, Any]) -> None:
        await socket.send(answer)
        await socket.wait_closed()

    async def take(signalling: s.Signalling) -> None:
        with pytest.raises(s.SignallingError, match="welcome cannot be understood"):
            async for _ in signalling.events():
                pass

    asyncio.run(against([babble], take))


def test_what_a_server_says_cannot_write_on_the_terminal() -> None:
    async def take(signalling: s.Signalling) -> None:
        with pytest.raises(s.SignallingError) as told:
            async for _ in signalling.events():
                pass
        assert str(told.value) == "Expired.[2J"

    asyncio.run(against([refuse(4001, "Expired.\x1b[2J\n")], take))


class Said:
    """In place of a socket: says these, one after another, and is then closed."""

    def __init__(self, *texts: str | bytes) -> None:
        self.texts = list(texts)

    async def send(self, text: str) -> None:
        pass

    async def recv(self) -> str | bytes:
        if not self.texts:
            raise ConnectionClosedOK(None, None)
        return self.texts.pop(0)


def damaged(text: str, rng: random.Random, values: list[str]) -> bytes:
    """One value replaced, or a few bytes."""
    if rng.random() < 0.5:
        out = bytearray(text.encode())
        at = rng.randrange(len(out))
        out[at : at + rng.randrange(4)] = rng.randbytes(rng.randrange(4))
        return bytes(out)
    parts = text.split(": ")
    at = rng.randrange(1, len(parts))
    parts[at] = rng.choice(values) + parts[at][len(parts[at].split(",")[0].rstrip("]}")) :]
    return ": ".join(parts).encode()


def test_no_bytes_get_through_the_welcome() -> None:
    """5,000 mutations: we are in the room, and all that was taken is of its kind, or the connection counts as lost."""
    rng = random.Random(11)
    values = ["null", "[]", "{}", "1e999", "-1", '""', "true", '"' + "x" * 600 + '"', "[" * 2000, '"\\ud800"', "NaN"]

    async def scenario() -> tuple[int, int]:
        joined = lost = 0
        for _ in range(5000):
            signalling = s.Signalling("http://host/r/blue", "Ada")
            said = [json.dumps({"type": "error", "code": "c", "text": "t"})] * rng.randrange(2) + [json.dumps(WELCOME)]
            at = rng.randrange(len(said))
            try:
                ping_s = await signalling._join(
                    Said(*(damaged(t, rng, values) if n == at else t for n, t in enumerate(said)))
                )  # type: ignore[arg-type]
            except (s._Lost, ConnectionClosedOK):
                lost += 1
                continue
            joined += 1
            found = signalling._joined
            assert 1.0 <= ping_s <= 1e7
            assert 0.0 <= found.ice_ttl_s <= 1e7
            assert s._ID.fullmatch(found.id)
            assert all(s._ID.fullmatch(id) and name.isprintable() for id, name in found.peers.items())
            assert isinstance(signalling._resume, str)
            assert len(signalling._resume) <= 128
            json.dumps(signalling._resume).encode()
        return joined, lost

    joined, lost = asyncio.run(scenario())
    assert min(joined, lost) > 500


def test_no_address_gets_through_its_parser() -> None:
    """10,000 of them: an address that can be connected to, or a sentence."""
    rng = random.Random(12)
    seeds = [
        "https://x.example:8443/calls/r/a-b_c/#token=abc.def",
        "http://[2001:db8::1]/r/b",
        "http://u:p@h\u00e9/r/b",
    ]
    odd = "[]:/@#?%. \x00\n\u2100\ud800\u3002é" + "a" * 5
    taken = 0
    for number in range(10_000):
        text = list(seeds[number % 3])
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(text))
            text[at : at + rng.randrange(3)] = rng.choices(odd, k=rng.randrange(3)) * rng.choice([1, 1, 40])
        try:
            found = s.parse_address("".join(text))
        except s.SignallingError:
            continue
        taken += 1
        parts = urlsplit(found.socket)
        assert parts.scheme in ("ws", "wss")
        assert (parts.hostname or "").encode("idna")
        assert parts.port is None or 0 <= parts.port < 65536
        assert found.room.isascii()
    assert 500 < taken < 9500


def test_no_bytes_get_through_the_parser() -> None:
    """10,000 mutations of real messages: an event, nothing, or Dropped."""
    rng = random.Random(5)
    seeds = [
        json.dumps({"type": "signal", "from": "bob", "sdp": {"type": "offer", "sdp": "v=0\r\n"}, "call": "c"}),
        json.dumps({"type": "signal", "from": "bob", "sdp": {"type": "offer", "deflated": packed(SDP)}}),
        json.dumps(
            {"type": "signal", "from": "bob", "candidate": {"candidate": "candidate:1 1 udp", "sdpMLineIndex": 0}}
        ),
        json.dumps({"type": "ice", "ice_servers": WELCOME["ice_servers"], "ice_ttl_s": 60}),
        json.dumps({"type": "peer-joined", "peer": {"id": "bob", "name": "Bob"}}),
        json.dumps({"type": "error", "code": "rate", "text": "slow"}),
    ]
    values = ["null", "[]", "{}", "1e999", "-1", '""', "true", '"' + "x" * 40_000 + '"', "[" * 2000, '"\\ud800"']
    dropped = 0
    for number in range(10_000):
        text = bytearray(rng.choice(seeds).encode())
        if number % 2:
            at = rng.randrange(len(text))
            text[at : at + rng.randrange(4)] = bytes(rng.randrange(256) for _ in range(rng.randrange(4)))
        else:
            parts = text.decode().split(": ")
            at = rng.randrange(1, len(parts))
            tail = parts[at][len(parts[at].split(",")[0].rstrip("]}")) :]
            parts[at] = rng.choice(values) + tail
            text = bytearray(": ".join(parts).encode())
        try:
            s.parse(bytes(text))
        except s.Dropped:
            dropped += 1
    assert 1000 < dropped < 10_000
