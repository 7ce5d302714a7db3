"""Output of a headless call, and keys in the window."""

import asyncio
import json
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("websockets")
from iwcodec.client import interface
from iwcodec.client.audio.transceiver import AudioTraffic
from iwcodec.client.link.link_state import LinkState, LinkStats
from iwcodec.client.room.call import CallState

pytestmark = pytest.mark.realtime

QUIET: dict[str, Any] = {"words": None, "silent_s": 0.0}


async def test_a_headless_call_prints_changes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stats = LinkStats({"total": 9.0}, {"total": 8.0}, 20.0, 150.0, 0.0, 2, {})
    ada = SimpleNamespace(name="Ada", state=LinkState.CONNECTING, stats=lambda: stats, audio_buffer=None, **QUIET)
    call: Any = SimpleNamespace(state=CallState.WAITING, participants={}, notices=[], notified=0)
    printed: list[str] = []
    monkeypatch.setattr(interface.console, "print", lambda *texts, **_: printed.append(" ".join(map(str, texts))))
    changes = [
        lambda: None,
        lambda: call.__dict__.update(state=CallState.TALKING, participants={"a": ada}),
        lambda: ada.__dict__.update(state=LinkState.LIVE),
        lambda: call.__dict__.update(notices=["Bob joined", "the room is locked"], notified=42),
        lambda: call.__dict__.update(notices=["Bob joined", "the room is locked", "Bob left"], notified=43),
        lambda: call.__dict__.update(notices=["the room is locked", "Bob left", "Bob left"], notified=44),
    ]

    async def sleep(seconds: float) -> None:
        if not changes:
            raise asyncio.CancelledError
        changes.pop(0)()

    monkeypatch.setattr(interface.asyncio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        await interface.print_reports(call)
    assert printed == [
        "waiting for others",
        "in the call; Ada: connecting",
        "in the call; Ada: live",
        "Bob joined",
        "the room is locked",
        "Bob left",
    ]


def test_a_headless_call_prints_statistics_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    stats = LinkStats({"total": 9.0}, {"total": 8.0}, 20.0, 150.0, 0.0, 2, {}, {"units_to_send": 1})
    sound, count = SimpleNamespace(delay_s=0.2, counts={"played": 7, "recovered": 1}), AudioTraffic()
    count.sent.add(2500, time.monotonic())
    ada = SimpleNamespace(
        name="Ada",
        state=LinkState.LIVE,
        stats=lambda: stats,
        audio_buffer=sound,
        audio_traffic=count,
        words="a b c",
        silent_s=0.0,
    )
    bob = SimpleNamespace(name="Bob", state=LinkState.CONNECTING, stats=lambda: None, audio_buffer=None, **QUIET)
    call: Any = SimpleNamespace(state=CallState.TALKING, participants={"a": ada, "b": bob})
    interface.print_stats(call, as_json=True)
    printed = json.loads(capsys.readouterr().out)
    assert printed["state"] == "in the call"
    assert printed["participants"][0]["queued"] == {"units_to_send": 1}
    assert printed["participants"][0]["sound_waits_ms"] == pytest.approx(200)
    assert printed["participants"][0]["sound_packets"] == 8
    assert printed["participants"][0]["picture_kbps"] == {"sent": 9.0, "received": 8.0}
    assert printed["participants"][0]["sound_kbps"] == {"sent": 10.0, "received": 0.0}
    assert printed["participants"][0]["all_kbps"] == {"sent": 19.0, "received": 8.0}
    assert printed["participants"][1] == {"name": "Bob", "state": "connecting", "words": None}


class Window:
    def __init__(self, *keys: list[str]) -> None:
        self.to_press = list(keys)
        self.views: list[Any] = []

    def pressed(self) -> list[str]:
        return self.to_press.pop(0)

    def show(self, view: Any) -> None:
        self.views.append(view)


async def test_keys_in_the_window() -> None:
    stats = LinkStats({"total": 9.0}, {"total": 8.0}, 20.0, 150.0, 0.0, 2, {})
    ada = SimpleNamespace(name="Ada", state=LinkState.LIVE, stats=lambda: stats, audio_buffer=None, **QUIET, frame=None)
    call: Any = SimpleNamespace(
        state=CallState.TALKING,
        participants={"a": ada},
        notices=[],
        muted=False,
        locked=False,
        camera_off=False,
        frame_listeners=[],
    )
    call.mute = lambda on: setattr(call, "muted", on)
    call.set_camera_off = lambda on: setattr(call, "camera_off", on)
    call.signalling = SimpleNamespace(name="me")
    window, pressed = Window([], ["i"], ["i", "m", "v", "c"], ["q"]), list[str]()
    await interface.show_window(call, SimpleNamespace(preview=None), window, SimpleNamespace(key=pressed.append))
    assert [bool(view.tiles[0].details) for view in window.views] == [False, True, False]
    assert (call.muted, call.camera_off) == (True, True)
    assert pressed == ["c"]


@pytest.mark.simulated
@pytest.mark.parametrize("apart_s", [0.04, 0.004])
async def test_new_pictures_are_drawn_at_once(apart_s: float) -> None:
    """Up to the screen's frame rate: pictures of many participants share a drawing."""
    call: Any = SimpleNamespace(
        state=CallState.TALKING,
        participants={},
        notices=[],
        muted=False,
        locked=False,
        camera_off=False,
        frame_listeners=[],
    )
    call.signalling = SimpleNamespace(name="me")
    came, waited, drawings = [], [], []

    class Drawn(Window):
        def pressed(self) -> list[str]:
            return []

        def show(self, view: Any) -> None:
            now = asyncio.get_running_loop().time()
            drawings.append(now)
            waited.extend(now - at for at in came)
            came.clear()

    screen: Any = Drawn()
    showing = asyncio.create_task(interface.show_window(call, SimpleNamespace(preview=None), screen, SimpleNamespace()))
    await asyncio.sleep(0.0123)
    for _ in range(200):
        await asyncio.sleep(apart_s)
        came.append(asyncio.get_running_loop().time())
        call.frame_listeners[0](None, None)
    await asyncio.sleep(0.5)
    showing.cancel()
    assert len(waited) == 200
    assert max(waited) <= interface.MIN_DRAW_INTERVAL_S + 1e-6
    if apart_s > interface.DRAW_INTERVAL_S:
        assert max(waited) < 0.001
    assert np.diff(drawings).max() < interface.DRAW_INTERVAL_S + 1e-6
    assert len(drawings) < 1.1 * (drawings[-1] - drawings[0]) / interface.MIN_DRAW_INTERVAL_S


class Hosted:
    """A call double that notes what its host does."""

    def __init__(self, is_host: bool) -> None:
        self.is_host, self.locked = is_host, False
        self.participants = {"a": SimpleNamespace(name="Ada"), "b": SimpleNamespace(name="Bob")}
        self.notices: list[str] = []
        self.notify = self.notices.append
        self.done: list[Any] = []

    async def lock(self, on: bool) -> None:
        self.done.append(on)

    async def expel(self, id: str) -> None:
        self.done.append(id)


@pytest.mark.parametrize(
    ("keys", "done"),
    [("l", [True]), ("k2", ["b"]), ("k3", []), ("kx", []), ("kk1", ["a"]), ("2", []), ("k1k2", ["a", "b"])],
)
async def test_the_hosts_keys(keys: str, done: list[Any]) -> None:
    call = Hosted(True)
    changes = interface.Changes(call, None, SimpleNamespace())
    for key in keys:
        changes.key(key)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert call.done == done
    if keys == "k2":
        assert call.notices == ["whom to remove? 1 Ada, 2 Bob"]


async def test_only_the_host_locks_and_removes() -> None:
    call = Hosted(False)
    changes = interface.Changes(call, None, SimpleNamespace())
    for key in "lk1":
        changes.key(key)
    assert call.done == []
    assert all("only the host" in notice for notice in call.notices)


async def test_devices_are_changed_by_key_and_restored_when_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interface, "DEVICE_CHECK_S", 0.001)
    notices: list[str] = []
    lost = [True]

    def restore() -> list[str]:
        lost[0] = False
        return ["The microphone is now Headset."]

    devices = SimpleNamespace(change=lambda kind: f"next {kind}", are_lost=lambda: lost[0], restore=restore)
    call = SimpleNamespace(notify=notices.append)
    changes = interface.Changes(call, None, devices)
    watching = asyncio.create_task(changes.watch())
    while not notices:
        await asyncio.sleep(0.001)
    watching.cancel()
    for key in "ca":
        changes.key(key)
        await changes._working
    assert notices == ["The microphone is now Headset.", "A file is sent instead of a camera.", "next microphone"]
