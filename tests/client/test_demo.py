"""`iwcodec demo-call`: a whole call with the real network, and what is made of it."""

import asyncio
import json
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

for needed in ("aiortc", "fastapi", "uvicorn", "websockets"):
    pytest.importorskip(needed)
from call_rooms import rooms
from iwcodec.client import demo
from iwcodec.client.video.capture import Taken
from iwcodec.client.video.link import LinkState, LinkStats, Shown
from iwcodec.codec.errors import CodecError
from iwcodec.codec.media.audio import read_samples
from iwcodec.codec.media.video import probe
from sounds import RATE

pytestmark = pytest.mark.realtime

FIGURES = LinkStats({"total": 9.0}, {"motion": 2.0, "total": 8.0}, 24.0, 100.0, 0.1, 3, {})


def test_two_real_clients_see_and_hear_each_other(face_clip: Path) -> None:
    """Camera, detector, coder, data channels, network, play-out and Opus, both ways."""

    async def scenario() -> list[demo.Side]:
        async with rooms() as server:
            return await demo.converse(f"http://127.0.0.1:{server.port}/r/blue", face_clip, 1.5, True, lambda *_: None)

    for side in asyncio.run(scenario()):
        seen = [shown.picture for _, shown in side.seen]
        assert len({picture.tobytes() for picture in seen}) > 1
        assert seen[-1].shape == (256, 256, 3)
        assert max(np.abs(block.astype(int)).max() for _, block in side.heard) > 1000
        figures = side.statistics()
        assert figures["picture_delay_p50_ms"] > 0
        assert 1 < figures["all_sent_kbps"] < 100
        assert figures["sources"] >= 1


def side(name: str, sound: bool = True, behind_s: float = 0.2) -> demo.Side:
    """Two seconds at 10 frames/s from the instant 50, seen 0.1 s later, heard `behind_s` later."""
    made = demo.Side(name, None, None, None, joined_s=49.0, began_s=50.0)  # type: ignore[arg-type]
    for n in range(20):
        picture = np.full((64, 64, 3), 10 * n, np.uint8)
        made.filmed.append(Taken(picture, 50 + n / 10))
        made.seen.append((50.1 + n / 10, Shown(n, picture, 50.1 + n / 10, 0.1, LinkState.LIVE)))
    made.looks = [FIGURES, FIGURES]
    made.wire = [(50.0, 1000.0), (52.0, 6000.0)]
    if sound:
        made.spoken_s = [49.5, 50.1, 51.0, 51.9]
        times = 49.0 + np.arange(3 * RATE) / RATE
        track = np.zeros(len(times), np.int16)
        for spoken in made.spoken_s[:2] + made.spoken_s[3:]:
            track[(times >= spoken + behind_s) & (times < spoken + behind_s + 0.12)] = 8000
        made.heard = [(49.0 + at / RATE, track[at : at + 960]) for at in range(0, len(track), 960)]
    return made


def test_statistics() -> None:
    assert side("Ada").statistics() == {
        "first_picture_s": 1.1,
        "frames_per_s": 10.0,
        "picture_delay_p50_ms": 100,
        "picture_delay_p95_ms": 100,
        "sound_delay_p50_ms": pytest.approx(200, abs=6),
        "sound_ahead_ms": pytest.approx(-100, abs=6),
        # The first was before the measurement began, the third was not heard, the last was too near its end.
        "tones_heard": "1 of 2",
        "sources": 3,
        "motion_lost": 0.1,
        "all_sent_kbps": 20.0,
        "picture_received_kbps": {"motion": 2.0, "total": 8.0},
    }


def test_statistics_without_sound_or_pictures() -> None:
    silent = side("Ada", sound=False).statistics()
    assert (silent["sound_delay_p50_ms"], silent["sound_ahead_ms"], silent["tones_heard"]) == (None, None, None)
    blind = demo.Side("Ada", None, None, None).statistics()  # type: ignore[arg-type]
    assert blind["first_picture_s"] is None


def test_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, face_clip: Path) -> None:
    async def converse(*_: Any) -> list[demo.Side]:
        return [side("Ada"), side("Bob")]

    monkeypatch.setattr(demo, "converse", converse)
    monkeypatch.setattr(demo, "server", lambda: nullcontext("http://127.0.0.1:1"))
    out = tmp_path / "out"
    demo.run(out, face_clip, 2.0, True, True)
    assert sorted(path.name for path in out.iterdir()) == ["contact_sheet.png", "side_by_side.mp4", "statistics.json"]
    info = probe(out / "side_by_side.mp4")
    assert (info.width, info.height, info.frames) == (256, 92, 50)
    assert np.abs(np.concatenate(list(read_samples(out / "side_by_side.mp4"))).astype(int)).max() > 4000
    assert list(json.loads((out / "statistics.json").read_text())["sides"]) == ["Ada", "Bob"]
    sheet = cv2.imread(str(out / "contact_sheet.png"))
    assert sheet.shape == (demo.LABEL + demo.ROWS * 64, 4 * 64, 3)
    last = sheet[-32, [32, 96], 0].astype(int)
    assert last[0] - last[1] == pytest.approx(10, abs=2)  # one frame behind


def test_a_server_of_our_own() -> None:
    with demo.server() as address:
        assert address.startswith("http://127.0.0.1:")


def test_nobody_seen_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "JOIN_S", 0.1)

    alone = SimpleNamespace(participants={})
    waiting = demo.Side("Ada", alone, None, None)  # type: ignore[arg-type]
    with pytest.raises(CodecError, match=r"No pictures came within 0 s \(nobody met\)"):
        asyncio.run(demo.first_pictures([waiting], [], lambda *_: None))


def test_a_call_that_fails_is_not_waited_for() -> None:
    async def scenario() -> None:
        async def fail() -> None:
            raise CodecError("The room is full.")

        waiting = demo.Side("Ada", None, None, None)  # type: ignore[arg-type]
        await demo.first_pictures([waiting], [asyncio.create_task(fail())], lambda *_: None)

    began = time.monotonic()
    with pytest.raises(CodecError, match="The room is full"):
        asyncio.run(scenario())
    assert time.monotonic() - began < demo.JOIN_S
