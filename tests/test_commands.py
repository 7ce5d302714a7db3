"""`iwcodec call` and `iwcodec devices`: what users get wrong, and what a headless call says."""

import asyncio
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

for needed in ("aiortc", "websockets"):
    pytest.importorskip(needed)
from iwcodec.client import capture, commands
from iwcodec.client.call import CallState
from iwcodec.client.link import LinkState, LinkStats
from iwcodec.errors import CodecError

URL = "http://127.0.0.1:1/r/blue"
app = typer.Typer()
app.command("call")(commands.call)
app.command("devices")(commands.devices)


def refused(*arguments: str) -> str:
    """The sentence."""
    result = CliRunner().invoke(app, ["call", *arguments])
    assert isinstance(result.exception, CodecError), (result.output, result.exception)
    return str(result.exception)


def test_what_cannot_work_is_said_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = tmp_path / "there.iwc"
    there.write_bytes(b"x")
    headless = ("--headless", "--no-audio")
    assert "not the address of a room" in refused("blue", *headless)
    assert "must end in .iwc" in refused(URL, "--record", "a.mp4", *headless)
    assert "exists" in refused(URL, "--record", str(there), *headless)
    assert there.read_bytes() == b"x"
    assert "does not exist" in refused(URL, "--video", "nothing.mp4", *headless)
    monkeypatch.setattr(capture, "list_cameras", lambda: [])
    assert "no camera on this machine. A video file can take its place" in refused(URL, *headless)
    monkeypatch.setenv("SDL_VIDEODRIVER", "nothing-of-that-name")
    assert "no display" in refused(URL, "--no-audio")


def test_a_server_that_is_not_there(face_clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.iwc"
    told = refused(URL, "--video", str(face_clip), "--headless", "--record", str(out))
    assert "cannot be reached" in told
    assert list(tmp_path.iterdir()) == []


def test_devices_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "list_cameras", lambda: [capture.Device(0, "Front", "/dev/video0")])
    inputs = [{"name": "Mic", "max_input_channels": 1, "index": 3}]
    monkeypatch.setitem(sys.modules, "sounddevice", SimpleNamespace(query_devices=lambda: inputs))
    found = json.loads(CliRunner().invoke(app, ["devices", "--json"]).stdout)
    assert found["cameras"] == [{"number": 0, "name": "Front", "handle": "/dev/video0"}]
    assert found["microphones"][0]["name"] == "Mic"


def test_without_sounddevice_cameras_are_listed_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "list_cameras", lambda: [capture.Device(0, "Front", "/dev/video0")])
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    result = CliRunner().invoke(app, ["devices"])
    assert result.exit_code == 0
    assert json.loads(CliRunner().invoke(app, ["devices", "--json"]).stdout)["microphones"] == []


class Silent:
    muted = False

    def push(self, samples: np.ndarray, captured_s: float) -> None:
        pass

    def mute(self, on: bool) -> None:
        self.muted = on


def test_without_a_microphone_one_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    call = Silent()
    options = commands.CallOptions(URL, "me")
    commands.listen(options, None, Silent(), call).close()  # type: ignore[arg-type]
    assert call.muted
    with pytest.raises(CodecError, match="pip install sounddevice"):
        commands.listen(commands.CallOptions(URL, "me", mic="0"), None, Silent(), call)  # type: ignore[arg-type]


def test_a_headless_call_says_what_changes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    stats = LinkStats({"total": 9.0}, {"total": 8.0}, 20.0, 150.0, 0.0, 2, {})
    ada = SimpleNamespace(name="Ada", state=LinkState.CONNECTING, stats=lambda: stats, playout=None)
    call: Any = SimpleNamespace(state=CallState.WAITING, participants={})
    said: list[str] = []
    monkeypatch.setattr(commands.console, "print", lambda text, **_: said.append(text))
    changes = [
        lambda: None,
        lambda: call.__dict__.update(state=CallState.TALKING, participants={"a": ada}),
        lambda: ada.__dict__.update(state=LinkState.LIVE),
    ]

    async def sleep(seconds: float) -> None:
        if not changes:
            raise asyncio.CancelledError
        changes.pop(0)()

    monkeypatch.setattr(commands.asyncio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(commands.report(call))
    assert said == ["waiting for others", "in the call; Ada: connecting", "in the call; Ada: live"]


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
        state=CallState.TALKING, participants={"a": ada}, notices=[], muted=False, camera_off=False
    )
    call.mute = lambda on: setattr(call, "muted", on)
    call.signalling = SimpleNamespace(name="me")
    window = Window([], ["i"], ["i", "m"], ["q"])
    asyncio.run(commands.show(call, SimpleNamespace(preview=None), window))  # type: ignore[arg-type]
    assert [bool(scene.tiles[0].details) for scene in window.shown] == [False, True, False]
    assert call.muted
