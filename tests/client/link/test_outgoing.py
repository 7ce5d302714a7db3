"""The sending half of a link: what is sent when, over simulated paths and on a simulated clock."""

import asyncio
from dataclasses import replace
from itertools import pairwise
from math import ceil
from typing import Any

import numpy as np
import pytest

from iwcodec.benchmarks.call.simulation import SimulatedPath, connection_pair
from iwcodec.client.link import outgoing
from iwcodec.client.link.congestion_control import LADDER
from iwcodec.client.link.link_state import LinkState
from iwcodec.client.link.messages import MOTION_CHANNEL, SOURCE_CHANNEL, Hello, MotionMessage, SourceChunk, is_control
from iwcodec.client.link.outgoing import MAX_RIDING_PART, MAX_SEQUENCES, SEQUENCES_S
from iwcodec.client.link.send import FIRST_PART, LAST_PART, PART
from iwcodec.codec.bitstream.packets import MotionPacket
from support.calls.links import FPS, End, calling, until, worst_error
from support.codec.stub_runtime import NearestSourceFit, picture

pytestmark = pytest.mark.simulated


async def test_acknowledgements_share_the_packets_of_motion() -> None:
    """While both film, nearly all acknowledgements of the transport share a packet with motion."""
    there = SimulatedPath()
    async with calling(there):
        await asyncio.sleep(6)
        before = there.packets
        await asyncio.sleep(8)
        assert there.packets - before < 1.3 * 8 * FPS / LADDER[0].message_frames


async def test_first_picture_waits_until_it_is_sent() -> None:
    """`first_picture_waits` makes sound pause meanwhile. It is False if no picture is to be expected."""
    narrow = {"kbps": 30.0, "delay_s": 0.05}
    a, b = (End(connection) for connection in connection_pair(SimulatedPath(**narrow), SimulatedPath(**narrow, seed=2)))
    b.sender.pause(True)
    assert (a.link.first_picture_waits, b.link.first_picture_waits) == (True, False)
    noise = np.random.default_rng(5).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    await a.sender._add_source(noise, 0.0)
    for end in (a, b):
        end.film()
        await end.connection.start()
    await until(lambda: a.link.outgoing.sources.sequence is not None, 2)
    await asyncio.sleep(0.2)
    assert a.link.first_picture_waits
    await until(lambda: not a.link.first_picture_waits, 3)
    assert a.link.outgoing.sources.index > 0
    await until(lambda: a.link.outgoing.has_picture, 3)
    assert not a.link.first_picture_waits
    for end in (a, b):
        await end.close()


async def test_motion_waits_for_the_first_picture_only() -> None:
    """Motion follows directly after the last chunk of the first picture. It does not wait for the first picture of a
    later sequence, because the peer has pictures already."""

    async def nothing(*args: Any) -> None:
        pass

    narrow = {"kbps": 30.0, "delay_s": 0.05}
    a, b = (End(connection) for connection in connection_pair(SimulatedPath(**narrow), SimulatedPath(**narrow, seed=2)))
    sent: list[str] = []
    send = a.link._channels.send

    def record(channel_id: int, data: bytes) -> None:
        if channel_id == SOURCE_CHANNEL and SourceChunk.from_bytes(data).index == 0:
            sent.append("first")
        elif channel_id == MOTION_CHANNEL and not is_control(data):
            sent.append("motion")
        send(channel_id, data)

    a.link._channels.send = record
    for end in (a, b):
        end.sender._judge = nothing
        noise = np.random.default_rng(5).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        await end.sender._add_source(noise, 0.0)
        end.film()
        await end.connection.start()
    await until(lambda: a.link.outgoing.has_picture, 3)
    parts = sent.count("first")
    assert parts > 5 * PART / FIRST_PART
    assert sent[:parts] == ["first"] * parts
    assert sent[parts] == "motion"
    await asyncio.sleep(3)
    b.link.incoming.abandon_sequence()
    await until(lambda: not a.link.outgoing.has_picture, 3)
    sent.clear()
    await until(lambda: a.link.outgoing.has_picture, 5)
    assert sent.count("first") == parts
    assert "motion" in sent[: sent.index("first", parts // 2)]
    for end in (a, b):
        await end.close()


async def test_sources_are_sent_before_the_hello_arrives() -> None:
    """They are not repeated after it."""
    async with calling(SimulatedPath(delay_s=0.2), SimulatedPath(delay_s=0.2, seed=2)) as (a, b):
        await until(lambda: a.link.outgoing.sources.index > 0, 2)
        assert a.link.outgoing.peer is None
        await until(lambda: b.link.state == LinkState.LIVE, 2)
        assert b.link.stats().dropped == {}
        assert b.link.incoming.assembler.sequence == a.link.outgoing.sequence.number


async def test_motion_never_waits_for_a_source() -> None:
    """Motion messages over a narrow link are as fast while sources are sent as without."""
    without: list[float] = []
    during: list[float] = []

    async def record(b: End, transit_times: list[float]) -> None:
        arrived, start = b.link.incoming.motion, asyncio.get_running_loop().time()
        before = start
        while asyncio.get_running_loop().time() < start + 6:
            await asyncio.sleep(0.001)
            if arrived.arrived_s is not None and arrived.arrived_s > before:
                before = arrived.arrived_s
                transit_times.append(before - arrived.newest_frames[-1].stamp_s)

    async def quiet(*args: Any) -> None:
        pass

    narrow = {"kbps": 30.0, "delay_s": 0.05}
    async with calling(SimulatedPath(**narrow), SimulatedPath(**narrow, seed=2)) as (a, b):
        b.sender.pause(True)
        await asyncio.sleep(8)
        rng = np.random.default_rng(5)
        a.sender._judge = quiet
        await until(lambda: a.link.outgoing.backlog() == 0, 15)
        await asyncio.sleep(3)
        await record(b, without)
        for _ in range(6):
            await a.sender._add_source(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8), 0.0)
        assert a.link.outgoing.backlog() == 6
        await record(b, during)
        assert a.link.outgoing.backlog() < 4
    assert len(during) == pytest.approx(len(without), abs=2)
    assert np.percentile(during, 90) - np.percentile(without, 90) < 0.02
    assert np.median(during) - np.median(without) < 0.02


@pytest.mark.parametrize("kbps", [10_000.0, 60.0])
async def test_parts_of_sources_share_the_packets_of_motion_if_they_are_small_or_the_path_is_fast(kbps: float) -> None:
    async with calling(SimulatedPath(kbps=kbps), SimulatedPath(kbps=kbps, seed=2)) as (a, _):

        async def nothing(*args: Any) -> None:
            pass

        await asyncio.sleep(2)
        a.sender._judge = nothing
        await asyncio.sleep(2)
        sequence = a.link.outgoing.sequence
        sent: list[tuple[float, int]] = []
        send = a.link._channels.send

        def record(channel_id: int, data: bytes) -> None:
            if not is_control(data) or channel_id == SOURCE_CHANNEL:
                sent.append((asyncio.get_running_loop().time(), channel_id))
            send(channel_id, data)

        a.link._channels.send = record
        noises = np.random.default_rng(5).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
        sequence.add(noises[0])  # measures the path
        await asyncio.sleep(5)
        for shown in (picture(100), noises[1]):
            sent.clear()
            sequence.add(shown)
            size = len(sequence.units[sequence.next - 1].packet)
            assert size < MAX_RIDING_PART or size > LAST_PART * PART
            await asyncio.sleep(5)
            motion = [at_s for at_s, channel_id in sent if channel_id == MOTION_CHANNEL]
            sources = [at_s for at_s, channel_id in sent if channel_id == SOURCE_CHANNEL]
            shares = size <= MAX_RIDING_PART or kbps > 200
            assert all((at_s in motion) == shares for at_s in sources)
            assert all(after - before > 0.1 for before, after in pairwise(sources))  # one part beside each message
            assert len(sources) == max(1, ceil(size / PART + 1 - LAST_PART))


async def test_sources_do_not_delay_pictures() -> None:
    """While sources of 2.5 KB are sent over a narrow link, the delay of the frames shown does not grow."""
    narrow = {"kbps": 24.0, "delay_s": 0.05}
    async with calling(SimulatedPath(**narrow), SimulatedPath(**narrow, seed=2)) as (a, b):
        await asyncio.sleep(8)
        rng = np.random.default_rng(5)
        for _ in range(6):
            await a.sender._add_source(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8), 0.0)
        assert a.link.outgoing.backlog() >= 6
        start = asyncio.get_running_loop().time()
        await until(lambda: a.link.outgoing.backlog() == 0, 15)
        during = b.between(start, asyncio.get_running_loop().time())
        assert len(during) > 20
        assert max(shown.delay_s for shown in during) < 0.35


@pytest.mark.parametrize(("kbps", "longest_delay_s"), [(12, 0.8), (8, 1.1)])
async def test_narrow_link_is_not_overfilled(kbps: float, longest_delay_s: float) -> None:
    """After some seconds less is sent than the link carries: 8 kbps are less than a call takes at first."""
    there = SimulatedPath(kbps=kbps, delay_s=0.05)
    async with calling(there, SimulatedPath(kbps=kbps, delay_s=0.05, seed=2)) as (_, b):
        await asyncio.sleep(10)
        before = there.bytes
        await asyncio.sleep(8)
        assert (there.bytes - before) * 8 / 1000 / 8 < kbps
        assert b.link.state == LinkState.LIVE
        assert np.percentile([shown.delay_s for shown in b.between(1010, 1e9)], 95) < longest_delay_s


async def test_sources_leave_room_for_motion_in_an_outage() -> None:
    """Sources that wait do not fill the congestion window, which is a packet then. So no message is skipped, and the
    first one after the outage is not delayed."""
    path: dict[str, Any] = {"kbps": 30.0, "delay_s": 0.05, "outages": ((1006.0, 1011.0),)}
    async with calling(SimulatedPath(**path), SimulatedPath(**path, seed=2)) as (a, b):
        await asyncio.sleep(7)
        motion, skipped = a.link.outgoing.motion, []
        skip = motion.skip
        motion.skip = lambda kept=None: skipped.append(kept) or skip(kept)
        rng = np.random.default_rng(5)
        for _ in range(4):
            await a.sender._add_source(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8), 0.0)
        await asyncio.sleep(13)
        assert a.link.outgoing.backlog() == 0
        assert skipped == []
        assert min(at for at, _ in b.shown if at > 1011) < 1011.5


async def test_motion_does_not_queue_behind_motion() -> None:
    """While the congestion window is closed one message waits, and newer ones are skipped."""
    out = ((1004.0, 1006.0),)
    async with calling(SimulatedPath(outages=out), SimulatedPath(outages=out, seed=2)) as (a, _):
        await asyncio.sleep(4)
        outgoing, channels = a.link.outgoing, a.link._channels
        sent = channels.by_id[MOTION_CHANNEL]
        before = outgoing.motion._count
        channels.transport._cwnd = 0
        await asyncio.sleep(0.9)
        assert outgoing.motion._count > before + 4 * LADDER[0].message_frames
        assert 0 < sent.bufferedAmount < 150
        assert outgoing._blocked
        await asyncio.sleep(4)
        assert sent.bufferedAmount == 0


async def test_sources_are_small_on_a_narrow_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh sequence has smaller pictures, and another one the usual ones after the link has recovered."""
    monkeypatch.setattr(outgoing, "MIN_SEQUENCE_S", 12.0)
    async with calling() as (a, b):
        b.sender.pause(True)
        await asyncio.sleep(14)
        for small in (True, False):
            a.link.outgoing.congestion_control.small = small
            noise = np.random.default_rng(5).integers(0, 256, (64, 64, 3), dtype=np.uint8)
            await a.sender._add_source(noise, 0.0)
            await until(lambda small=small: a.link.outgoing.sequence.small == small, 3)
            await asyncio.sleep(13)
            assert b.link.incoming.assembler.sequence == a.link.outgoing.sequence.number
            await until(lambda: a.link.outgoing.backlog() == 0, 5)
            assert b.link.state == LinkState.LIVE
            assert worst_error(b, b.between(asyncio.get_running_loop().time() - 9, 1e9)) < 4


async def test_fresh_sequences_are_limited_to_one_per_second() -> None:
    """The peer asks for them all the time; each costs pictures to be coded."""
    async with calling() as (a, b):
        await asyncio.sleep(4)
        hello = Hello(
            a.link.outgoing.peer.protocol,
            b"stubstub",
            a.link.outgoing.peer.tables,
            a.link.outgoing.peer.stream,
            None,
            0,
        )
        numbers = set()
        for _ in range(50):
            b.link._channels.send_control(hello)
            await asyncio.sleep(0.1)
            numbers.add(a.sender._sequence.number)
        assert 2 <= len(numbers) <= 7
        await asyncio.sleep(4)
        assert b.link.state == LinkState.LIVE


class Fitted(NearestSourceFit):
    """Knows the error of keypoints too."""

    def frame(self, *arguments: Any) -> Any:
        return replace(super().frame(*arguments), gram=lambda: np.eye(60))


async def test_motion_is_transform_coded_against_acknowledged_frames() -> None:
    """And not against frames whose slots held sources of an earlier sequence."""
    async with calling() as (a, b):
        sent: list[MotionPacket] = []
        send = a.link._channels.send

        def record(channel_id: int, data: bytes) -> None:
            if channel_id == MOTION_CHANNEL and not is_control(data):
                sent.append(MotionMessage.from_bytes(data).packet)
            send(channel_id, data)

        a.link._channels.send = record
        a.sender._fit = Fitted()
        await asyncio.sleep(3)
        last = sent[-8:]
        assert all(packet.scale is not None for packet in last)
        assert sum(packet.alike for packet in sent) >= 2  # unless the reference source is nearer
        for shade in range(4):
            await a.sender._add_source(picture(20 * shade), 0.0)
        await asyncio.sleep(1)
        first, before = a.link.outgoing.motion._count, a.link.outgoing.sequence
        b.link.incoming.abandon_sequence()
        await until(lambda: a.link.outgoing.sequence is not before, 5)
        await asyncio.sleep(2)
        assert all(packet.reference is None or packet.reference >= first for packet in sent if packet.first > first)
        assert sent[-1].scale is not None
        assert not b.link.stats().dropped.get("malformed")


async def test_a_peer_that_asks_without_end_gets_few_sequences() -> None:
    """Each costs several pictures to be coded, at the expense of all other peers."""
    async with calling() as (a, b):
        await asyncio.sleep(2)
        for end in (a, b):
            end.filming.cancel()
        begun: list[float] = []
        sequence_for_newcomer = a.sender.sequence_for_newcomer

        async def counted(small: bool = False) -> Any:
            begun.append(asyncio.get_running_loop().time())
            return await sequence_for_newcomer(small)

        a.sender.sequence_for_newcomer = counted
        for _ in range(2 * MAX_SEQUENCES):
            b.link.incoming.abandon_sequence()
            await asyncio.sleep(2.5)
        assert len(begun) < MAX_SEQUENCES
        await until(lambda: a.link.outgoing.has_picture and len(begun) >= MAX_SEQUENCES, SEQUENCES_S)
