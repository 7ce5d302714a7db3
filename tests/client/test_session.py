"""A call from the command line: missing devices, signals."""

import asyncio
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("websockets")
from iwcodec.client import session
from iwcodec.client.audio.speaker import Speaker
from iwcodec.codec.errors import CodecError

pytestmark = pytest.mark.realtime

URL = "http://127.0.0.1:1/r/blue"


class AudioDouble:
    """In place of a call and of its audio sender."""

    muted = False

    def push(self, samples: np.ndarray, captured_s: float) -> None:
        pass

    def mute(self, on: bool) -> None:
        self.muted = on


def test_without_a_microphone_the_call_is_muted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    call = AudioDouble()
    options = session.CallOptions(URL, "me")
    assert session.start_audio_capture(options, None, AudioDouble(), Speaker(), call) is None
    assert call.muted
    with pytest.raises(CodecError, match="pip install sounddevice"):
        session.start_audio_capture(session.CallOptions(URL, "me", mic="0"), None, AudioDouble(), Speaker(), call)


def test_ctrl_c_leaves_without_signal_support_of_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows."""
    left = asyncio.Event()

    async def leave() -> None:
        left.set()

    def none(*_: Any) -> None:
        raise NotImplementedError

    async def work() -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "add_signal_handler", none)
        monkeypatch.setattr(asyncio.get_running_loop(), "remove_signal_handler", none)
        with session.leave_on_signals(SimpleNamespace(leave=leave)):
            signal.raise_signal(signal.SIGINT)
            await asyncio.wait_for(left.wait(), 10)

    before = signal.getsignal(signal.SIGINT)
    asyncio.run(work())
    assert signal.getsignal(signal.SIGINT) is before


def test_without_video_no_camera_is_opened(monkeypatch: pytest.MonkeyPatch, face_clip: Path) -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("the camera was opened")

    monkeypatch.setattr(session, "Camera", refuse)
    assert session.open_pictures(session.CallOptions(URL, "me", no_video=True), 256, print) == (None, None, None)
    options = session.CallOptions(URL, "me", video=face_clip, no_video=True)
    pictures, clip, camera = session.open_pictures(options, 256, print)
    assert (pictures, clip.path, camera) == (None, face_clip, None)
