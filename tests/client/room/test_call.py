"""Whole calls through a real server: joining, leaving, outages of the server, the network and participants."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

for needed in ("fastapi", "uvicorn"):
    pytest.importorskip(needed)
from iwcodec.client.audio.jitter_buffer import BLOCK
from iwcodec.client.audio.sender import AudioSender
from iwcodec.client.audio.speaker import Speaker
from iwcodec.client.link.link import Link
from iwcodec.client.link.link_state import LinkState, LinkStats, RenderedFrame
from iwcodec.client.room import call as c
from iwcodec.client.room import peer, signalling
from iwcodec.client.room.protocol import Joined, RemoteDescription, SignallingError
from iwcodec.client.room.signalling import Signalling
from iwcodec.client.transport.connection import make_connection as make_real_connection
from iwcodec.client.video.video_sender import VideoSender
from iwcodec.server.tokens import Token, sign
from iwcodec.server.turn import IceConfig
from support.calls.broken_wire import silence
from support.calls.double import DoubleLink, DoubleVideoSender, make_connection
from support.calls.rooms import Server, rooms
from support.codec.stub_runtime import NearestSourceFit, StubRuntime, picture
from support.media.sounds import voice

pytestmark = pytest.mark.realtime

PICTURE = np.full((64, 64, 3), 128, np.uint8)


class Client:
    """One participant that sends grey pictures."""

    def __init__(self, server: Server, name: str, room: str = "blue", sound: bool = False) -> None:
        self.video_sender = DoubleVideoSender()
        self.audio_sender = AudioSender() if sound else None
        self.speaker = Speaker() if sound else None
        self.call = c.Call(
            Signalling(f"http://127.0.0.1:{server.port}/r/{room}", name, reconnect_delays_s=(0.05,)),
            self.video_sender,
            lambda connection: DoubleLink(connection, self.video_sender),
            make_connection,
            self.audio_sender,
            self.speaker,
        )
        self.task = asyncio.create_task(self.call.run())

    async def push(self) -> None:
        await self.video_sender.push(PICTURE, 0.0)

    def names(self) -> list[str]:
        return sorted(participant.name for participant in self.call.participants.values())

    def sees(self, *names: str) -> bool:
        """Whether exactly these participants are in the call, connected and live."""
        participants = self.call.participants.values()
        return self.names() == sorted(names) and all(
            p.peer.connected and p.state is LinkState.LIVE for p in participants
        )

    async def leave(self) -> None:
        await self.call.leave()
        await self.task


class RealClient(Client):
    """With the real video sender and links, and a stub network; sends pictures around a brightness of its own."""

    def __init__(self, server: Server, name: str, level: float) -> None:
        self.level = level
        self.executor = ThreadPoolExecutor(1)
        self.video_sender = VideoSender(StubRuntime(), self.executor, lambda picture: True, NearestSourceFit())
        self.call = c.Call(
            Signalling(f"http://127.0.0.1:{server.port}/r/blue", name, reconnect_delays_s=(0.05,)),
            self.video_sender,
            lambda connection: Link(connection, self.video_sender, StubRuntime(), self.executor),
            make_real_connection,
        )
        self.audio_sender = None
        self.task = asyncio.create_task(self.call.run())

    async def push(self) -> None:
        now = time.monotonic()
        await self.video_sender.push(picture(self.level + 3 * np.sin(now)), now)

    def shown(self) -> dict[str, RenderedFrame]:
        """The latest frame of every participant, without scene snapshots."""
        seen = {p.name: p.frame for p in self.call.participants.values()}
        return {name: shown for name, shown in seen.items() if shown is not None and shown.number >= 0}


async def until(clients: list[Client], condition: Callable[[], bool]) -> None:
    """Send pictures and audio until the condition holds."""
    sound, at = voice(2.0), 0
    while not condition():
        for client in clients:
            if client.task.done() and not client.task.cancelled() and (error := client.task.exception()):
                raise error
            await client.push()
            if client.audio_sender is not None:
                client.audio_sender.push(sound[at % 48_000 : at % 48_000 + BLOCK], at / 48_000)
        at += BLOCK
        await asyncio.sleep(0.02)


async def test_participants_join_and_leave() -> None:
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
        assert len(ada.video_sender.links) == 1
        await cyd.leave()
        await until([ada], lambda: ada.call.state is c.CallState.WAITING)
        await ada.leave()
        assert ada.call.state is c.CallState.LEFT


async def test_a_participant_who_joined_during_an_outage_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newcomer's offer was lost with the connection to the server, so we make one."""
    monkeypatch.setattr(peer, "CONNECT_TIMEOUT_S", 1000.0)
    monkeypatch.setattr(peer, "MIN_ATTEMPT_S", 0.5)
    monkeypatch.setattr(c, "OFFER_WAIT_S", 0.1)
    async with rooms() as server:
        ada = Client(server, "Ada")
        await until([ada], lambda: ada.call.state is c.CallState.WAITING)
        handle, lost = ada.call._handle, []
        ada.call._handle = lost.append
        bob = Client(server, "Bob")
        await until([ada, bob], lambda: any(isinstance(event, RemoteDescription) for event in lost))
        await asyncio.sleep(0.6)
        ada.call._handle = handle
        ada.call.signalling.reconnect()
        await until([ada, bob], lambda: ada.sees("Bob") and bob.sees("Ada"))
        await asyncio.gather(ada.leave(), bob.leave())


async def test_unusable_ice_servers_are_ignored(caplog: pytest.LogCaptureFixture) -> None:
    async with rooms() as server:
        server.settings = replace(server.settings, ice=IceConfig(("stun:[2001:db8::1]:3478", "stuns:s.example")))
        await server.stop()
        await server.start()
        ada, bob = Client(server, "Ada"), Client(server, "Bob")
        await until([ada, bob], lambda: ada.sees("Bob") and bob.sees("Ada"))
        assert (ada.call.unusable_ice_servers, bob.call.unusable_ice_servers) == (2, 2)
        await asyncio.gather(ada.leave(), bob.leave())
    assert sum("ICE servers" in record.message for record in caplog.records) == 2


async def test_audio_is_received_and_muted() -> None:
    async with rooms() as server:
        ada, bob = Client(server, "Ada", sound=True), Client(server, "Bob", sound=True)
        await until([ada, bob], lambda: ada.sees("Bob") and bob.sees("Ada"))
        audio_buffer = next(iter(ada.call.participants.values())).audio_buffer
        await until([ada, bob], lambda: len(audio_buffer._packets) >= 5)
        bob.call.mute(True)
        await until([ada, bob], lambda: bob.audio_sender is not None and bob.audio_sender.bytes > 200)
        bob.call.set_camera_off(True)
        assert (bob.call.muted, bob.video_sender.paused) == (True, True)
        bob.call.set_camera_off(False)
        assert not bob.video_sender.paused
        bob.call.go_without_camera()
        bob.call.set_camera_off(False)
        assert bob.video_sender.paused
        assert bob.call.notices[-1] == "there is no camera in this call"
        await asyncio.gather(ada.leave(), bob.leave())
        assert not ada.speaker._sources


async def test_a_call_survives_a_restart_of_the_server() -> None:
    """Pictures continue during the outage, and a newcomer afterwards connects to everyone."""
    async with rooms() as server:
        ada, bob = Client(server, "Ada"), Client(server, "Bob")
        await until([ada, bob], lambda: ada.sees("Bob") and bob.sees("Ada"))
        await server.stop()
        await until([ada, bob], lambda: ada.call.state is c.CallState.OFFLINE is bob.call.state)
        connections = [p.peer.connection for c in (ada, bob) for p in c.call.participants.values()]
        links = [p.peer.link for p in ada.call.participants.values()]
        before = links[0].received
        await until([ada, bob], lambda: links[0].received > before + 5)
        await server.start()
        await until([ada, bob], lambda: ada.call.state is c.CallState.TALKING is bob.call.state)
        cyd = Client(server, "Cyd")
        await until([ada, bob, cyd], lambda: ada.sees("Bob", "Cyd") and cyd.sees("Ada", "Bob"))
        # The direct connections are the same, and nobody was told that anybody left.
        assert connections[0] in [p.peer.connection for p in ada.call.participants.values()]
        assert connections[1] in [p.peer.connection for p in bob.call.participants.values()]
        assert not [notice for notice in (*ada.call.notices, *bob.call.notices) if notice.endswith("left")]
        await asyncio.gather(ada.leave(), bob.leave(), cyd.leave())


async def test_a_network_change_reconnects_everyone_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A local address disappears and all connections go silent; the links stay the same."""
    monkeypatch.setattr(c, "MAINTENANCE_S", 0.3)
    monkeypatch.setattr(c, "NETWORK_CHANGE_CHECKS", 20)
    monkeypatch.setattr(peer, "MIN_ATTEMPT_S", 2.0)
    monkeypatch.setattr(peer, "SILENCE_TIMEOUT_S", 3600.0)  # so that silence alone changes nothing
    addresses = {"192.0.2.1", "192.0.2.2"}
    monkeypatch.setattr(c, "local_addresses", lambda: set(addresses))
    async with rooms() as server:
        ada, bob = Client(server, "Ada"), Client(server, "Bob")
        await until([ada, bob], lambda: ada.sees("Bob") and bob.sees("Ada"))
        there = [p.peer for client in (ada, bob) for p in client.call.participants.values()]
        links = [p.link for p in there]
        for p in there:
            silence(p)
        addresses.remove("192.0.2.1")
        await until([ada, bob], lambda: all(p.connections > 1 and p.connected for p in there))
        seen = [link.received for link in links]
        await until([ada, bob], lambda: all(p.link.received > n for p, n in zip(there, seen, strict=True)))
        assert [p.link for p in there] == links
        await asyncio.gather(ada.leave(), bob.leave())


async def test_a_vanished_participant_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A participant who leaves without a goodbye to anybody is removed after a time-out."""
    monkeypatch.setattr(c, "ABSENCE_TIMEOUT_S", 1.0)
    monkeypatch.setattr(c, "MAINTENANCE_S", 0.1)
    async with rooms(grace_s=1.0) as server:
        ada, bob = Client(server, "Ada"), Client(server, "Bob")
        await until([ada, bob], lambda: ada.sees("Bob") and bob.sees("Ada"))
        bob.task.cancel()
        await asyncio.gather(bob.task, return_exceptions=True)
        await until([ada], lambda: ada.names() == [])
        await ada.leave()


async def test_six_participants_see_each_other_and_a_seventh_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the thirty links keeps showing what its own sender sends."""
    monkeypatch.setattr(signalling, "FULL_PATIENCE_S", 0.0)
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
        words: dict[frozenset[str], set[str | None]] = {}
        for client in clients:
            for participant in client.call.participants.values():
                pair = frozenset((client.call.signalling.name, participant.name))
                words.setdefault(pair, set()).add(participant.words)
        assert len(words) == 15
        assert all(len(shown) == 1 and None not in shown for shown in words.values())  # both ends show the same
        seventh = Client(server, "Gus")
        with pytest.raises(SignallingError, match="The room is full"):
            await seventh.task
        assert all(len(client.names()) == 5 for client in clients)
        await asyncio.gather(*(client.leave() for client in clients))


async def test_joining_a_full_room_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signalling, "FULL_PATIENCE_S", 0.0)
    async with rooms(room_size=2) as server:
        ada, bob = Client(server, "Ada"), Client(server, "Bob")
        await until([ada, bob], lambda: ada.sees("Bob") and bob.sees("Ada"))
        cyd = Client(server, "Cyd")
        with pytest.raises(SignallingError, match="The room is full"):
            await cyd.task
        await asyncio.gather(ada.leave(), bob.leave())


async def test_joining_a_room_without_its_invitation_raises() -> None:
    async with rooms() as server:
        with pytest.raises(SignallingError, match="invitation"):
            await Client(server, "Ada", room="private-x").task


async def test_all_peers_are_reconnected_after_joining_with_a_new_id() -> None:
    """With a new id we are a new participant to the others, who keep their ids."""
    present: list[list[str]] = []

    class TwoWelcomes:
        """Signalling double: a welcome, and another one with a new id."""

        async def events(self) -> AsyncIterator[Any]:
            for id in ("ada", "eve"):
                yield Joined(id, False, {"bob": "Bob"}, [], 3600.0)
                await asyncio.sleep(0.1)
                present.append(list(call.participants))

        async def send_description(self, *_: Any) -> None: ...
        async def leave(self) -> None: ...

    video_sender = DoubleVideoSender()
    call = c.Call(TwoWelcomes(), video_sender, lambda made: DoubleLink(made, video_sender), make_connection)
    await call.run()
    assert present == [["bob"], ["bob"]]
    assert call.notices[:3] == ["Bob joined", "Bob left", "Bob joined"]


async def test_a_machine_that_does_not_keep_up_is_reported_once_and_the_rate_is_shared() -> None:
    call = c.Call(SimpleNamespace(), DoubleVideoSender(), None, make_connection)
    stats = LinkStats({}, {}, 4.0, 100.0, 0.0, 1, {}, received_per_s=25.0)
    limits: list[float] = []
    peer = SimpleNamespace(link=SimpleNamespace(limit=limits.append))
    there: Any = SimpleNamespace(stats=lambda: stats, peer=peer)
    call.participants = {"a": there, "b": there}
    for _ in range(2 * c.SLOW_CHECKS):
        call._judge_speed()
    assert call.notices == [c.TOO_SLOW]
    call._share_rate()
    assert limits == []
    call.max_kbps = 40.0
    call._share_rate()
    call.audio_sender = AudioSender()
    call._share_rate()
    assert limits == [20.0, 20.0, 5.0, 5.0]


async def test_the_host_locks_the_room_and_removes_a_participant() -> None:
    """Who is removed ends with a message, and cannot come back with the same invitation."""
    async with rooms() as server:
        host, guest = (
            sign(Token("private-x", role, int(time.time()) + 60), server.settings.secret) for role in ("host", "guest")
        )
        ada = Client(server, "Ada", f"private-x#token={host}")
        await until([ada], lambda: ada.call.is_host)
        bob = Client(server, "Bob", f"private-x#token={guest}")
        await until([ada, bob], lambda: ada.names() == ["Bob"])
        await ada.call.expel(next(iter(ada.call.participants)))
        with pytest.raises(SignallingError, match="The host has removed you"):
            await bob.task
        await until([ada], lambda: ada.names() == [] and ada.call.locked)
        with pytest.raises(SignallingError, match="locked"):
            await Client(server, "Bob", f"private-x#token={guest}").task
        await ada.leave()
