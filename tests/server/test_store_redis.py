"""Rooms in Redis: shared by stores, woken across processes, and what remains when Redis goes and comes back."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from signalling import NOW, PATIENCE_S, Caller, Clock, RedisServer, make_hub, make_member, redis_server, sdp

pytest.importorskip("redis")
from iwcodec.server.rooms import Joined, StoreError
from iwcodec.server.store_redis import RedisStore

pytestmark = [pytest.mark.anyio, pytest.mark.realtime]
LIMITS = (6, 100)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


class Woken:
    """Collects wake-ups; `first` waits for one."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    def __call__(self, room: str, member: str) -> None:
        self.queue.put_nowait((room, member))

    async def named(self) -> tuple[str, str]:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found = await self.queue.get()
                if found != ("", ""):
                    return found


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
    # Bob comes back through the first process: the second is told that he is no longer its.
    again = await one.join("blue", make_member("x", node=one.node, session="s2"), ("bob", "hash"), (0, 0), NOW + 30)
    assert isinstance(again, Joined)
    assert again.member.id == "bob"
    assert await woken_two.named() == ("blue", "bob")
    assert await two.fetch("blue", bob) is None
    await one.close()
    await two.close()


async def test_nothing_is_left_behind(redis: RedisServer) -> None:
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
def test_an_address_that_is_none_is_a_value_error(url: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        RedisStore(url)


async def test_rooms_outlive_a_restart_that_forgets_everything(redis: RedisServer) -> None:
    """Members keep their ids and go on exchanging signals; nobody is told that anybody left."""
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
    # Longer than the grace period: nobody can renew, so nobody will be swept.
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
    # The second to be put back is announced to the first: a peer that is known already.
    assert (await ada.hear("peer-joined"))["peer"]["id"] == ids[1]
    ada.say(type="signal", to=ids[1], sdp=sdp())
    assert (await bob.hear("signal"))["from"] == ids[0]
    for caller in (ada, bob):
        await caller.vanish()
    for hub in hubs:
        await hub.close()


async def resumed(hub) -> None:  # type: ignore[no-untyped-def]
    """Tick until Redis answers again."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            await hub.tick()
            if b"iwcodec_store_up 1.0" in hub.metrics.page():
                return
            await asyncio.sleep(0.05)


async def test_a_lost_wake_up_is_made_up_for_by_the_next_renewal(redis: RedisServer) -> None:
    clock = Clock()
    hub = make_hub(RedisStore(redis.url), clock)
    await hub.open()
    ada = Caller(hub)
    welcome = await ada.join()
    await ada.silent()
    hub.wake = lambda room, member: None  # type: ignore[method-assign]
    elsewhere = RedisStore(redis.url)
    # As if the subscription had been down at that moment.
    hub.members.clear()
    await elsewhere.post("blue", welcome["id"], '{"type":"pong","late":true}')
    clock.now += 11
    await hub.tick()
    assert (await ada.hear("pong"))["late"]
    await ada.vanish()
    await elsewhere.close()
    await hub.close()


async def test_a_burst_of_commands_waits_for_its_turn(redis: RedisServer) -> None:
    store = RedisStore(redis.url)
    await store.open(Woken())
    members = [make_member(f"m{number}") for number in range(300)]
    await asyncio.gather(*(store.join(f"r{n}", member, None, (6, 1000), NOW + 30) for n, member in enumerate(members)))
    assert await store.totals() == (300, 300)
    await store.close()
