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


async def test_clip_sound_reaches_the_event_loop(face_clip: Path) -> None:
    heard: asyncio.Queue[int] = asyncio.Queue()
    source = c.ClipSound(Clip(face_clip), lambda block, captured_s: heard.put_nowait(len(block)))
    assert [await heard.get() for _ in range(5)] == [960] * 5
    source.close()


async def test_microphone(monkeypatch: pytest.MonkeyPatch) -> None:
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
    heard: list[Any] = []
    now = time.monotonic()
    source = c.MicrophoneSound(c.list_microphones()[0], lambda block, at: heard.append((block, at)))
    await asyncio.sleep(0.01)
    source.close()
    ((block, captured_s),) = heard
    assert opened["device"] == 4
    assert block.tolist() == [7] * 960
    assert now - 0.1 <= captured_s < time.monotonic()


async def test_microphone_that_cannot_be_used_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("Device unavailable")

    monkeypatch.setitem(sys.modules, "sounddevice", SimpleNamespace(InputStream=fail))
    with pytest.raises(CodecError, match="microphone cannot be used: Device unavailable"):
        c.MicrophoneSound(None, lambda block, at: None)
