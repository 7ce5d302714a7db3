"""The replayed end of a call: what was recorded is sent again, at its time."""

import asyncio
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from iwcodec.benchmarks.call.participants import DeferredReconstruction
from iwcodec.benchmarks.call.replay import ReplayingSender
from iwcodec.benchmarks.call.simulation import ImmediateExecutor
from iwcodec.client.recording.recorder import Recorder
from iwcodec.client.video.jitter_buffer import TimedFrame
from iwcodec.client.video.video_sender import OutgoingFrame
from iwcodec.codec.bitstream.packets import SourcePacket
from support.codec.stub_runtime import StubRuntime


@pytest.mark.simulated
async def test_sources_are_sent_once_and_frames_over_and_over(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "ada.iwc", StubRuntime.info, audio=False)
    keypoints = np.zeros((20, 3), np.float32)
    recorder.source(SourcePacket(3, b"first"))
    recorder.motion([TimedFrame(0, 0.0, keypoints, 3), TimedFrame(1, 0.04, keypoints, 3)], 1.0)
    recorder.source(SourcePacket(4, b"variant", base=3))
    recorder.motion([TimedFrame(2, 0.08, keypoints, 3, (4, None))], 1.1)
    recorder.close()
    taken: list[OutgoingFrame] = []
    link: Any = SimpleNamespace(take=taken.append)
    sender = ReplayingSender(DeferredReconstruction(StubRuntime()), ImmediateExecutor())
    assert await sender.sequence_for_newcomer() is None
    playing = asyncio.create_task(sender.play(tmp_path / "ada.iwc"))
    await asyncio.sleep(1.0)
    assert not taken  # nobody is there
    sender.join(link)
    await asyncio.sleep(0.27)
    playing.cancel()
    with suppress(asyncio.CancelledError):
        await playing
    sequence = await sender.sequence_for_newcomer()
    stamps = [frame.stamp_ms - taken[0].stamp_ms for frame in taken]
    assert stamps == [0, 40, 80, 120, 160, 200]
    assert [frame.reference_source for frame in taken] == [0] * 6
    assert [frame.regions for frame in taken] == 2 * [(), (), (1, None)]
    packets = [SourcePacket.from_bytes(sequence.units[n].packet) for n in range(sequence.next)]
    assert packets == [SourcePacket(0, b"first"), SourcePacket(1, b"variant", base=0)]
