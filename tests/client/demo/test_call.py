"""`iwcodec demo-call`: a whole call with the real network, and its outputs."""

import asyncio
import json
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from iwcodec.client.demo import call
from iwcodec.client.demo.measurement import Side
from iwcodec.codec.errors import CodecError
from support.calls.recorded_side import recorded_side
from support.calls.rooms import rooms

pytestmark = pytest.mark.realtime


async def test_two_real_clients_see_and_hear_each_other(face_clip: Path) -> None:
    """Camera, detector, coder, data channels, network, jitter buffers and Opus, both ways."""
    async with rooms() as server:
        sides = await call.hold_call(f"http://127.0.0.1:{server.port}/r/blue", face_clip, 1.5, True, lambda *_: None)
    for side in sides:
        seen = [frame.picture for _, frame in side.seen]
        assert len({picture.tobytes() for picture in seen}) > 1
        assert seen[-1].shape == (256, 256, 3)
        assert max(np.abs(block.astype(int)).max() for _, block in side.heard) > 1000
        statistics = side.statistics()
        assert statistics["picture_delay_p50_ms"] > 0
        assert 1 < statistics["all_sent_kbps"] < 100
        assert statistics["sources"] >= 1


def test_outputs_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, face_clip: Path) -> None:
    async def hold_call(*_: Any) -> list[Side]:
        return [recorded_side("Ada"), recorded_side("Bob")]

    monkeypatch.setattr(call, "hold_call", hold_call)
    monkeypatch.setattr(call, "local_server", lambda: nullcontext("http://127.0.0.1:1"))
    out = tmp_path / "out"
    _, sides = call.run_demo(out, face_clip, 2.0, True, True)
    assert [side.name for side in sides] == ["Ada", "Bob"]
    assert sorted(path.name for path in out.iterdir()) == ["contact_sheet.png", "side_by_side.mp4", "statistics.json"]
    assert list(json.loads((out / "statistics.json").read_text())["sides"]) == ["Ada", "Bob"]


def test_a_machine_that_shows_next_to_nothing_fails() -> None:
    ada, bob = recorded_side("Ada"), recorded_side("Bob")
    call.check_speed([ada, bob])
    bob.seen = bob.seen[:1]
    with pytest.raises(CodecError, match=r"Bob saw 0\.0 frames/s: this machine is too slow"):
        call.check_speed([ada, bob])


async def test_a_call_without_pictures_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call, "FIRST_PICTURE_TIMEOUT_S", 0.1)
    alone = SimpleNamespace(participants={})
    waiting = Side("Ada", alone, None, None)
    with pytest.raises(CodecError, match=r"No pictures arrived within 0 s \(the clients did not meet\)"):
        await call.first_pictures([waiting], [], lambda *_: None)


async def test_a_call_that_fails_raises_at_once() -> None:
    async def fail() -> None:
        raise CodecError("The room is full.")

    waiting = Side("Ada", None, None, None)
    began = time.monotonic()
    with pytest.raises(CodecError, match="The room is full"):
        await call.first_pictures([waiting], [asyncio.create_task(fail())], lambda *_: None)
    assert time.monotonic() - began < call.FIRST_PICTURE_TIMEOUT_S
