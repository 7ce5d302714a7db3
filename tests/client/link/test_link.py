"""Two links over real SCTP, on simulated paths and a simulated clock: whole calls under good and bad conditions."""

import asyncio
from functools import cache

import numpy as np
import pytest

from iwcodec.benchmarks.call.simulation import ImmediateExecutor, SimulatedPath, connection_pair, simulate
from iwcodec.client.link.congestion_control import LADDER
from iwcodec.client.link.link import FROZEN_S, Link
from iwcodec.client.link.link_state import SNAPSHOT_NUMBER, LinkState
from support.calls.links import FPS, End, calling, until, worst_error
from support.codec.stub_runtime import StubRuntime

pytestmark = pytest.mark.simulated


async def test_call_over_a_good_path() -> None:
    async with calling() as (a, b):
        assert a.link.state == LinkState.CONNECTING
        await until(lambda: a.link.state == LinkState.LIVE and b.link.state == LinkState.LIVE, 1.5)
        await asyncio.sleep(9)
        for end in (a, b):
            stats = end.link.stats()
            assert stats.frames_per_s == pytest.approx(FPS, abs=1.5)
            assert stats.loss == 0
            assert sum(stats.dropped.values()) == 0
            assert 90 < stats.delay_ms < 150
            assert stats.sent_kbps["total"] < 12
            assert stats.received_kbps["total"] == pytest.approx(stats.sent_kbps["total"], rel=0.2)
            # The first frame of a message waits for the last one.
            assert end.link.playout_delay_s() == pytest.approx((LADDER[0].message_frames - 1) / FPS + 0.005, abs=0.02)
            late = end.between(end.shown[-1][0] - 6, 1e9)
            assert [s.number for s in late] == list(range(late[0].number, late[-1].number + 1))
            assert worst_error(end, late) < 4
            assert all(at == pytest.approx(shown.due_s, abs=0.002) for at, shown in end.shown)
            assert end.sender.preview is not None


async def test_close() -> None:
    async with calling() as (a, b):
        await until(lambda: a.link.state == LinkState.LIVE, 2)
        await a.link.close()
        await asyncio.wait_for(a.watching, 1)
        assert a.link.state == LinkState.CLOSED
        await until(lambda: b.link.state == LinkState.FROZEN, FROZEN_S + 1)


@pytest.mark.parametrize("bundling", [(True, False), (False, True)])
async def test_peer_with_a_standard_transport(bundling: tuple[bool, bool]) -> None:
    async with calling(bundling=bundling) as (a, b):
        await asyncio.sleep(6)
        for end in (a, b):
            assert end.link.state == LinkState.LIVE
            assert end.link.stats().frames_per_s == pytest.approx(FPS, abs=2)


async def test_first_picture_over_a_narrow_link() -> None:
    """At 30 kbps and a round trip of 100 ms, association, hello and the first picture take less than 2 s."""
    narrow = {"kbps": 30.0, "delay_s": 0.05}
    async with calling(SimulatedPath(**narrow), SimulatedPath(**narrow, seed=2)) as (a, b):
        took = await until(lambda: bool(a.shown and b.shown), 2.0)
        assert took > 0.1


@cache
def after_14_s(loss: float) -> tuple[list[End], list[LinkState]]:
    """Both ends after a call of 14 s that loses this share of the packets, and their states at its end."""

    async def work() -> tuple[list[End], list[LinkState]]:
        async with calling(SimulatedPath(loss=loss, seed=11), SimulatedPath(loss=loss, seed=61)) as ends:
            await asyncio.sleep(14)
            states = [end.link.state for end in ends]
        return ends, states

    return simulate(work())


def test_loss_does_not_change_the_delay() -> None:
    """With every tenth packet lost the delay is the same as without loss, and as steady: a changing delay would be
    worse than the losses."""

    def delays(loss: float) -> list[float]:
        return [shown.delay_s for end in after_14_s(loss)[0] for shown in end.between(1006, 1e9)]

    without, lossy = delays(0), delays(0.1)
    assert np.median(lossy) == pytest.approx(np.median(without), abs=0.01)
    assert np.percentile(lossy, 95) - np.percentile(lossy, 5) < 0.045


@pytest.mark.parametrize("loss", [0.1, 0.3])
def test_loss(loss: float) -> None:
    """Repetition repairs nearly all of it, and pictures stay correct."""
    ends, states = after_14_s(loss)
    assert states == [LinkState.LIVE] * 2
    for end in ends:
        late = end.between(1006, 1e9)
        assert len(late) > (0.95 if loss == 0.1 else 0.75) * FPS * 8
        assert worst_error(end, late) < 6


@pytest.mark.parametrize("seed", range(3))
async def test_pictures_do_not_freeze_with_every_third_packet_lost(seed: int) -> None:
    """Packets of sources and their retransmissions are lost, too: motion must not wait for them."""
    rng = np.random.default_rng(5)
    async with calling(SimulatedPath(loss=0.3, seed=2 * seed), SimulatedPath(loss=0.3, seed=2 * seed + 1)) as (a, b):
        for _ in range(10):
            await asyncio.sleep(1)
            await a.sender._add_source(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8), 0.0)
    at = [at for at, _ in b.shown]
    assert at[0] < 1006
    assert max(np.diff([*at, 1010.0])) < FROZEN_S


async def test_duplicates_and_reordering_are_harmless() -> None:
    rough = {"duplicates": 0.1, "reordered": 0.1, "jitter_s": 0.03}
    async with calling(SimulatedPath(**rough), SimulatedPath(**rough, seed=2)) as (_, b):
        await asyncio.sleep(11)
        numbers = [shown.number for shown in b.between(1005, 1e9)]
        assert numbers == sorted(set(numbers))
        assert len(numbers) > 0.9 * FPS * 6
        assert worst_error(b, b.between(1005, 1e9)) < 4


async def test_outage() -> None:
    """After 5 s without packets in both directions the call is live within a second, at the former rate."""
    out = ((1006.0, 1011.0),)
    async with calling(SimulatedPath(outages=out), SimulatedPath(outages=out, seed=2)) as (_, b):
        await asyncio.sleep(9)
        assert b.link.state == LinkState.FROZEN
        await asyncio.sleep(1011.0 - asyncio.get_running_loop().time())
        took = await until(lambda: b.link.state == LinkState.LIVE and b.shown[-1][0] > 1011, 1.0)
        assert took < 1.0
        await asyncio.sleep(5)
        assert b.link.stats().frames_per_s == pytest.approx(FPS, abs=2)
        assert b.link.stats().delay_ms < 200
        assert worst_error(b, b.between(1012, 1e9)) < 4


async def test_very_narrow_link_never_stalls() -> None:
    """At 6 kbps there are fewer frames, but they keep coming."""
    async with calling(SimulatedPath(kbps=6.0), SimulatedPath(kbps=6.0, seed=2)) as (_, b):
        await asyncio.sleep(30)
        shown = b.between(1013, 1e9)
        assert len(shown) > 3 * 17
        gaps = np.diff([item.due_s for item in shown])
        assert np.percentile(gaps, 95) < 1.0
        assert b.link.state == LinkState.LIVE


async def test_camera_off_and_on() -> None:
    async with calling() as (a, b):
        await asyncio.sleep(4)
        a.sender.pause(True)
        await until(lambda: b.link.state == LinkState.CAMERA_OFF, 0.5)
        await asyncio.sleep(5 * FROZEN_S)
        assert b.link.state == LinkState.CAMERA_OFF
        before = len(b.shown)
        a.sender.pause(False)
        await until(lambda: b.link.state == LinkState.LIVE and len(b.shown) > before + 5, 1.0)
        assert a.link.state == LinkState.LIVE


async def test_snapshots_are_shown_while_the_face_is_lost() -> None:
    """Instead of motion snapshots of the scene are sent, which are not kept as sources."""
    async with calling() as (a, b):
        await asyncio.sleep(5)
        a.faces = False
        await until(lambda: b.link.state == LinkState.FACE_LOST, 3)
        await asyncio.sleep(0.5)
        await until(lambda: b.shown[-1][1].state == LinkState.FACE_LOST and b.shown[-1][1].number == SNAPSHOT_NUMBER, 4)
        snapshot = b.shown[-1][1].picture
        assert snapshot.std() > 5  # the scene itself, not a reconstruction
        assert b.link.stats().sources == a.sender._added
        a.faces = True
        await until(lambda: b.link.state == LinkState.LIVE and b.shown[-1][1].number > 0, 2)


async def test_peer_that_joins_later_gets_a_short_sequence() -> None:
    first = [End(c) for c in connection_pair(SimulatedPath(), SimulatedPath(seed=2))]
    first[0].film()
    for end in first:
        await end.connection.start()
    await asyncio.sleep(12)
    known = first[1].link.stats().sources
    long = first[0].link.outgoing.sequence
    assert known > 4
    ours, theirs = connection_pair(SimulatedPath(kbps=30), SimulatedPath(kbps=30, seed=3))
    link = Link(ours, first[0].sender, StubRuntime(), ImmediateExecutor())
    newcomer = End(theirs)
    for connection in (ours, theirs):
        await connection.start()
    await until(lambda: bool(newcomer.shown), 2.0)
    await asyncio.sleep(5)
    assert link.outgoing.sequence is not long
    assert first[0].link.outgoing.sequence is long
    for end in (first[1], newcomer):  # both continue, and get new sources
        assert worst_error(end, [end.shown[-1][1]]) < 4
    assert newcomer.link.stats().sources >= 4
    await link.close()
    for end in (*first, newcomer):
        await end.close()


async def test_library_is_kept_over_another_connection() -> None:
    """A connection breaks in the middle of a call; over the next one no source is sent again."""
    async with calling() as (a, b):
        await asyncio.sleep(8)
        sources, sequence, sound_s = b.link.stats().sources, a.link.outgoing.sequence, b.link.playout_delay_s()
        for end in (a, b):
            await end.connection.close()
        await asyncio.sleep(1)
        assert b.link.state == LinkState.RECONNECTING
        for end, connection in zip((a, b), connection_pair(SimulatedPath(), SimulatedPath(seed=2)), strict=True):
            end.connection = connection
            end.link.replace_connection(connection)
        assert b.link.playout_delay_s() == sound_s  # until something arrives on the new path
        before = len(b.shown)
        for end in (a, b):
            await end.connection.start()
        await until(lambda: b.link.state == LinkState.LIVE and len(b.shown) > before + 10, 1.5)
        await asyncio.sleep(3)
        assert a.link.outgoing.sequence is sequence
        assert b.link.stats().sources >= sources
        assert not b.link.stats().dropped.get("sources")


async def test_peer_that_restarts() -> None:
    """The peer's program was restarted: its stream number changes, and everything begins again."""
    async with calling() as (a, b):
        await asyncio.sleep(6)
        await a.close()
        ours, theirs = connection_pair(SimulatedPath(), SimulatedPath(seed=2))
        again = End(ours)
        again.film()
        b.connection = theirs
        b.link.replace_connection(theirs)
        before = len(b.shown)
        for connection in (ours, theirs):
            await connection.start()
        await until(lambda: len(b.shown) > before + 30 and len(again.shown) > 30, 4)
        assert worst_error(b, [b.shown[-1][1]]) < 4
        await again.close()


async def test_peer_with_another_model_is_incompatible() -> None:
    ends = [End(c) for c in connection_pair(SimulatedPath(), SimulatedPath(seed=2))]

    class Other(StubRuntime):
        info = StubRuntime.info.__class__("other", b"another!", 20, 64)

    ends[1].link._runtime = Other()
    for end in ends:
        end.film()
        await end.connection.start()
    await asyncio.sleep(3)
    assert ends[0].link.stats().dropped["another model"] == 1
    assert ends[0].link.state == LinkState.INCOMPATIBLE
    for end in ends:
        await end.close()


async def test_a_link_sends_no_more_than_its_limit():
    """Headers included, after the first picture."""
    async with calling() as (a, b):
        a.link.limit(7.0)
        await until(lambda: b.link.state == LinkState.LIVE, 10)
        await asyncio.sleep(6)
        assert a.link.stats().sent_kbps["total"] < 7.0
        assert b.link.stats().frames_per_s > 8
