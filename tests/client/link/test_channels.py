"""Rate limits of the data channels: floods of messages cost little time and no memory."""

import asyncio
import time

import pytest

from iwcodec.benchmarks.call.simulation import SimulatedPath
from iwcodec.client.link import conduct
from iwcodec.client.link.link import Link
from iwcodec.client.link.link_state import LinkState
from iwcodec.client.link.messages import CONTROL_CHANNEL, MOTION_CHANNEL, SOURCE_CHANNEL
from support.calls.links import calling

pytestmark = pytest.mark.simulated


@pytest.mark.parametrize("channel_id", [MOTION_CHANNEL, SOURCE_CHANNEL, CONTROL_CHANNEL])
async def test_a_quarter_of_a_million_tiny_messages_cost_little(
    channel_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """83 messages each millisecond: a few are parsed, all are counted, none is kept."""
    monkeypatch.setattr(conduct, "IGNORED_S", 1.0)
    tiny = [b"", b"\x00", b"\x80", b"\xff\x01\x02"]
    async with calling() as (_, b):
        await asyncio.sleep(3)
        link = b.link
        before, kept = sum(link.stats().dropped.values()), memory(link)
        began = time.process_time()
        for n in range(1000):
            for _ in range(83):  # with the three channels: a quarter of a million
                link._channels.receive(channel_id, tiny[n % 4])
            await asyncio.sleep(0.001)
        assert time.process_time() - began < 20
        assert sum(link.stats().dropped.values()) - before >= 83_000  # the peer sends, too
        assert link.stats().dropped["flood"] > 80_000
        assert memory(link) == pytest.approx(kept, abs=200)
        assert link.state == LinkState.IGNORED
        await asyncio.sleep(3)
        assert link.state == LinkState.LIVE


def memory(link: Link) -> int:
    """Number of items that a link keeps of its peer."""
    motion, assembler = link.incoming.motion, link.incoming.assembler
    kept = (
        motion.jitter_buffer._waiting,
        motion.jitter_buffer._known,
        motion.jitter_buffer._transits,
        motion._recent,
        motion.dropped,
    )
    return (
        sum(map(len, (*kept, assembler._part, assembler.dropped, link._early, link._dropped)))
        + link.incoming.units_to_decode
    )


async def test_flood_of_tiny_messages_over_a_fast_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands per second are dropped unparsed, and memory does not grow."""
    monkeypatch.setattr(conduct, "IGNORED_S", 2.0)
    async with calling(SimulatedPath(kbps=100_000)) as (a, b):
        await asyncio.sleep(3)
        for _ in range(20):
            for _ in range(250):
                a.link._channels.send(CONTROL_CHANNEL, b"\x80")
                a.link._channels.send(SOURCE_CHANNEL, b"\x00")
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.5)
        stats = b.link.stats()
        assert stats.dropped["flood"] > 7_500
        assert len(b.link.incoming.assembler._part) == 0
        assert b.link.incoming.units_to_decode == 0
        assert b.link.state == LinkState.IGNORED
        await asyncio.sleep(3)
        assert b.link.state == LinkState.LIVE
