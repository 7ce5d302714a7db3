"""Two links over real SCTP on simulated paths and a simulated clock (benchmarks/simulation.py)."""

import asyncio
import time
from typing import Any

import numpy as np
import pytest

pytest.importorskip("aiortc")

from iwcodec.benchmarks.call.simulation import AtOnce, Path, connection_pair, simulate
from iwcodec.client.video.congestion_control import LADDER
from iwcodec.client.video.link import FROZEN_S, Link, LinkState, Shown
from iwcodec.client.video.messages import (
    CONTROL_CHANNEL,
    MOTION_CHANNEL,
    SOURCE_CHANNEL,
    Hello,
    MotionMessage,
    SourceChunk,
    control_to_bytes,
    is_control,
)
from iwcodec.client.video.send import FIRST_PART, PART
from iwcodec.codec.bitstream.packets import MotionPacket
from link_calls import FPS, End, call, level, until
from stub_runtime import StubRuntime


def worst_error(end: End, shown: list[Shown]) -> float:
    """Grey levels between what is shown and what the other's camera saw then."""
    return max(abs(float(item.picture.mean()) - level(item.due_s - item.delay_s)) for item in shown)


def test_a_call():
    async def case(a: End, b: End) -> None:
        assert a.link.state == LinkState.CONNECTING
        await until(lambda: a.link.state == LinkState.LIVE and b.link.state == LinkState.LIVE, 1.5)
        await asyncio.sleep(20)
        for end in (a, b):
            stats = end.link.stats()
            assert stats.frames_per_s == pytest.approx(FPS, abs=1.5)
            assert stats.loss == 0
            assert sum(stats.dropped.values()) == 0
            assert 90 < stats.delay_ms < 150
            assert stats.sent_kbps["total"] < 12
            assert stats.received_kbps["total"] == pytest.approx(stats.sent_kbps["total"], rel=0.2)
            # The first frame of a message waits for the others.
            assert end.link.playout_delay_s() == pytest.approx((LADDER[0].message_frames - 1) / FPS + 0.005, abs=0.02)
            late = end.between(end.shown[-1][0] - 10, 1e9)
            assert [s.number for s in late] == list(range(late[0].number, late[-1].number + 1))
            assert worst_error(end, late) < 4
            assert all(at == pytest.approx(shown.due_s, abs=0.002) for at, shown in end.shown)
            assert end.feed.preview is not None

    call(case)


def test_closing():
    async def case(a: End, b: End) -> None:
        await until(lambda: a.link.state == LinkState.LIVE, 2)
        await a.link.close()
        await asyncio.wait_for(a.watching, 1)
        assert a.link.state == LinkState.CLOSED
        await until(lambda: b.link.state == LinkState.FROZEN, FROZEN_S + 1)

    call(case)


def test_acknowledgements_do_not_cost_packets_of_their_own():
    """Both film: nearly everything the transport acknowledges goes along with motion."""

    async def case(a: End, b: End) -> None:
        await asyncio.sleep(10)
        before = there.packets
        await asyncio.sleep(10)
        assert there.packets - before < 1.3 * 10 * FPS / LADDER[0].message_frames

    there = Path()
    call(case, there)


@pytest.mark.parametrize("bundling", [(True, False), (False, True)])
def test_a_peer_with_a_standard_transport(bundling: tuple[bool, bool]):
    async def case(a: End, b: End) -> None:
        await asyncio.sleep(6)
        for end in (a, b):
            assert end.link.state == LinkState.LIVE
            assert end.link.stats().frames_per_s == pytest.approx(FPS, abs=2)

    call(case, bundling=bundling)


def test_first_picture_over_a_narrow_link():
    """30 kbps, 100 ms there and back: the association, the hello and a picture in under 2 s."""

    async def case(a: End, b: End) -> None:
        took = await until(lambda: bool(a.shown and b.shown), 2.0)
        assert took > 0.1

    narrow = {"kbps": 30.0, "delay_s": 0.05}
    call(case, Path(**narrow), Path(**narrow, seed=2))


def test_the_first_picture_waits_until_it_has_been_sent():
    """Others that share the way are told so: sound gives it up for a moment. Not where there will be no picture."""

    async def work() -> None:
        narrow = {"kbps": 30.0, "delay_s": 0.05}
        a, b = (End(connection) for connection in connection_pair(Path(**narrow), Path(**narrow, seed=2)))
        b.feed.pause(True)
        assert (a.link.first_picture_waits, b.link.first_picture_waits) == (True, False)
        noise = np.random.default_rng(5).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        await a.feed._add_source(noise, 0.0)
        for end in (a, b):
            end.film()
            await end.connection.start()
        await until(lambda: a.link._sources_out.sequence is not None, 2)
        await asyncio.sleep(0.2)
        assert a.link.first_picture_waits
        await until(lambda: not a.link.first_picture_waits, 3)
        assert a.link._sources_out.index > 0
        await until(lambda: a.link.has_picture, 3)
        assert not a.link.first_picture_waits
        for end in (a, b):
            await end.close()

    simulate(work())


def test_motion_waits_for_the_first_picture_and_for_no_other():
    """It leaves right behind the first picture's last part; what a fresh sequence begins with it does not wait for, as
    there are pictures that it moves."""

    async def work() -> None:
        narrow = {"kbps": 30.0, "delay_s": 0.05}
        a, b = (End(connection) for connection in connection_pair(Path(**narrow), Path(**narrow, seed=2)))
        sent: list[str] = []
        send = a.link._send

        def note(channel_id: int, data: bytes) -> None:
            if channel_id == SOURCE_CHANNEL and SourceChunk.from_bytes(data).index == 0:
                sent.append("first")
            elif channel_id == MOTION_CHANNEL and not is_control(data):
                sent.append("motion")
            send(channel_id, data)

        a.link._send = note  # type: ignore[method-assign]
        for end in (a, b):
            end.feed._judge = nothing  # type: ignore[method-assign]
            noise = np.random.default_rng(5).integers(0, 256, (64, 64, 3), dtype=np.uint8)
            await end.feed._add_source(noise, 0.0)
            end.film()
            await end.connection.start()
        await until(lambda: a.link.has_picture, 3)
        parts = sent.count("first")
        assert parts > 5 * PART / FIRST_PART
        assert sent[:parts] == ["first"] * parts
        assert sent[parts] == "motion"
        await asyncio.sleep(3)
        b.link._ask_fresh()
        await until(lambda: not a.link.has_picture, 3)
        sent.clear()
        await until(lambda: a.link.has_picture, 5)
        assert sent.count("first") == parts
        assert "motion" in sent[: sent.index("first", parts // 2)]
        for end in (a, b):
            await end.close()

    async def nothing(*args: Any) -> None:
        pass

    simulate(work())


def test_sources_set_out_before_the_hello_has_come():
    """And are not sent twice for it."""

    async def case(a: End, b: End) -> None:
        await until(lambda: a.link._sources_out.index > 0, 2)
        assert a.link._peer is None
        await until(lambda: b.link.state == LinkState.LIVE, 2)
        assert b.link.stats().dropped == {}
        assert b.link._assembler.sequence == a.link.sequence.number  # type: ignore[union-attr]

    call(case, Path(delay_s=0.2), Path(delay_s=0.2, seed=2))


@pytest.mark.parametrize(("kbps", "most_s"), [(30.0, 0.02), (24.0, 0.05)])
def test_motion_never_waits_for_a_source(kbps: float, most_s: float):
    """While sources go over a narrow link messages take no longer than in the same call without them."""

    def transits(sources: int) -> list[float]:
        took: list[float] = []

        async def case(a: End, b: End) -> None:
            await asyncio.sleep(8)
            rng = np.random.default_rng(5)
            a.feed._judge = quiet  # type: ignore[method-assign]
            await until(lambda: a.link.backlog() == 0, 15)
            await asyncio.sleep(3)
            for _ in range(sources):
                await a.feed._add_source(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8), 0.0)
            assert a.link.backlog() == sources
            arrived, start = b.link._motion_in, asyncio.get_running_loop().time()
            before = start
            while asyncio.get_running_loop().time() < start + 6:
                await asyncio.sleep(0.001)
                if arrived.arrived_s is not None and arrived.arrived_s > before:
                    before = arrived.arrived_s
                    took.append(before - arrived.taken[-1].stamp_s)
            assert sources == 0 or a.link.backlog() < sources - 2

        async def quiet(*args: Any) -> None:
            pass

        narrow = {"kbps": kbps, "delay_s": 0.05}
        call(case, Path(**narrow), Path(**narrow, seed=2))
        return took

    without, beside = transits(0), transits(6)
    assert len(beside) == pytest.approx(len(without), abs=2)
    assert np.percentile(beside, 90) - np.percentile(without, 90) < most_s
    assert np.median(beside) - np.median(without) < 0.02


def test_pictures_are_no_later_while_sources_go():
    """While sources of 2.5 KB go over a narrow link the delay of the frames shown does not grow."""

    async def case(a: End, b: End) -> None:
        await asyncio.sleep(8)
        rng = np.random.default_rng(5)
        before = a.link._sources_out.backlog()
        for _ in range(6):
            await a.feed._add_source(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8), 0.0)
        assert a.link.backlog() >= before + 6
        start = asyncio.get_running_loop().time()
        await until(lambda: a.link.backlog() == 0, 15)
        during = b.between(start, asyncio.get_running_loop().time())
        assert len(during) > 20
        assert max(shown.delay_s for shown in during) < 0.35

    narrow = {"kbps": 24.0, "delay_s": 0.05}
    call(case, Path(**narrow), Path(**narrow, seed=2))


def test_loss_does_not_change_the_delay():
    """Where every tenth packet is lost pictures are as late as where none is, and evenly so: a delay that comes and
    goes would cost more than what is lost."""

    def delays(loss: float) -> list[float]:
        ends = call(lambda a, b: asyncio.sleep(30), Path(loss=loss), Path(loss=loss, seed=2))
        return [shown.delay_s for end in ends for shown in end.between(1010, 1e9)]

    without, lossy = delays(0), delays(0.1)
    assert np.median(lossy) == pytest.approx(np.median(without), abs=0.01)
    assert np.percentile(lossy, 95) - np.percentile(lossy, 5) < 0.045


def test_a_link_of_12_kbps_is_not_filled():
    """Some seconds after the beginning nothing queues any more."""

    async def case(a: End, b: End) -> None:
        await asyncio.sleep(15)
        before = there.bytes
        await asyncio.sleep(15)
        assert (there.bytes - before) * 8 / 1000 / 15 < 12
        assert b.link.state == LinkState.LIVE
        assert np.percentile([shown.delay_s for shown in b.between(1015, 1e9)], 95) < 0.8

    there = Path(kbps=12.0, delay_s=0.05)
    call(case, there, Path(kbps=12.0, delay_s=0.05, seed=2))


def test_sources_are_small_where_the_link_is_narrow():
    """A fresh sequence with smaller pictures, and one with the usual ones when the link has recovered."""

    async def case(a: End, b: End) -> None:
        await asyncio.sleep(25)
        for small in (True, False):
            a.link._rate.small = small
            rng = np.random.default_rng(5)
            for _ in range(3):
                await a.feed._add_source(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8), 0.0)
            await until(lambda small=small: a.link.sequence.small == small, 3)  # type: ignore[misc]
            await asyncio.sleep(24)
            assert b.link._assembler.sequence == a.link.sequence.number
            assert a.link.backlog() == 0
            assert b.link.state == LinkState.LIVE
            assert worst_error(b, b.between(asyncio.get_running_loop().time() - 20, 1e9)) < 4

    call(case)


@pytest.mark.parametrize("loss", [0.1, 0.3])
def test_loss(loss: float):
    """Repetition mends nearly all of it; nothing smears: what is shown is what was seen."""

    async def case(a: End, b: End) -> None:
        await asyncio.sleep(30)
        for end in (a, b):
            assert end.link.state == LinkState.LIVE
            late = end.between(1015, 1e9)
            assert len(late) > (0.95 if loss == 0.1 else 0.75) * FPS * 15
            assert worst_error(end, late) < 6

    call(case, Path(loss=loss), Path(loss=loss, seed=2))


def test_the_picture_does_not_stand_still_where_every_third_packet_is_lost():
    """Sources of several packets and their repetitions are lost, too: motion must not wait for them."""

    async def case(a: End, b: End) -> None:
        rng = np.random.default_rng(5)
        for _ in range(20):
            await asyncio.sleep(1)
            await a.feed._add_source(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8), 0.0)

    for seed in range(6):
        _, b = call(case, Path(loss=0.3, seed=2 * seed), Path(loss=0.3, seed=2 * seed + 1))
        at = [at for at, _ in b.shown]
        assert at[0] < 1010, seed
        assert max(np.diff([*at, 1020.0])) < FROZEN_S, seed


def test_duplicates_and_reordering_are_harmless():
    async def case(a: End, b: End) -> None:
        await asyncio.sleep(15)
        numbers = [shown.number for shown in b.between(1005, 1e9)]
        assert numbers == sorted(set(numbers))
        assert len(numbers) > 0.9 * FPS * 10
        assert worst_error(b, b.between(1005, 1e9)) < 4

    rough = {"duplicates": 0.1, "reordered": 0.1, "jitter_s": 0.03}
    call(case, Path(**rough), Path(**rough, seed=2))


def test_outage():
    """5 s of nothing in both directions: frozen, then live within a second, and the rate is what it was."""

    async def case(a: End, b: End) -> None:
        await asyncio.sleep(13)
        assert b.link.state == LinkState.FROZEN
        await asyncio.sleep(1015.0 - asyncio.get_running_loop().time())
        took = await until(lambda: b.link.state == LinkState.LIVE and b.shown[-1][0] > 1015, 1.0)
        assert took < 1.0
        await asyncio.sleep(5)
        assert b.link.stats().frames_per_s == pytest.approx(FPS, abs=2)
        assert b.link.stats().delay_ms < 200
        assert worst_error(b, b.between(1016, 1e9)) < 4

    out = ((1010.0, 1015.0),)
    call(case, Path(outages=out), Path(outages=out, seed=2))


def test_a_very_narrow_link_is_no_stall():
    """6 kbps: fewer frames, but frames all the time."""

    async def case(a: End, b: End) -> None:
        await asyncio.sleep(60)
        shown = b.between(1025, 1e9)
        assert len(shown) > 3 * 30
        gaps = np.diff([item.due_s for item in shown])
        assert np.percentile(gaps, 95) < 1.0
        assert b.link.state == LinkState.LIVE

    call(case, Path(kbps=6.0), Path(kbps=6.0, seed=2))


def test_camera_off_and_on():
    async def case(a: End, b: End) -> None:
        await asyncio.sleep(4)
        a.feed.pause(True)
        await until(lambda: b.link.state == LinkState.CAMERA_OFF, 0.5)
        await asyncio.sleep(30)
        assert b.link.state == LinkState.CAMERA_OFF
        before = len(b.shown)
        a.feed.pause(False)
        await until(lambda: b.link.state == LinkState.LIVE and len(b.shown) > before + 5, 1.0)
        assert a.link.state == LinkState.LIVE

    call(case)


def test_face_lost_and_found():
    """Without a face no motion is sent, but the scene itself; it is not kept as a source."""

    async def case(a: End, b: End) -> None:
        await asyncio.sleep(5)
        sources = b.link.stats().sources
        a.faces = False
        await until(lambda: b.link.state == LinkState.FACE_LOST, 3)
        await asyncio.sleep(0.5)
        await until(lambda: b.shown[-1][1].state == LinkState.FACE_LOST and b.shown[-1][1].number == -1, 4)
        still = b.shown[-1][1].picture
        assert still.std() > 5  # a picture of the scene, not a rebuilt one
        assert b.link.stats().sources == sources
        a.faces = True
        await until(lambda: b.link.state == LinkState.LIVE and b.shown[-1][1].number > 0, 2)

    call(case)


def test_a_late_joiner_gets_the_library_as_a_short_sequence():
    async def work() -> None:
        first = [End(c) for c in connection_pair(Path(), Path(seed=2))]
        first[0].film()
        for end in first:
            await end.connection.start()
        await asyncio.sleep(12)
        known = first[1].link.stats().sources
        long = first[0].link.sequence
        assert known > 4
        ours, theirs = connection_pair(Path(kbps=30), Path(kbps=30, seed=3))
        link = Link(ours, first[0].feed, StubRuntime(), AtOnce())  # type: ignore[arg-type]
        newcomer = End(theirs)
        for connection in (ours, theirs):
            await connection.start()
        await until(lambda: bool(newcomer.shown), 2.0)
        await asyncio.sleep(5)
        assert link.sequence is not long
        assert first[0].link.sequence is long
        for end in (first[1], newcomer):  # both go on, and learn of new sources
            assert worst_error(end, [end.shown[-1][1]]) < 4
        assert newcomer.link.stats().sources >= 4
        await link.close()
        for end in (*first, newcomer):
            await end.close()

    simulate(work())


def test_another_connection_keeps_the_library():
    """The old connection dies in the middle of a call; over the new one nothing has to be sent again."""

    async def case(a: End, b: End) -> None:
        await asyncio.sleep(8)
        sources, sequence, sound_s = b.link.stats().sources, a.link.sequence, b.link.playout_delay_s()
        for end in (a, b):
            await end.connection.close()
        await asyncio.sleep(1)
        assert b.link.state == LinkState.RECONNECTING
        for end, connection in zip((a, b), connection_pair(Path(), Path(seed=2)), strict=True):
            end.connection = connection
            end.link.replace_connection(connection)  # type: ignore[arg-type]
        assert b.link.playout_delay_s() == sound_s  # until something has come that way
        before = len(b.shown)
        for end in (a, b):
            await end.connection.start()
        await until(lambda: b.link.state == LinkState.LIVE and len(b.shown) > before + 10, 1.5)
        await asyncio.sleep(3)
        assert a.link.sequence is sequence
        assert b.link.stats().sources >= sources
        assert not b.link.stats().dropped.get("sources")

    call(case)


def test_a_peer_that_starts_anew():
    """The program on the other side was restarted: its stream is another one, and everything begins again."""

    async def case(a: End, b: End) -> None:
        await asyncio.sleep(6)
        await a.close()
        ours, theirs = connection_pair(Path(), Path(seed=2))
        again = End(ours)
        again.film()
        b.connection = theirs
        b.link.replace_connection(theirs)  # type: ignore[arg-type]
        before = len(b.shown)
        for connection in (ours, theirs):
            await connection.start()
        await until(lambda: len(b.shown) > before + 30 and len(again.shown) > 30, 4)
        assert worst_error(b, [b.shown[-1][1]]) < 4
        await again.close()

    call(case)


def test_a_peer_with_another_model():
    async def work() -> None:
        ends = [End(c) for c in connection_pair(Path(), Path(seed=2))]

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

    simulate(work())


def test_damaged_sources_lead_to_a_fresh_sequence():
    async def case(a: End, b: End) -> None:
        await asyncio.sleep(5)
        sequence = a.link.sequence
        assert sequence is not None
        index = a.link._sources_out.index
        forged = SourceChunk(sequence.number, index, False, 40, 0, bytes(40))
        a.link._send(SOURCE_CHANNEL, forged.to_bytes())
        await asyncio.sleep(6)
        assert b.link.stats().dropped["sources"] == 1
        assert b.link._assembler.sequence is not None
        assert b.link.state == LinkState.LIVE
        await until(lambda: a.link.backlog() == 0, 10)

    call(case)


def test_forged_messages_are_dropped_and_counted_and_the_call_goes_on():
    async def case(a: End, b: End) -> None:
        await asyncio.sleep(4)
        rng = np.random.default_rng(6)
        newest = b.link._motion_in._newest
        assert newest is not None
        stamp = round(1000 * newest[1])
        good = a.link._motion_out
        payload = good._encoder.pack(good._taken - 1, 1).payload
        attacks = {
            "too large": [(MOTION_CHANNEL, bytes(5000)), (SOURCE_CHANNEL, bytes(3000))],
            "malformed": [(channel, rng.bytes(60)) for channel in (1, 2, 3) for _ in range(10)],
            "implausible": [
                (MOTION_CHANNEL, MotionMessage(9, (stamp,), 0, None, MotionPacket(10**9, 1, None, payload)).to_bytes()),
                (MOTION_CHANNEL, MotionMessage(9, (10**9,), 0, None, MotionPacket(99, 1, None, payload)).to_bytes()),
            ],
            "out of sequence": [(SOURCE_CHANNEL, SourceChunk(7, 3, False, 65536, 0, b"x" * 900).to_bytes())],
            "wrong channel": [(MOTION_CHANNEL, control_to_bytes(Hello(1, b"stubstub", 0, 0, None, 0)))],
        }
        for messages in attacks.values():
            for channel, data in messages:
                a.link._send(channel, data)
        await asyncio.sleep(3)
        dropped = b.link.stats().dropped
        assert dropped["too large"] == 2
        assert dropped["implausible"] == 2
        assert dropped["wrong channel"] == 1
        assert dropped["malformed"] >= 15  # some random bytes are a message of something else
        assert dropped["out of sequence"] >= 1
        assert b.link.state == LinkState.LIVE
        assert b.link.stats().frames_per_s == pytest.approx(FPS, abs=2)
        assert worst_error(b, [b.shown[-1][1]]) < 4

    call(case)


def test_replays_are_dropped():
    async def case(a: End, b: End) -> None:
        sent: list[bytes] = []
        channel = a.link._channels[MOTION_CHANNEL]
        send = channel.send
        channel.send = lambda data: (sent.append(data), send(data))  # type: ignore[method-assign,func-returns-value]
        await asyncio.sleep(6)
        motion = [data for data in sent if data[0] < 0x80]
        for data in motion[-30:]:
            send(data)
        await asyncio.sleep(2)
        assert b.link.stats().dropped["replayed"] == 30
        assert b.link.stats().loss == 0
        assert b.link.state == LinkState.LIVE

    call(case)


def test_replayed_control_messages_and_sources_are_harmless():
    """Everything that is not motion, once more, in the middle of a call: no picture is lost, nothing is taken back."""

    async def case(a: End, b: End) -> None:
        sent: list[tuple[int, bytes]] = []
        sends = {}
        for channel_id, channel in a.link._channels.items():
            sends[channel_id] = send = channel.send

            def noting(data: bytes, channel_id: int = channel_id, send: Any = send) -> None:
                if channel_id != MOTION_CHANNEL or data[0] >= 0x80:
                    sent.append((channel_id, data))
                send(data)

            channel.send = noting  # type: ignore[method-assign,assignment]
        await asyncio.sleep(8)
        kinds = {(channel_id, data[0] if channel_id != SOURCE_CHANNEL else 0) for channel_id, data in sent}
        assert len(kinds) == 5  # Report, Hello, Status, SourceAck, and chunks
        sources, loss = b.link.stats().sources, b.link.stats().loss
        again, since = list(sent), asyncio.get_running_loop().time()
        for channel_id, data in again:
            sends[channel_id](data)
            await asyncio.sleep(0.02)
        await asyncio.sleep(6)
        dropped = b.link.stats().dropped
        assert dropped["replayed"] >= len([1 for channel_id, data in again if data[0] == 0x80])
        assert not {"out of sequence", "sources", "malformed", "implausible"} & {k for k, n in dropped.items() if n}
        assert b.link.stats().sources >= sources
        assert b.link.stats().loss == loss == 0
        for end in (a, b):
            assert end.link.state == LinkState.LIVE
            assert end.link.has_picture
            assert end.link._sending() == LADDER[0]
            assert end.link.stats().frames_per_s == pytest.approx(FPS, abs=2)
            assert worst_error(end, end.between(since, 1e9)) < 4
            gaps = np.diff([at for at, _ in end.shown if at > since])
            assert gaps.max() < 0.2

    call(case)


def test_a_peer_that_asks_for_fresh_sequences_all_the_time():
    """Each of them costs pictures to be coded: there is one a second at most."""

    async def case(a: End, b: End) -> None:
        await asyncio.sleep(4)
        hello = Hello(a.link._peer.protocol, b"stubstub", a.link._peer.tables, a.link._peer.stream, None, 0)
        seen = set()
        for _ in range(100):
            b.link._send_control(hello)
            await asyncio.sleep(0.1)
            seen.add(a.feed._sequence.number)
        assert 2 <= len(seen) <= 12
        await asyncio.sleep(4)
        assert b.link.state == LinkState.LIVE

    call(case)


@pytest.mark.parametrize("channel_id", [MOTION_CHANNEL, SOURCE_CHANNEL, CONTROL_CHANNEL])
@pytest.mark.parametrize("data", [b"", b"\x00", b"\x80", b"\xff\x01\x02"])
def test_a_million_tiny_messages_cost_next_to_nothing(channel_id: int, data: bytes):
    """All at once, and then some each millisecond: a few are looked at, all are counted, none is kept."""

    async def case(a: End, b: End) -> None:
        await asyncio.sleep(3)
        link, channel = b.link, b.link._channels[channel_id]
        before, kept = sum(link.stats().dropped.values()), memory(link)
        began = time.process_time()
        for _ in range(1000):
            for _ in range(83):  # times the 12 cases: a million
                link._receive(channel, channel_id, data)
            await asyncio.sleep(0.001)
        assert time.process_time() - began < 20
        assert sum(link.stats().dropped.values()) - before >= 83_000  # and of the peer what came meanwhile
        assert link.stats().dropped["flood"] > 80_000
        assert memory(link) == pytest.approx(kept, abs=200)
        await asyncio.sleep(3)
        assert link.state == LinkState.LIVE

    call(case)


def memory(link: Link) -> int:
    """Things that a link keeps of its peer."""
    motion, assembler = link._motion_in, link._assembler
    kept = (motion.playout._waiting, motion.playout._seen, motion.playout._transits, motion._seen, motion.dropped)
    return sum(map(len, (*kept, assembler._part, assembler.dropped, link._early, link._dropped))) + link._units.qsize()


def test_a_flood_of_tiny_messages():
    """Thousands a second are dropped before anything looks at them, and memory does not grow."""

    async def case(a: End, b: End) -> None:
        await asyncio.sleep(3)
        for _ in range(40):
            for _ in range(250):
                a.link._send(CONTROL_CHANNEL, b"\x80")
                a.link._send(SOURCE_CHANNEL, b"\x00")
            await asyncio.sleep(0.1)
        await asyncio.sleep(3)
        stats = b.link.stats()
        assert stats.dropped["flood"] > 15_000
        assert len(b.link._assembler._part) == 0
        assert b.link._units.qsize() == 0
        assert b.link.state == LinkState.LIVE

    call(case, Path(kbps=100_000))
