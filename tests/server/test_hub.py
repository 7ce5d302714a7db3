"""Connections of the hub: joining, relaying, refusing, losing and resuming. The clocks are set by the tests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from iwcodec.server import tokens
from iwcodec.server.hub import Hub
from iwcodec.server.limits import Limits
from iwcodec.server.messages import MAX_MESSAGE_BYTES, PROTOCOL
from iwcodec.server.store.memory import MemoryStore
from iwcodec.server.turn import TTL_S, IceConfig
from support.server.signalling import NOW, SECRET, Caller, Clock, make_hub, sdp

pytestmark = pytest.mark.realtime


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
@asynccontextmanager
async def hub(clock: Clock) -> AsyncIterator[Hub]:
    hub = make_hub(MemoryStore(), clock)
    await hub.store.open(hub.wake)
    yield hub
    for link in list(hub.links):
        link.socket.incoming.put_nowait(None)


async def started(clock: Clock | None = None, **settings: Any) -> Hub:
    hub = make_hub(MemoryStore(), clock, **settings)
    await hub.store.open(hub.wake)
    return hub


def guest(room: str, secret: bytes = SECRET, expires: float = NOW + 60) -> str:
    return tokens.sign(tokens.Token(room, "guest", int(expires)), secret)


def count(hub: Hub, name: str, **labels: str) -> float:
    return hub.metrics.registry.get_sample_value(f"iwcodec_{name}", labels) or 0.0


async def test_two_meet_and_exchange_signals(hub: Hub) -> None:
    ada, bob = Caller(hub), Caller(hub)
    first = await ada.join("Ada")
    second = await bob.join("Bob")
    assert (first["type"], first["room"], first["peers"], first["resumed"]) == ("welcome", "blue", [], False)
    assert second["peers"] == [{"id": first["id"], "name": "Ada"}]
    assert (await ada.hear("peer-joined"))["peer"] == {"id": second["id"], "name": "Bob"}

    bob.say(type="signal", to=first["id"], sdp=sdp("v=0\r\noffer"), call="c1")
    bob.say(type="signal", to=first["id"], candidate={"candidate": "candidate:1", "sdpMid": "0", "sdpMLineIndex": 0})
    bob.say(type="signal", to=first["id"], candidate=None)
    assert await ada.hear() == {"type": "signal", "from": second["id"], "sdp": sdp("v=0\r\noffer"), "call": "c1"}
    assert (await ada.hear())["candidate"] == {"candidate": "candidate:1", "sdpMid": "0", "sdpMLineIndex": 0}
    assert await ada.hear() == {"type": "signal", "from": second["id"], "candidate": None}
    ada.say(type="signal", to=second["id"], sdp=sdp("v=0\r\nanswer", "answer"))
    assert (await bob.hear("signal"))["from"] == first["id"]

    bob.say(type="leave")
    assert await bob.ended() == 1000
    assert await ada.hear() == {"type": "peer-left", "id": second["id"], "reason": "left"}
    assert count(hub, "joins_total", outcome="joined") == 2
    assert count(hub, "messages_total", type="signal") == 4


async def test_a_signal_reaches_only_its_addressee(hub: Hub) -> None:
    callers = [Caller(hub) for _ in range(3)]
    ids = [(await caller.join())["id"] for caller in callers]
    for caller, comers in zip(callers, (2, 1, 0), strict=True):
        for _ in range(comers):
            await caller.hear("peer-joined")
    callers[0].say(type="signal", to=ids[1], sdp=sdp())
    await callers[1].hear("signal")
    await callers[2].silent()
    await callers[0].silent()


async def test_signals_do_not_cross_rooms(hub: Hub) -> None:
    ada, eve = Caller(hub, "blue"), Caller(hub, "red")
    target = (await ada.join())["id"]
    own = (await eve.join())["id"]
    for to in (target, "nobody", own):
        eve.say(type="signal", to=to, sdp=sdp())
        assert (await eve.hear("error"))["code"] == "no-peer"
    await ada.silent()


async def test_a_sender_cannot_be_forged(hub: Hub) -> None:
    ada, eve = Caller(hub), Caller(hub)
    target = (await ada.join())["id"]
    await eve.join()
    await ada.hear("peer-joined")
    eve.say(**{"type": "signal", "to": target, "from": "somebody", "sdp": sdp()})
    assert (await eve.hear("error"))["code"] == "bad-message"
    await ada.silent()


async def test_malformed_messages_are_dropped_and_the_connection_stays_open(hub: Hub) -> None:
    ada = Caller(hub)
    await ada.join()
    for raw in ("nonsense", b"\x00\x01", "x" * (MAX_MESSAGE_BYTES + 1), '{"type":"reboot"}'):
        ada.socket.incoming.put_nowait(raw)
        assert (await ada.hear("error"))["code"] == "bad-message"
    ada.say(type="join", protocol=PROTOCOL, name="Ada")
    assert (await ada.hear("error"))["code"] == "bad-message"
    await ada.silent()
    assert count(hub, "dropped_total", reason="bad-message") == 5


async def test_messages_before_join_are_dropped(hub: Hub) -> None:
    ada = Caller(hub)
    for kind in ("ping", "ice", "leave"):
        ada.say(type=kind)
        assert (await ada.hear("error"))["code"] == "bad-message"
    assert (await ada.join())["type"] == "welcome"


async def test_another_protocol_version_is_refused(hub: Hub) -> None:
    ada = Caller(hub)
    ada.say(type="join", protocol=PROTOCOL + 1, name="Ada")
    assert (await ada.hear("error"))["code"] == "version"
    assert await ada.ended() == 4003


async def test_rooms_by_invitation(clock: Clock) -> None:
    hub = await started(clock)
    room = "private-x"
    attempts = {
        "by invitation": None,
        "not a token": "nonsense",
        "another room": guest("private-y"),
        "not signed": guest(room, b"somebody else's secret"),
        "expired": guest(room, expires=NOW),
    }
    for reason, token in attempts.items():
        caller = Caller(hub, room)
        answer = await caller.join(**({"token": token} if token else {}))
        assert answer["code"] == "refused"
        assert reason in answer["text"]
        assert await caller.ended() == 4001
    ada = Caller(hub, room)
    welcome = await ada.join(token=guest(room))
    assert welcome["type"] == "welcome"
    # A token that expires during the call neither ends it nor prevents resuming.
    clock.now += 61
    await ada.silent()
    again = Caller(hub, room)
    assert (await again.join(resume=welcome["resume"]))["id"] == welcome["id"]
    stranger = Caller(hub, room)
    assert (await stranger.join(resume="iwr.nobody.nothing"))["code"] == "refused"
    assert count(hub, "joins_total", outcome="refused") == 6


async def test_a_server_may_have_only_rooms_by_invitation() -> None:
    hub = await started(invitation_only=True)
    assert (await Caller(hub).join())["code"] == "refused"
    assert (await Caller(hub).join(token=guest("blue")))["type"] == "welcome"


async def test_a_full_room_and_a_full_server_refuse() -> None:
    hub = await started(limits=Limits(room_size=2, rooms=1))
    for _ in range(2):
        await Caller(hub).join()
    third = Caller(hub)
    assert await third.join() == {"type": "error", "code": "full", "text": "The room is full."}
    assert await third.ended() == 4002
    assert (await Caller(hub, "red").join())["code"] == "full"


async def test_an_address_opens_a_limited_number_of_rooms(clock: Clock) -> None:
    hub = await started(clock, limits=Limits(room_burst=2, rooms_per_s=0.1))
    for room in ("r1", "r2"):
        welcome = await Caller(hub, room).join()
        assert welcome["type"] == "welcome"
    third = Caller(hub, "r3")
    refusal = await third.join()
    assert (refusal["type"], refusal["code"]) == ("error", "unavailable")
    assert "opened from here" in refusal["text"]
    assert await third.ended() == 1013
    assert count(hub, "refused_requests_total", reason="rooms") == 1
    assert count(hub, "joins_total", outcome="unavailable") == 1
    # Rooms that exist, resuming in them, and other addresses are not limited.
    assert (await Caller(hub, "r1").join())["type"] == "welcome"
    assert (await Caller(hub, "r2").join(resume=welcome["resume"]))["resumed"]
    assert (await Caller(hub, "r3", "192.0.2.2").join())["type"] == "welcome"
    # The next room after ten seconds.
    clock.now += 10
    assert (await Caller(hub, "r4").join())["type"] == "welcome"
    assert (await Caller(hub, "r5").join())["code"] == "unavailable"


async def test_one_address_cannot_take_the_whole_server(clock: Clock) -> None:
    """400 rooms in 40 s, each left at once, as a client does that wants to keep all of them for the grace period."""
    hub = await started(clock)
    opened = 0
    for number in range(400):
        eve = Caller(hub, f"r{number}")
        opened += (await eve.join())["type"] == "welcome"
        eve.socket.incoming.put_nowait(None)
        await eve.ended()
        clock.now += 0.1
    # 20 at once, and one every 10 s.
    assert opened == 23
    assert (await hub.store.totals())[0] == 23
    assert (await Caller(hub, "mine", "192.0.2.2").join())["type"] == "welcome"


async def test_ice_credentials_are_renewed_on_request(clock: Clock) -> None:
    hub = await started(clock, ice=IceConfig(("stun:s:1",), ("turn:t:2",), "north wind"))
    ada = Caller(hub)
    welcome = await ada.join()
    stun, turn = welcome["ice_servers"]
    assert stun == {"urls": ["stun:s:1"]}
    assert turn["username"] == f"{int(NOW) + TTL_S}:{welcome['id']}"
    clock.now += 59
    ada.say(type="ice")
    answer = await ada.hear("ice")
    assert answer["ice_ttl_s"] == TTL_S
    assert answer["ice_servers"][1]["username"] == f"{int(NOW) + 59 + TTL_S}:{welcome['id']}"


async def test_a_lost_connection_keeps_its_place_for_the_grace_period(hub: Hub, clock: Clock) -> None:
    ada, bob = Caller(hub), Caller(hub)
    first = await ada.join("Ada")
    second = await bob.join("Bob")
    await ada.hear("peer-joined")
    await bob.vanish()
    clock.now += 29
    ada.say(type="signal", to=second["id"], sdp=sdp("v=0 waits"))
    await ada.silent()
    await hub.tick()

    back = Caller(hub)
    welcome = await back.join("Bob", resume=second["resume"])
    assert welcome["resumed"]
    assert (welcome["id"], welcome["resume"]) == (second["id"], second["resume"])
    assert welcome["peers"] == [{"id": first["id"], "name": "Ada"}]
    assert (await back.hear("signal"))["sdp"]["sdp"] == "v=0 waits"
    await ada.silent()
    assert count(hub, "joins_total", outcome="resumed") == 1


async def test_a_member_is_lost_after_the_grace_period(hub: Hub, clock: Clock) -> None:
    ada, bob = Caller(hub), Caller(hub)
    await ada.join("Ada")
    second = await bob.join("Bob")
    await ada.hear("peer-joined")
    await bob.vanish()
    for _ in range(3):
        clock.now += 10
        await ada.silent()
        await hub.tick()
    assert await ada.hear() == {"type": "peer-left", "id": second["id"], "reason": "lost"}
    late = Caller(hub)
    welcome = await late.join("Bob", resume=second["resume"])
    assert not welcome["resumed"]
    assert welcome["id"] == second["id"]  # the others recognise him, and may have kept their connection
    assert (await ada.hear("peer-joined"))["peer"]["id"] == second["id"]
    assert count(hub, "lost_total") == 1


async def test_ids_survive_a_restart_of_the_server(hub: Hub) -> None:
    """All state is lost; whoever has the key of a resume token gets its id, and nobody else does."""
    first = await Caller(hub).join("Ada")
    after = await started()
    ada, eve = Caller(after), Caller(after)
    welcome = await ada.join("Ada", resume=first["resume"])
    assert (welcome["id"], welcome["resume"], welcome["resumed"]) == (first["id"], first["resume"], False)
    prefix, member, key = first["resume"].split(".")
    for forged in (f"{prefix}.{member}.{key[:-1]}x", f"{prefix}.{member}x.{key}", f"{prefix}.{'0' * 16}.{key}"):
        stranger = await eve.join("Eve", resume=forged)
        assert stranger["id"] not in (first["id"], "0" * 16)
        await eve.vanish()
        eve = Caller(after)


async def test_a_second_connection_replaces_the_first(hub: Hub) -> None:
    ada, bob = Caller(hub), Caller(hub)
    first = await ada.join("Ada")
    await bob.join("Bob")
    await ada.hear("peer-joined")
    again = Caller(hub)
    assert (await again.join("Ada", resume=first["resume"]))["resumed"]
    assert (await ada.hear("error"))["code"] == "replaced"
    assert await ada.ended() == 4006
    bob.say(type="signal", to=first["id"], sdp=sdp())
    await again.hear("signal")
    await bob.silent()


async def test_pings_keep_a_connection_and_its_lease(hub: Hub, clock: Clock) -> None:
    ada = Caller(hub)
    welcome = await ada.join()
    for _ in range(20):
        clock.now += welcome["ping_s"]
        await hub.tick()
        await ada.silent()
    assert (await hub.store.totals()) == (1, 1)


async def test_idle_connections_are_closed(hub: Hub, clock: Clock) -> None:
    ada, mute = Caller(hub), Caller(hub)
    await ada.join()
    clock.now += 9
    mute.say(type="ping")
    assert (await mute.hear("error"))["code"] == "bad-message"
    await hub.tick()
    clock.now += 2
    await hub.tick()
    # The limits are 10 s to join and 60 s without a message.
    assert (await mute.hear("error"))["code"] == "idle"
    assert await mute.ended() == 4005
    await ada.silent()
    clock.now += 61
    await hub.tick()
    assert (await ada.hear("error"))["code"] == "idle"
    assert await ada.ended() == 4005


async def test_a_flood_is_dropped_then_disconnected_and_others_are_unaffected(hub: Hub) -> None:
    ada, bob = Caller(hub), Caller(hub)
    await ada.join("Ada")
    target = (await bob.join("Bob"))["id"]
    await ada.hear("peer-joined")
    for _ in range(1000):
        ada.say(type="signal", to=target, candidate=None)
    errors = []
    while not errors or errors[-1]["code"] != "flood":
        errors.append(await ada.hear("error"))
    assert await ada.ended() == 4004
    limits = hub.settings.limits
    assert len(errors) == limits.dropped_burst + 1
    assert count(hub, "messages_total", type="signal") < limits.message_burst
    assert count(hub, "dropped_total", reason="rate") == limits.dropped_burst + 1
    await bob_hears_signals_then_pong(bob)


async def bob_hears_signals_then_pong(bob: Caller) -> None:
    bob.say(type="ping")
    while (await bob.hear())["type"] != "pong":
        pass


async def test_large_messages_have_their_own_allowance() -> None:
    hub = await started(limits=Limits(byte_burst=50_000, bytes_per_s=0))
    ada = Caller(hub)
    own = (await ada.join())["id"]
    for _ in range(2):
        ada.say(type="signal", to=own, sdp=sdp("v=0" + "a" * 20_000))
        assert (await ada.hear("error"))["code"] == "no-peer"
    ada.say(type="signal", to=own, sdp=sdp("v=0" + "a" * 20_000))
    assert (await ada.hear("error"))["code"] == "rate"
    await ada.silent()


async def test_a_full_mailbox_refuses_signals(hub: Hub) -> None:
    ada, bob = Caller(hub), Caller(hub)
    await ada.join("Ada")
    target = (await bob.join("Bob"))["id"]
    await ada.hear("peer-joined")
    await bob.vanish()
    from iwcodec.server.messages import MAILBOX

    for _ in range(MAILBOX):
        await hub.store.post("blue", target, "{}")
    ada.say(type="signal", to=target, sdp=sdp())
    assert (await ada.hear("error"))["code"] == "peer-busy"


async def test_an_internal_error_closes_only_one_connection(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    ada, bob = Caller(hub), Caller(hub)
    await ada.join("Ada")
    await bob.join("Bob")
    await ada.hear("peer-joined")
    hub.metrics.relayed_bytes = None
    bob.say(type="signal", to=(await hub.store.members("blue", NOW))[0].id, sdp=sdp())
    await bob.ended()
    assert "connection" in caplog.text
    await ada.hear("signal")
    await ada.silent()
    assert count(hub, "closed_total", reason="disconnected") == 1


async def test_gauges_count_connections_rooms_and_participants(hub: Hub) -> None:
    ada = Caller(hub)
    await ada.join()
    await hub.refresh_totals()
    assert [count(hub, name) for name in ("connections", "rooms", "participants")] == [1, 1, 1]
    await ada.vanish()
    assert count(hub, "connections") == 0


def of_host(room: str) -> str:
    return tokens.sign(tokens.Token(room, "host", int(NOW + 60)), SECRET)


async def test_a_host_locks_the_room_and_removes_participants(hub: Hub) -> None:
    ada, bob, eve = (Caller(hub, "private-x") for _ in range(3))
    first = await ada.join("Ada", token=of_host("private-x"))
    second = await bob.join("Bob", token=guest("private-x"))
    assert (first["host"], second["host"], second["locked"]) == (True, False, False)
    await ada.hear("peer-joined")
    ada.say(type="lock", on=True)
    assert (await ada.hear("locked"))["on"] is True
    assert (await bob.hear("locked"))["on"] is True
    assert (await eve.join("Eve", token=guest("private-x")))["code"] == "locked"
    assert await eve.ended() == 4008
    ada.say(type="remove", id=second["id"])
    assert (await bob.hear("error"))["code"] == "removed"
    assert await bob.ended() == 4009
    assert await ada.hear() == {"type": "peer-left", "id": second["id"], "reason": "left"}
    back = Caller(hub, "private-x")
    assert (await back.join("Bob", resume=second["resume"], token=guest("private-x")))["code"] == "locked"
    ada.say(type="remove", id=first["id"])
    assert (await ada.hear("error"))["code"] == "no-peer"  # not oneself
    ada.say(type="lock", on=False)
    await ada.hear("locked")
    assert (await Caller(hub, "private-x").join("Eve", token=guest("private-x")))["type"] == "welcome"


async def test_only_hosts_lock_and_remove(hub: Hub) -> None:
    """An open room has no host."""
    for room, token in (("private-x", guest("private-x")), ("blue", None)):
        ada, bob = Caller(hub, room), Caller(hub, room)
        await ada.join("Ada", token=token)
        second = await bob.join("Bob", token=token)
        await ada.hear("peer-joined")
        for message in ({"type": "lock", "on": True}, {"type": "remove", "id": second["id"]}):
            ada.say(**message)
            assert (await ada.hear("error"))["code"] == "not-host"
        await bob.silent()
