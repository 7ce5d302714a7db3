"""A call from the command line: devices that are missing, what a headless call says, keys in the window."""

import asyncio
import json
import signal
import sys
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

for needed in ("aiortc", "websockets"):
    pytest.importorskip(needed)
from iwcodec.benchmarks.call.simulation import simulate
from iwcodec.client import session
from iwcodec.client.audio.track import SoundCount
from iwcodec.client.room.call import CallState
from iwcodec.client.video.link import LinkState, LinkStats
from iwcodec.codec.errors import CodecError

pytestmark = pytest.mark.realtime

URL = "http://127.0.0.1:1/r/blue"


class Silent:
    muted = False

    def push(self, samples: np.ndarray, captured_s: float) -> None:
        pass

    def mute(self, on: bool) -> None:
        self.muted = on


def test_without_a_microphone_one_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    call = Silent()
    options = session.CallOptions(URL, "me")
    session.listen(options, None, Silent(), call).close()  # type: ignore[arg-type]
    assert call.muted
    with pytest.raises(CodecError, match="pip install sounddevice"):
        session.listen(session.CallOptions(URL, "me", mic="0"), None, Silent(), call)  # type: ignore[arg-type]


def test_a_headless_call_says_what_changes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    stats = LinkStats({"total": 9.0}, {"total": 8.0}, 20.0, 150.0, 0.0, 2, {})
    ada = SimpleNamespace(name="Ada", state=LinkState.CONNECTING, stats=lambda: stats, playout=None)
    call: Any = SimpleNamespace(state=CallState.WAITING, participants={})
    said: list[str] = []
    monkeypatch.setattr(session.console, "print", lambda *texts, **_: said.append(" ".join(map(str, texts))))
    changes = [
        lambda: None,
        lambda: call.__dict__.update(state=CallState.TALKING, participants={"a": ada}),
        lambda: ada.__dict__.update(state=LinkState.LIVE),
    ]

    async def sleep(seconds: float) -> None:
        if not changes:
            raise asyncio.CancelledError
        changes.pop(0)()

    monkeypatch.setattr(session.asyncio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(session.report(call))
    assert said == ["waiting for others", "in the call; Ada: connecting", "in the call; Ada: live"]


def test_a_headless_call_says_figures_to_machines(capsys: pytest.CaptureFixture[str]) -> None:
    stats = LinkStats({"total": 9.0}, {"total": 8.0}, 20.0, 150.0, 0.0, 2, {}, {"units_to_send": 1})
    sound, count = SimpleNamespace(wait_s=0.2), SoundCount()
    count.sent.add(2500, time.monotonic())
    ada = SimpleNamespace(name="Ada", state=LinkState.LIVE, stats=lambda: stats, playout=sound, sound=count)
    bob = SimpleNamespace(name="Bob", state=LinkState.CONNECTING, stats=lambda: None, playout=None)
    call: Any = SimpleNamespace(state=CallState.TALKING, participants={"a": ada, "b": bob})
    session.say_figures(call, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["state"] == "in the call"
    assert told["participants"][0]["queued"] == {"units_to_send": 1}
    assert told["participants"][0]["sound_waits_ms"] == pytest.approx(200)
    assert told["participants"][0]["picture_kbps"] == {"sent": 9.0, "received": 8.0}
    assert told["participants"][0]["sound_kbps"] == {"sent": 10.0, "received": 0.0}
    assert told["participants"][0]["all_kbps"] == {"sent": 19.0, "received": 8.0}
    assert told["participants"][1] == {"name": "Bob", "state": "connecting"}


class Window:
    def __init__(self, *keys: list[str]) -> None:
        self.to_press = list(keys)
        self.shown: list[Any] = []

    def pressed(self) -> list[str]:
        return self.to_press.pop(0)

    def show(self, scene: Any) -> None:
        self.shown.append(scene)


def test_keys_in_the_window() -> None:
    stats = LinkStats({"total": 9.0}, {"total": 8.0}, 20.0, 150.0, 0.0, 2, {})
    ada = SimpleNamespace(name="Ada", state=LinkState.LIVE, stats=lambda: stats, playout=None, shown=None)
    call: Any = SimpleNamespace(
        state=CallState.TALKING, participants={"a": ada}, notices=[], muted=False, camera_off=False, watchers=[]
    )
    call.mute = lambda on: setattr(call, "muted", on)
    call.signalling = SimpleNamespace(name="me")
    window = Window([], ["i"], ["i", "m"], ["q"])
    asyncio.run(session.show(call, SimpleNamespace(preview=None), window))  # type: ignore[arg-type]
    assert [bool(scene.tiles[0].details) for scene in window.shown] == [False, True, False]
    assert call.muted


@pytest.mark.parametrize("apart_s", [0.04, 0.004])
def test_pictures_are_drawn_as_they_come(apart_s: float) -> None:
    """At 25 a second they do not wait at all; where many people's come, the screen sets the pace."""
    call: Any = SimpleNamespace(
        state=CallState.TALKING, participants={}, notices=[], muted=False, camera_off=False, watchers=[]
    )
    call.signalling = SimpleNamespace(name="me")
    came, waited, drawings = [], [], []

    class Drawn(Window):
        def pressed(self) -> list[str]:
            return []

        def show(self, scene: Any) -> None:
            now = asyncio.get_running_loop().time()
            drawings.append(now)
            waited.extend(now - at for at in came)
            came.clear()

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        showing = asyncio.create_task(session.show(call, SimpleNamespace(preview=None), Drawn()))  # type: ignore[arg-type]
        await asyncio.sleep(0.0123)
        for _ in range(200):
            await asyncio.sleep(apart_s)
            came.append(loop.time())
            call.watchers[0](None, None)
        await asyncio.sleep(0.5)
        showing.cancel()

    simulate(scenario())
    assert len(waited) == 200
    assert max(waited) <= session.MIN_DRAW_S + 1e-6
    if apart_s > session.DRAW_S:
        assert max(waited) < 0.001
    assert np.diff(drawings).max() < session.DRAW_S + 1e-6
    assert len(drawings) < 1.1 * (drawings[-1] - drawings[0]) / session.MIN_DRAW_S


def test_ctrl_c_leaves_where_loops_take_no_signals_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows."""
    left = asyncio.Event()

    async def leave() -> None:
        left.set()

    def none(*_: Any) -> None:
        raise NotImplementedError

    async def work() -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "add_signal_handler", none)
        monkeypatch.setattr(asyncio.get_running_loop(), "remove_signal_handler", none)
        with session.interrupts(SimpleNamespace(leave=leave)):  # type: ignore[arg-type]
            signal.raise_signal(signal.SIGINT)
            await asyncio.wait_for(left.wait(), 10)

    before = signal.getsignal(signal.SIGINT)
    asyncio.run(work())
    assert signal.getsignal(signal.SIGINT) is before
