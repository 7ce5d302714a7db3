"""Capture of sound from clips and microphones."""

import asyncio
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from iwcodec.client.audio import capture as c
from iwcodec.client.video.capture import Clip, Device
from iwcodec.codec.errors import CodecError

pytestmark = pytest.mark.realtime


def test_clip_sound_reaches_the_event_loop(face_clip: Path) -> None:
    async def record() -> list[tuple[int, float]]:
        heard: list[tuple[int, float]] = []
        enough = asyncio.Event()

        def listen(block: np.ndarray, captured_s: float) -> None:
            heard.append((len(block), captured_s))
            if len(heard) == 5:
                enough.set()

        source = c.ClipSound(Clip(face_clip), listen)
        await asyncio.wait_for(enough.wait(), 20)
        source.close()
        return heard

    heard = asyncio.run(record())
    assert [count for count, _ in heard[:5]] == [960] * 5


def test_microphone(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: dict[str, Any] = {}

    class Stream:
        def __init__(self, *arguments: Any, **options: Any) -> None:
            opened.update(options)

        def start(self) -> None:
            times = SimpleNamespace(currentTime=5.0, inputBufferAdcTime=4.9)
            opened["callback"](np.full((960, 1), 7, np.int16), 960, times, None)

        def stop(self) -> None:
            pass

        close = stop

    devices = [
        {"name": "Line", "max_input_channels": 0, "index": 0},
        {"name": "Mic", "max_input_channels": 2, "index": 4},
    ]
    monkeypatch.setitem(sys.modules, "sounddevice", SimpleNamespace(InputStream=Stream, query_devices=lambda: devices))
    assert c.list_microphones() == [Device(0, "Mic", "4")]

    async def record() -> list[Any]:
        heard: list[Any] = []
        source = c.MicrophoneSound(c.list_microphones()[0], lambda block, at: heard.append((block, at)))
        await asyncio.sleep(0.01)
        source.close()
        return heard

    now = time.monotonic()
    ((block, captured_s),) = asyncio.run(record())
    assert opened["device"] == 4
    assert block.tolist() == [7] * 960
    assert now - 0.1 <= captured_s < time.monotonic()


def test_microphone_that_cannot_be_used_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("Device unavailable")

    monkeypatch.setitem(sys.modules, "sounddevice", SimpleNamespace(InputStream=fail))

    async def record() -> None:
        with pytest.raises(CodecError, match="microphone cannot be used: Device unavailable"):
            c.MicrophoneSound(None, lambda block, at: None)

    asyncio.run(record())
