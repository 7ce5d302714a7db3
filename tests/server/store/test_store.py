"""The behaviour that every store has: the one in memory, and the one in Redis."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from iwcodec.server.messages import MAILBOX
from iwcodec.server.store.base import Joined, Member, Posted, Refusal, Renewed, Store
from iwcodec.server.store.memory import MemoryStore
from support.server.signalling import NOW, RedisServer, make_member, redis_server

pytestmark = pytest.mark.realtime
LIMITS = (6, 100)
LATER = NOW + 30


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> AbstractAsyncContextManager[Store]:
    return opened(None if request.param == "memory" else request.getfixturevalue("redis").url)


@asynccontextmanager
async def opened(redis: str | None) -> AsyncIterator[Store]:
    """An empty store: in Redis if an address is given, otherwise in memory."""
    made: Store
    if redis is None:
        made = MemoryStore()
    else:
        from iwcodec.server.store.redis import RedisStore

        made = RedisStore(redis)
        await made.redis.flushall()
    woken: list[tuple[str, str]] = []
    await made.open(lambda room, member: woken.append((room, member)))
    yield made
    await made.close()


async def enter(store: Store, member: Member, room: str = "blue", expires: float = LATER) -> Joined:
    outcome = await store.join(room, member, None, LIMITS, expires)
    assert isinstance(outcome, Joined)
    return outcome


async def test_a_newcomer_gets_the_peers_and_they_are_notified(store: Store) -> None:
    ada, bob = make_member("ada"), make_member("bob", name='Bøb / "B"', joined=2)
    assert await enter(store, ada) == Joined(ada, [], False)
    assert await enter(store, bob) == Joined(bob, [ada], False)
    mail = await store.fetch("blue", ada)
    peer = {"id": "bob", "name": 'Bøb / "B"'}
    assert [json.loads(text) for text in mail] == [{"type": "peer-joined", "peer": peer}]
    assert await store.fetch("blue", ada) == []
    assert await store.fetch("blue", bob) == []
    assert await store.members("blue", NOW) == [ada, bob]
    assert await store.totals() == (1, 2)


async def test_rooms_are_separate(store: Store) -> None:
    await enter(store, make_member("ada"), "blue")
    assert (await enter(store, make_member("bob"), "red")).peers == []
    assert await store.post("red", "ada", "hello") is Posted.NO_PEER
    assert await store.totals() == (2, 2)


async def test_signals_arrive_in_order_once(store: Store) -> None:
    ada = make_member("ada")
    await enter(store, ada)
    texts = [f'{{"n":{n},"é":"\\r\\n"}}' for n in range(5)]
    for text in texts:
        assert await store.post("blue", "ada", text) is Posted.SENT
    assert await store.fetch("blue", ada) == texts
    assert await store.fetch("blue", ada) == []


async def test_a_mailbox_has_a_limit(store: Store) -> None:
    ada = make_member("ada")
    await enter(store, ada)
    for _ in range(MAILBOX):
        assert await store.post("blue", "ada", "x") is Posted.SENT
    assert await store.post("blue", "ada", "x") is Posted.PEER_BUSY
    # The server's own events still fit.
    await enter(store, make_member("bob"))
    mail = await store.fetch("blue", ada)
    assert len(mail) == MAILBOX
    assert "peer-joined" in mail[-1]


async def test_leaving_notifies_the_others_and_removes_an_empty_room(store: Store) -> None:
    ada, bob = make_member("ada"), make_member("bob")
    await enter(store, ada)
    await enter(store, bob)
    await store.fetch("blue", ada)
    await store.leave("blue", bob)
    mail = await store.fetch("blue", ada)
    assert [json.loads(text) for text in mail] == [{"type": "peer-left", "id": "bob", "reason": "left"}]
    assert await store.fetch("blue", bob) is None
    await store.leave("blue", bob)
    await store.leave("blue", ada)
    assert await store.totals() == (0, 0)


async def test_a_full_room_and_a_full_server_refuse(store: Store) -> None:
    for number in range(2):
        await store.join("blue", make_member(f"m{number}"), None, (2, 1), LATER)
    assert await store.join("blue", make_member("m3"), None, (2, 1), LATER) is Refusal.ROOM_FULL
    assert await store.join("red", make_member("m4"), None, (2, 1), LATER) is Refusal.SERVER_FULL
    assert await store.totals() == (1, 2)


async def test_expired_members_are_swept_and_the_others_notified(store: Store) -> None:
    ada, bob = make_member("ada"), make_member("bob")
    await enter(store, ada, expires=NOW + 30)
    await enter(store, bob, expires=NOW + 10)
    await store.fetch("blue", ada)
    assert await store.sweep(NOW + 9) == 0
    assert await store.members("blue", NOW + 10) == [ada]
    assert await store.sweep(NOW + 10) == 1
    mail = await store.fetch("blue", ada)
    assert json.loads(mail[0]) == {"type": "peer-left", "id": "bob", "reason": "lost"}
    assert await store.sweep(NOW + 30) == 1
    assert await store.totals() == (0, 0)


async def test_renewing_extends_the_lease(store: Store) -> None:
    ada = make_member("ada")
    await enter(store, ada, expires=NOW + 10)
    assert await store.renew("blue", ada, NOW + 40, restore=False) is Renewed.RENEWED
    assert await store.sweep(NOW + 39) == 0
    assert await store.sweep(NOW + 40) == 1
    assert await store.renew("blue", ada, NOW + 80, restore=False) is Renewed.LOST


async def test_a_forgotten_member_is_restored_and_announced(store: Store) -> None:
    ada, bob = make_member("ada"), make_member("bob")
    await enter(store, bob)
    assert await store.renew("blue", ada, LATER, restore=True) is Renewed.RENEWED
    assert {member.id for member in await store.members("blue", NOW)} == {"ada", "bob"}
    mail = await store.fetch("blue", bob)
    assert "peer-joined" in mail[0]


async def test_resuming_keeps_the_id_and_the_waiting_signals(store: Store) -> None:
    ada, bob = make_member("ada", resume="good"), make_member("bob")
    await enter(store, ada)
    await enter(store, bob)
    await store.post("blue", "ada", "first")
    await store.leave("blue", bob)
    await store.post("blue", "ada", "second")
    cyd = make_member("cyd")
    await enter(store, cyd)
    newcomer = make_member("new", session="s2", node="n2", name="Other")
    # There is no place for a newcomer, but Ada has hers.
    outcome = await store.join("blue", newcomer, ("ada", "good"), (0, 0), LATER)
    resumed = make_member("ada", resume="good", session="s2", node="n2")
    assert outcome == Joined(resumed, [cyd], True)
    assert await store.fetch("blue", ada) is None
    assert await store.renew("blue", ada, LATER, restore=True) is Renewed.REPLACED
    await store.leave("blue", ada)
    # The welcome replaces the events about peers. The signals stay, in order.
    assert await store.fetch("blue", resumed) == ["first", "second"]
    assert await store.fetch("blue", cyd) == []


@pytest.mark.parametrize("resume", [("ada", "wrong"), ("nobody", "good"), ("", "")])
async def test_a_wrong_resume_token_joins_as_a_newcomer(store: Store, resume: tuple[str, str]) -> None:
    ada = make_member("ada", resume="good")
    await enter(store, ada)
    outcome = await store.join("blue", make_member("new"), resume, LIMITS, LATER)
    assert isinstance(outcome, Joined)
    assert (outcome.member.id, outcome.resumed) == ("new", False)
    assert await store.fetch("blue", ada) is not None


async def test_a_locked_room_admits_only_hosts_and_those_who_resume(store: Store) -> None:
    ada = make_member("ada", resume="hash")
    await enter(store, ada)
    await store.lock("blue", True)
    assert await store.join("blue", make_member("bob"), None, LIMITS, LATER) is Refusal.ROOM_LOCKED
    again = await store.join("blue", make_member("new", "s2"), ("ada", "hash"), LIMITS, LATER)
    assert isinstance(again, Joined)
    assert (again.resumed, again.locked) == (True, True)
    host = await store.join("blue", make_member("cyd", "s3"), None, LIMITS, LATER, host=True)
    assert isinstance(host, Joined)
    assert host.locked
    await store.lock("blue", False)
    assert isinstance(await store.join("blue", make_member("bob"), None, LIMITS, LATER), Joined)
    mail = await store.fetch("blue", again.member)
    assert [json.loads(text)["type"] for text in mail] == ["peer-joined", "locked", "peer-joined"]


async def test_a_lock_ends_with_the_last_member(store: Store) -> None:
    ada = make_member("ada")
    await enter(store, ada)
    await store.lock("blue", True)
    await store.leave("blue", ada)
    await store.lock("blue", True)  # nobody is there to lock anything
    assert not (await enter(store, make_member("bob"))).locked


async def test_a_removed_member_stays_away(store: Store) -> None:
    """Neither a renewal nor a resume token brings it back."""
    ada, bob = make_member("ada"), make_member("bob", resume="key")
    await enter(store, ada)
    await enter(store, bob)
    assert await store.remove("blue", "bob")
    assert not await store.remove("blue", "bob")
    assert await store.fetch("blue", bob) is None
    assert await store.renew("blue", bob, LATER, restore=True) is Renewed.REMOVED
    assert await store.join("blue", bob, ("bob", "key"), LIMITS, LATER) is Refusal.ROOM_LOCKED
    mail = await store.fetch("blue", ada)
    assert json.loads(mail[-1]) == {"type": "peer-left", "id": "bob", "reason": "left"}
