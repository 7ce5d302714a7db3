"""Whole calls through a real server: who comes, who goes, what a lost server or a lost participant means."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

for needed in ("aiortc", "fastapi", "uvicorn", "websockets"):
    pytest.importorskip(needed)
from broken_wire import silence
from call_double import DoubleFeed, DoubleLink, make_connection
from call_rooms import Server, rooms
from iwcodec.client.audio.jitter_buffer import BLOCK, Speaker
from iwcodec.client.audio.track import Microphone
from iwcodec.client.room import call as c
from iwcodec.client.room import peer
from iwcodec.client.room.signalling import Description, Joined, Signalling, SignallingError
from iwcodec.client.transport import sctp
from iwcodec.client.video.link import Link, LinkState, Shown
from iwcodec.client.video.video_sender import VideoSender
from iwcodec.server.turn import IceConfig
from sounds import voice
from stub_runtime import NearestSourceFit, StubRuntime, picture

pytestmark = pytest.mark.realtime

PICTURE = np.full((64, 64, 3), 128, np.uint8)


class Client:
    """One participant, filming grey."""

    def __init__(self, server: Server, name: str, room: str = "blue", sound: bool = False) -> None:
        self.feed = DoubleFeed()
        self.microphone = Microphone() if sound else None
        self.speaker = Speaker() if sound else None
        self.call = c.Call(
            Signalling(f"http://127.0.0.1:{server.port}/r/{room}", name, pauses_s=(0.05,)),
            self.feed,  # type: ignore[arg-type]
            lambda connection: DoubleLink(connection, self.feed),  # type: ignore[arg-type, return-value]
            make_connection,
            self.microphone,
            self.speaker,
        )
        self.task = asyncio.create_task(self.call.run())

    async def push(self) -> None:
        await self.feed.push(PICTURE, 0.0)

    def names(self) -> list[str]:
        return sorted(participant.name for participant in self.call.participants.values())

    def sees(self, *names: str) -> bool:
        """Exactly these are there, and live."""
        participants = self.call.participants.values()
        return self.names() == sorted(names) and all(p.connected_and_live for p in map(Seen, participants))

    async def leave(self) -> None:
        await self.call.leave()
        await self.task


class RealClient(Client):
    """With the real feed and real links, whose network is a stub; films a brightness of its own, that swings."""

    def __init__(self, server: Server, name: str, level: float) -> None:
        self.level = level
        self.executor = ThreadPoolExecutor(1)
        self.feed = VideoSender(StubRuntime(), self.executor, lambda picture: True, NearestSourceFit())  # type: ignore[assignment]
        self.call = c.Call(
            Signalling(f"http://127.0.0.1:{server.port}/r/blue", name, pauses_s=(0.05,)),
            self.feed,  # type: ignore[arg-type]
            lambda connection: Link(connection, self.feed, StubRuntime(), self.executor),  # type: ignore[arg-type]
            sctp.make_connection,
        )
        self.microphone = None
        self.task = asyncio.create_task(self.call.run())

    async def push(self) -> None:
        now = time.monotonic()
        await self.feed.push(picture(self.level + 3 * np.sin(now)), now)

    def shown(self) -> dict[str, Shown]:
        """The newest picture of everyone that is no still."""
        seen = {p.name: p.shown for p in self.call.participants.values()}
        return {name: shown for name, shown in seen.items() if shown is not None and shown.number >= 0}


class Seen:
    def __init__(self, participant: c.Participant) -> None:
        self.connected_and_live = participant.peer.connected and participant.state is LinkState.LIVE


async def until(clients: list[Client], condition: Callable[[], bool]) -> None:
    """Pictures, and a little sound, are sent meanwhile."""
    sound, at = voice(2.0), 0
    while not condition():
        for client in clients:
            if client.task.done() and not client.task.cancelled() and (error := client.task.exception()):
                raise error
            await client.push()
            if client.microphone is not None:
                client.microphone.push(sound[at % 48_000 : at % 48_000 + BLOCK], at / 48_000)
        at += BLOCK
        await asyncio.sleep(0.02)


def test_people_come_and_go() -> None:
    async def scenario() -> None:
        async with rooms() as server:
            ada = Client(server, "Ada")
            await until([ada], lambda: ada.call.state is c.CallState.WAITING)
            bob = Client(server, "Bob")
            await until([ada, bob], lambda: ada.sees("Bob") and bob.sees("Ada"))
            cyd = Client(server, "Cyd")
            everyone = [ada, bob, cyd]
            await until(everyone, lambda: ada.sees("Bob", "Cyd") and bob.sees("Ada", "Cyd") and cyd.sees("Ada", "Bob"))
            assert ada.call.state is c.CallState.TALKING
            await bob.leave()
            await until([ada, cyd], lambda: ada.sees("Cyd") and cyd.sees("Ada"))
            assert ada.call.notices[-1] == "Bob left"
            assert len(ada.feed.links) == 1
            await cyd.leave()
            await until([ada], lambda: ada.call.state is c.CallState.WAITING)
            await ada.leave()
            assert ada.call.state is c.CallState.LEFT

    asyncio.run(scenario())


def test_who_came_while_the_server_was_out_of_reach_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newcomer's offer was lost with the connection to the server: it is not waited for."""
    monkeypatch.setattr(peer, "CONNECT_S", 1000.0)
    monkeypatch.setattr(peer, "HURRY_S", 0.5)
    monkeypatch.setattr(c, "OFFER_S", 0.1)

    async def scenario() -> None:
        async with rooms() as server:
            ada = Client(server, "Ada")
            await until([ada], lambda: ada.call.state is c.CallState.WAITING)
            handle, lost = ada.call._handle, []
            ada.call._handle = lost.append  # type: ignore[method-assign, assignment]
            bob = Client(server, "Bob")
            await until([ada, bob], lambda: any(isinstance(event, Description) for event in lost))
            await asyncio.sleep(0.6)
            ada.call._handle = handle  # type: ignore[method-assign]
            ada.call.signalling.renew()
            await until([ada, bob], lambda: ada.sees("Bob") and bob.sees("Ada"))
            await asyncio.gather(ada.leave(), bob.leave())

    asyncio.run(scenario())


def test_ice_servers_that_cannot_be_used_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with rooms() as server:
            server.settings = replace(server.settings, ice=IceConfig(("stun:[2001:db8::1]:3478", "stuns:s.example")))
            await server.stop()
            await server.start()
            ada, bob = Client(server, "Ada"), Client(server, "Bob")
            await until([ada, bob], lambda: ada.sees("Bob") and bob.sees("Ada"))
            assert (ada.call.unusable, bob.call.unusable) == (2, 2)
            await asyncio.gather(ada.leave(), bob.leave())

    asyncio.run(scenario())
    assert sum("ICE servers" in record.message for record in caplog.records) == 2


def test_sound_is_heard_and_muted() -> None:
    async def scenario() -> None:
        async with rooms() as server:
            ada, bob = Client(server, "Ada", sound=True), Client(server, "Bob", sound=True)
            await until([ada, bob], lambda: ada.sees("Bob") and bob.sees("Ada"))
            playout = next(iter(ada.call.participants.values())).playout
            assert playout is not None
            await until([ada, bob], lambda: len(playout._packets) >= 5)
            bob.call.mute(True)
            await until([ada, bob], lambda: bob.microphone is not None and bob.microphone.bytes > 200)
            bob.call.hide(True)
            assert (bob.call.muted, bob.feed.paused) == (True, True)
            await asyncio.gather(ada.leave(), bob.leave())
            assert ada.speaker is not None
            assert not ada.speaker._playouts

    asyncio.run(scenario())


def test_a_call_outlives_its_server() -> None:
    """The server goes and comes back: pictures go on, and a newcomer finds everyone."""

    async def scenario() -> None:
        async with rooms() as server:
            ada, bob = Client(server, "Ada"), Client(server, "Bob")
            await until([ada, bob], lambda: ada.sees("Bob") and bob.sees("Ada"))
            await server.stop()
            await until([ada, bob], lambda: ada.call.state is c.CallState.OFFLINE is bob.call.state)
            links = [p.peer.link for p in ada.call.participants.values()]
            before = links[0].received  # type: ignore[union-attr]
            await until([ada, bob], lambda: links[0].received > before + 5)  # type: ignore[union-attr]
            await server.start()
            await until([ada, bob], lambda: ada.call.state is c.CallState.TALKING is bob.call.state)
            cyd = Client(server, "Cyd")
            await until([ada, bob, cyd], lambda: ada.sees("Bob", "Cyd") and cyd.sees("Ada", "Bob"))
            await asyncio.gather(ada.leave(), bob.leave(), cyd.leave())

    asyncio.run(scenario())


def test_a_changed_network_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address goes away and with it every path: at once all is connected anew, with the same links."""
    monkeypatch.setattr(c, "TIDY_S", 0.3)
    monkeypatch.setattr(c, "HURRIES", 20)
    monkeypatch.setattr(peer, "HURRY_S", 2.0)
    monkeypatch.setattr(peer, "SILENCE_S", 3600.0)  # so that silence alone changes nothing
    addresses = {"192.0.2.1", "192.0.2.2"}
    monkeypatch.setattr(c, "local_addresses", lambda: set(addresses))

    async def scenario() -> None:
        async with rooms() as server:
            ada, bob = Client(server, "Ada"), Client(server, "Bob")
            await until([ada, bob], lambda: ada.sees("Bob") and bob.sees("Ada"))
            there = [p.peer for client in (ada, bob) for p in client.call.participants.values()]
            links = [p.link for p in there]
            for p in there:
                silence(p)
            addresses.remove("192.0.2.1")
            await until([ada, bob], lambda: all(p.connections > 1 and p.connected for p in there))
            seen = [link.received for link in links]  # type: ignore[union-attr]
            await until([ada, bob], lambda: all(p.link.received > n for p, n in zip(there, seen, strict=True)))  # type: ignore[union-attr]
            assert [p.link for p in there] == links
            await asyncio.gather(ada.leave(), bob.leave())

    asyncio.run(scenario())


def test_whoever_vanishes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """No goodbye to anybody: shown as reconnecting, then gone."""
    monkeypatch.setattr(c, "ABANDON_S", 1.0)
    monkeypatch.setattr(c, "TIDY_S", 0.1)

    async def scenario() -> None:
        async with rooms(grace_s=1.0) as server:
            ada, bob = Client(server, "Ada"), Client(server, "Bob")
            await until([ada, bob], lambda: ada.sees("Bob") and bob.sees("Ada"))
            bob.task.cancel()
            await asyncio.gather(bob.task, return_exceptions=True)
            await until([ada], lambda: ada.names() == [])
            await ada.leave()

    asyncio.run(scenario())


def test_six_see_each_other_and_a_seventh_is_told_why_not() -> None:
    """Every one of thirty links shows what its own sender films, and goes on."""

    async def scenario() -> None:
        async with rooms() as server:
            levels = {name: 60.0 + 25 * n for n, name in enumerate(("Ada", "Bob", "Cid", "Dan", "Eve", "Fay"))}
            clients = [RealClient(server, name, level) for name, level in levels.items()]
            await until(clients, lambda: all(len(client.shown()) == 5 for client in clients))
            before = [{name: shown.number for name, shown in client.shown().items()} for client in clients]
            await until(
                clients,
                lambda: all(
                    client.shown()[name].number > number + 10
                    for client, numbers in zip(clients, before, strict=True)
                    for name, number in numbers.items()
                ),
            )
            for client in clients:
                others = {name: level for name, level in levels.items() if level != client.level}
                seen = {name: float(shown.picture.mean()) for name, shown in client.shown().items()}
                assert seen == pytest.approx(others, abs=6)
            seventh = Client(server, "Gus")
            with pytest.raises(SignallingError, match="The room is full"):
                await seventh.task
            assert all(len(client.names()) == 5 for client in clients)
            await asyncio.gather(*(client.leave() for client in clients))

    asyncio.run(scenario())


def test_a_full_room_says_so() -> None:
    async def scenario() -> None:
        async with rooms(room_size=2) as server:
            ada, bob = Client(server, "Ada"), Client(server, "Bob")
            await until([ada, bob], lambda: ada.sees("Bob") and bob.sees("Ada"))
            cyd = Client(server, "Cyd")
            with pytest.raises(SignallingError, match="The room is full"):
                await cyd.task
            await asyncio.gather(ada.leave(), bob.leave())

    asyncio.run(scenario())


def test_a_closed_room_says_what_is_missing() -> None:
    async def scenario() -> None:
        async with rooms() as server:
            with pytest.raises(SignallingError, match="invitation"):
                await Client(server, "Ada", room="private-x").task

    asyncio.run(scenario())


def test_who_is_still_there_after_a_place_has_lapsed_is_called_anew() -> None:
    """To the others we are somebody else then, and they keep their names to us."""
    came: list[list[str]] = []

    class Told:
        """In place of a server: a welcome, and another one under a new name."""

        async def events(self) -> AsyncIterator[Any]:
            for id in ("ada", "eve"):
                yield Joined(id, False, {"bob": "Bob"}, [], 3600.0)
                await asyncio.sleep(0.1)
                came.append(list(call.participants))

        async def send_description(self, *_: Any) -> None: ...
        async def leave(self) -> None: ...

    async def work() -> None:
        nonlocal call
        feed = DoubleFeed()
        call = c.Call(Told(), feed, lambda made: DoubleLink(made, feed), make_connection)  # type: ignore[arg-type]
        await call.run()

    call: Any = None
    asyncio.run(work())
    assert came == [["bob"], ["bob"]]
    assert call.notices[:3] == ["Bob joined", "Bob left", "Bob joined"]
