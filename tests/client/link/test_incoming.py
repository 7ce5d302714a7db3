"""The receiving half of a link against damaged, forged and replayed messages."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from iwcodec.benchmarks.call.simulation import ImmediateExecutor
from iwcodec.client.link import conduct
from iwcodec.client.link.congestion_control import LADDER
from iwcodec.client.link.incoming import RENDER_BURST, RENDERED_PER_S, SOURCE_BURST, SOURCES_PER_S
from iwcodec.client.link.link import STREAM_BURST
from iwcodec.client.link.link_state import LinkState
from iwcodec.client.link.messages import (
    CONTROL_CHANNEL,
    MOTION_CHANNEL,
    PROTOCOL,
    SOURCE_CHANNEL,
    Hello,
    MotionMessage,
    SourceChunk,
    control_to_bytes,
)
from iwcodec.client.link.receive import FRAME_BURST, FRAMES_PER_S
from iwcodec.client.video.jitter_buffer import DueFrame, TimedFrame
from iwcodec.codec.bitstream.packets import MotionPacket, SourcePacket
from iwcodec.codec.motion.encoder import MotionEncoder
from support.calls.links import FPS, End, calling, until, worst_error
from support.codec.stub_runtime import StubRuntime, picture

pytestmark = pytest.mark.simulated


async def test_damaged_sources_lead_to_a_fresh_sequence() -> None:
    async with calling() as (a, b):
        await asyncio.sleep(5)
        sequence = a.link.outgoing.sequence
        index = a.link.outgoing.sources.index
        forged = SourceChunk(sequence.number, index, False, 40, 0, bytes(40))
        a.link._channels.send(SOURCE_CHANNEL, forged.to_bytes())
        await asyncio.sleep(6)
        assert b.link.stats().dropped["sources"] == 1
        assert b.link.incoming.assembler.sequence is not None
        assert b.link.state == LinkState.LIVE
        await until(lambda: a.link.outgoing.backlog() == 0, 10)


async def test_forged_messages_are_dropped_and_counted() -> None:
    async with calling() as (a, b):
        await asyncio.sleep(4)
        rng = np.random.default_rng(6)
        newest = b.link.incoming.motion._newest
        stamp = round(1000 * newest[1])
        good = a.link.outgoing.motion
        payload = good._encoder.pack(good._count - 1, 1).payload
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
                a.link._channels.send(channel, data)
        await asyncio.sleep(3)
        dropped = b.link.stats().dropped
        assert dropped["too large"] == 2
        assert dropped["implausible"] == 2
        assert dropped["wrong channel"] == 1
        assert dropped["malformed"] >= 15  # some random bytes are valid messages
        assert dropped["out of sequence"] >= 1
        assert b.link.state == LinkState.LIVE
        assert b.link.stats().frames_per_s == pytest.approx(FPS, abs=2)
        assert worst_error(b, [b.shown[-1][1]]) < 4


async def test_replayed_motion_is_dropped() -> None:
    async with calling() as (a, b):
        sent: list[bytes] = []
        channel = a.link._channels.by_id[MOTION_CHANNEL]
        send = channel.send
        channel.send = lambda data: (sent.append(data), send(data))
        await asyncio.sleep(6)
        motion = [data for data in sent if data[0] < 0x80]
        for data in motion[-30:]:
            send(data)
        await asyncio.sleep(2)
        assert b.link.stats().dropped["replayed"] == 30
        assert b.link.stats().loss == 0
        assert b.link.state == LinkState.LIVE


async def test_replayed_control_messages_and_sources_are_harmless() -> None:
    """All messages but motion are repeated in the middle of a call: no picture is lost, and no state goes back."""
    async with calling() as (a, b):
        sent: list[tuple[int, bytes]] = []
        sends = {}
        for channel_id, channel in a.link._channels.by_id.items():
            sends[channel_id] = send = channel.send

            def record(data: bytes, channel_id: int = channel_id, send: Any = send) -> None:
                if channel_id != MOTION_CHANNEL or data[0] >= 0x80:
                    sent.append((channel_id, data))
                send(data)

            channel.send = record
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
            assert end.link.outgoing.has_picture
            assert end.link.outgoing.parameters() == LADDER[0]
            assert end.link.stats().frames_per_s == pytest.approx(FPS, abs=2)
            assert worst_error(end, end.between(since, 1e9)) < 4
            gaps = np.diff([at for at, _ in end.shown if at > since])
            assert gaps.max() < 0.2


async def test_regions_show_variants_and_one_without_its_base_does_no_harm() -> None:
    """Variants are taken from the sender's sequence; a frame that names what is missing shows its reference source."""

    async def nothing(*args: Any) -> None:
        pass

    async with calling() as (a, b):
        await asyncio.sleep(2)
        a.sender._judge = nothing
        await asyncio.sleep(1)
        sequence, incoming = a.link.outgoing.sequence, b.link.incoming
        base = min(sequence.numbers)
        sequence.add(picture(200), 1000, base)
        at, known = sequence.numbers[1000], len(incoming.library)
        await until(lambda: incoming.library.at(at) is not None, 5)
        assert len(incoming.library) == known + 1
        variant = incoming.library.at(at)
        assert all(variant is not source for source in incoming.library.sources())  # no frame is led by a variant
        incoming._units.put_nowait(
            (incoming.assembler, SourcePacket(at + 1, sequence._encoder.add(picture(90)), base=99), False)
        )
        await until(lambda: b.link.stats().dropped.get("variants") == 1, 5)
        assert b.link.state == LinkState.LIVE
        reference = incoming.library.sources()[0]
        slot = incoming.library.slot(reference)
        pictures = []
        for regions in ((at, None), (None, None), (9999, 9998)):
            frame = TimedFrame(0, 0.0, reference.keypoints, slot, regions)
            await incoming._render(DueFrame(frame, asyncio.get_running_loop().time(), False), 0.0)
            await asyncio.sleep(0.001)
            pictures.append(incoming._latest.picture)
        assert np.array_equal(pictures[1], pictures[2])
        assert not np.array_equal(pictures[0], pictures[1])


async def test_flood_of_motion_is_decoded_off_the_loop_and_within_budget(monkeypatch: pytest.MonkeyPatch):
    """A peer sends windows of 16 valid frames, 80 messages/s: each frame sixteen times over."""
    monkeypatch.setattr(conduct, "IGNORED_S", 2.0)
    async with calling() as (a, b):
        await asyncio.sleep(1.5)
        counts = Counter[str]()
        motion = b.link.incoming.motion
        decode = motion.decode

        def counted(message: MotionMessage) -> Any:
            counts["frames"] += message.packet.count
            return decode(message)

        class Counting(ImmediateExecutor):
            def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
                counts["jobs"] += 1
                return super().submit(fn, *args, **kwargs)

        motion.decode = counted
        b.link.incoming._motion_executor = Counting()
        encoder = MotionEncoder()
        for _ in range(16):
            encoder.push(np.full((20, 3), 0.3, np.float32))
        payload = encoder.pack(0, 16)
        first, stamp = motion.acknowledged or 0, round(1000 * (motion._newest or (0, 0.0))[1])
        a.filming.cancel()
        counts.clear()
        since = asyncio.get_running_loop().time()
        for n in range(120):
            packet = replace(payload, first=first + n)
            stamps = tuple(stamp + 13 * (n + k) for k in range(16))
            data = MotionMessage((a.link.outgoing.motion._sequence + n) & 0xFF, stamps, 0, None, packet).to_bytes()
            b.link._channels.receive(MOTION_CHANNEL, data)
            await asyncio.sleep(1 / 80)
        took_s = asyncio.get_running_loop().time() - since
        assert 0 < counts["frames"] <= FRAME_BURST + FRAMES_PER_S * took_s
        assert counts["jobs"] * 16 == counts["frames"]
        dropped = b.link.stats().dropped
        assert dropped["flood"] > conduct.TOLERATED
        assert dropped["flood"] + dropped["ignored"] > 80
        # Nothing of the peer is decoded or rendered for a while; then all is well again.
        assert b.link.state == LinkState.IGNORED
        shown = len(b.shown)
        await asyncio.sleep(1)
        assert len(b.shown) == shown
        a.film()
        # What was forged in its name, it must count past first.
        await until(lambda: b.link.state == LinkState.LIVE and len(b.shown) > shown + FPS, 20)


def forge_motion(a: End, b: End) -> Callable[[int, int, int], None]:
    """Stop a's film. Returns a function that gives b a valid message of one frame in a's name: the nth message, of the
    frame that is so many frames and milliseconds after the newest."""
    motion = b.link.incoming.motion
    first, stamp = 1 + (motion.acknowledged or 0), round(1000 * (motion._newest or (0, 0.0))[1])
    a.filming.cancel()

    def forge(n: int, frames: int, milliseconds: int) -> None:
        encoder = MotionEncoder()
        encoder.push(np.full((20, 3), 0.3, np.float32))
        packet = replace(encoder.pack(0, 1), first=first + frames)
        sequence = (a.link.outgoing.motion._sequence + n) & 0xFF
        message = MotionMessage(sequence, (stamp + milliseconds,), 0, None, packet)
        b.link._channels.receive(MOTION_CHANNEL, message.to_bytes())

    return forge


async def test_a_video_of_more_frames_than_cameras_have_is_not_shown():
    """Valid frames, 80 a second and within the budget of the decoder: each would cost a picture."""
    async with calling() as (a, b):
        await asyncio.sleep(1.5)
        forge, shown = forge_motion(a, b), len(b.shown)
        for n in range(400):
            forge(n, n, 12 * n)
            await asyncio.sleep(1 / 80)
        assert b.link.state == LinkState.IGNORED
        assert len(b.shown) - shown <= 5 * RENDERED_PER_S + RENDER_BURST


async def test_forged_numbers_and_times_do_not_cost_pictures():
    """Two frames a second, which leave so many numbers between them that hundreds would be interpolated."""
    async with calling() as (a, b):
        await asyncio.sleep(1.5)
        forge, shown = forge_motion(a, b), len(b.shown)
        for n in range(1, 12):
            forge(n, 120 * n, 480 * n)
            await asyncio.sleep(0.48)
        assert 100 < len(b.shown) - shown <= 5.3 * RENDERED_PER_S + RENDER_BURST
        assert b.link.stats().dropped["too many frames"] > 500


async def test_source_units_per_second_are_budgeted():
    """A peer sends tiny units as fast as the channel lets it: each would cost a decoding."""
    async with calling() as (a, b):
        await asyncio.sleep(1.5)
        incoming, decoded = b.link.incoming, []
        incoming._decode_source = lambda *_: decoded.append(1) or (picture(1), None)
        a.filming.cancel()
        sequence, since = incoming.assembler.sequence or 0, asyncio.get_running_loop().time()
        unit = SourcePacket(1, b"x").to_bytes()
        for _ in range(400):
            if incoming.assembler.sequence is None:
                sequence += 1
            index = incoming.assembler.index
            b.link._channels.receive(SOURCE_CHANNEL, SourceChunk(sequence, index, False, len(unit), 0, unit).to_bytes())
            await asyncio.sleep(1 / 200)
        took_s = asyncio.get_running_loop().time() - since
        assert 0 < len(decoded) <= SOURCE_BURST + SOURCES_PER_S * took_s + 1
        dropped = b.link.stats().dropped
        assert dropped["flood"] + dropped["ignored"] > 100


async def test_streams_that_a_peer_begins_are_budgeted():
    """A new stream discards decoders and budgets; a peer that begins one with every hello is ignored."""
    async with calling() as (_, b):
        await asyncio.sleep(1.5)
        receivers = set()
        for number in range(40):
            hello = Hello(PROTOCOL, StubRuntime.info.digest, b.link._tables, number, None, 0)
            b.link._channels.receive(CONTROL_CHANNEL, control_to_bytes(hello))
            receivers.add(b.link.incoming.motion)
            await asyncio.sleep(0.06)
        assert 1 < len(receivers) <= 1 + STREAM_BURST + 1
        assert b.link.stats().dropped["flood"] > 20
