"""Rooms in Redis: shared between processes, and restored when Redis restarts."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.server.signalling import (
    NOW,
    PATIENCE_S,
    Caller,
    Clock,
    RedisServer,
    make_hub,
    make_member,
    redis_server,
    sdp,
)

pytest.importorskip("redis")
from iwcodec.server.store.base import Joined, StoreError
from iwcodec.server.store.redis import RedisStore

pytestmark = pytest.mark.realtime
LIMITS = (6, 100)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


class Woken:
    """Collects wake-ups; `named` waits for one that names a member."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    def __call__(self, room: str, member: str) -> None:
        self.queue.put_nowait((room, member))

    async def named(self) -> tuple[str, str]:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                wake_up = await self.queue.get()
                if wake_up != ("", ""):
                    return wake_up


async def test_two_processes_share_rooms_and_wake_each_other(redis: RedisServer) -> None:
    one, two, woken_one, woken_two = RedisStore(redis.url), RedisStore(redis.url), Woken(), Woken()
    await one.open(woken_one)
    await two.open(woken_two)
    ada, bob = make_member("ada", node=one.node), make_member("bob", node=two.node)
    await one.join("blue", ada, None, LIMITS, NOW + 30)
    outcome = await two.join("blue", bob, None, LIMITS, NOW + 30)
    assert outcome == Joined(bob, [ada], False)
    assert await woken_one.named() == ("blue", "ada")
    await one.post("blue", "bob", "hello")
    assert await woken_two.named() == ("blue", "bob")
    assert await two.fetch("blue", bob) == ["hello"]
    # Bob resumes through the first process, and the second learns that it no longer owns him.
    again = await one.join("blue", make_member("x", node=one.node, session="s2"), ("bob", "hash"), (0, 0), NOW + 30)
    assert isinstance(again, Joined)
    assert again.member.id == "bob"
    assert await woken_two.named() == ("blue", "bob")
    assert await two.fetch("blue", bob) is None
    await one.close()
    await two.close()


async def test_sweeping_leaves_no_keys(redis: RedisServer) -> None:
    store = RedisStore(redis.url)
    await store.open(Woken())
    for room in ("blue", "red"):
        for number in range(3):
            await store.join(room, make_member(f"m{number}"), None, LIMITS, NOW)
        await store.post(room, "m0", "hello")
    assert await store.sweep(NOW) == 6
    assert await store.redis.keys("*") == []
    await store.close()


async def test_an_unreachable_redis_is_a_store_error(redis: RedisServer) -> None:
    store = RedisStore(redis.url)
    redis.stop()
    with pytest.raises(StoreError):
        await store.open(Woken())
    with pytest.raises(StoreError):
        await store.totals()
    await store.close()


@pytest.mark.parametrize("url", ["http://x", "nonsense", "redis://host:port"])
def test_an_invalid_url_is_a_value_error(url: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        RedisStore(url)


async def test_rooms_survive_a_restart_of_redis_without_data(redis: RedisServer) -> None:
    """Members keep their ids and can still exchange signals, and no peer-left is sent."""
    clock = Clock()
    hubs = [make_hub(RedisStore(redis.url), clock) for _ in range(2)]
    for hub in hubs:
        await hub.open()
    ada, bob = (Caller(hub) for hub in hubs)
    ids = [(await ada.join("Ada"))["id"], (await bob.join("Bob"))["id"]]
    await ada.hear("peer-joined")

    redis.stop()
    ada.say(type="signal", to=ids[1], sdp=sdp())
    assert (await ada.hear("error"))["code"] == "unavailable"
    # Longer than the grace period. No lease can be renewed, so no member may be swept.
    for _ in range(5):
        clock.now += 10
        for hub in hubs:
            await hub.tick()
            assert b"iwcodec_store_up 0.0" in hub.metrics.page()
    assert (await Caller(hubs[0]).join("Cyd"))["code"] == "unavailable"

    redis.start()
    for hub in hubs:
        await resumed(hub)
    people = await hubs[0].store.members("blue", clock.now)
    assert sorted(member.id for member in people) == sorted(ids)
    # The member that is restored second is announced to the first, which knows it already.
    assert (await ada.hear("peer-joined"))["peer"]["id"] == ids[1]
    ada.say(type="signal", to=ids[1], sdp=sdp())
    assert (await bob.hear("signal"))["from"] == ids[0]
    for caller in (ada, bob):
        await caller.vanish()
    for hub in hubs:
        await hub.close()


async def resumed(hub) -> None:
    """Tick until Redis answers again."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            await hub.tick()
            if b"iwcodec_store_up 1.0" in hub.metrics.page():
                return
            await asyncio.sleep(0.05)


async def test_the_next_renewal_delivers_after_a_lost_wake_up(redis: RedisServer) -> None:
    clock = Clock()
    hub = make_hub(RedisStore(redis.url), clock)
    await hub.open()
    ada = Caller(hub)
    welcome = await ada.join()
    await ada.silent()
    hub.wake = lambda room, member: None
    elsewhere = RedisStore(redis.url)
    # Simulate a subscription that was down at that moment.
    hub.members.clear()
    await elsewhere.post("blue", welcome["id"], '{"type":"pong","late":true}')
    clock.now += 11
    await hub.tick()
    assert (await ada.hear("pong"))["late"]
    await ada.vanish()
    await elsewhere.close()
    await hub.close()


async def test_a_burst_of_commands_waits_for_free_connections(redis: RedisServer) -> None:
    store = RedisStore(redis.url)
    await store.open(Woken())
    members = [make_member(f"m{number}") for number in range(300)]
    await asyncio.gather(*(store.join(f"r{n}", member, None, (6, 1000), NOW + 30) for n, member in enumerate(members)))
    assert await store.totals() == (300, 300)
    await store.close()
