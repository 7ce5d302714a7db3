"""`iwcodec call` and `iwcodec devices`: options, output, and messages for mistakes."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

pytest.importorskip("websockets")
from iwcodec.client import commands
from iwcodec.client.video import capture
from iwcodec.codec.errors import CodecError
from iwcodec.codec.extras import install

pytestmark = pytest.mark.realtime

URL = "http://127.0.0.1:1/r/blue"
app = typer.Typer()
app.command("call")(commands.call)
app.command("devices")(commands.devices)


def refused(*arguments: str) -> str:
    """Run `iwcodec call` and return its error message."""
    result = CliRunner().invoke(app, ["call", *arguments])
    assert isinstance(result.exception, CodecError), (result.output, result.exception)
    return str(result.exception)


def test_mistakes_are_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = tmp_path / "there.iwc"
    there.write_bytes(b"x")
    headless = ("--headless", "--no-audio")
    assert "not the address of a room" in refused("blue", *headless)
    assert "must end in .iwc" in refused(URL, "--record", "a.mp4", *headless)
    assert "exists" in refused(URL, "--record", str(there), *headless)
    assert there.read_bytes() == b"x"
    assert "does not exist" in refused(URL, "--video", "nothing.mp4", *headless)
    assert "--json needs --headless" in refused(URL, "--json")
    monkeypatch.setattr(capture, "list_cameras", lambda: [])
    assert "no camera on this machine. To watch and talk use --no-video" in refused(URL, *headless)
    monkeypatch.setenv("SDL_VIDEODRIVER", "nothing-of-that-name")
    assert "no display" in refused(URL, "--no-audio")


def test_the_token_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other users of the machine see arguments, but neither of the two."""
    file = tmp_path / "token"
    file.write_text("iw1.abc.def\n")
    assert commands.read_token(file) == "iw1.abc.def"
    assert commands.read_token(None) is None
    monkeypatch.setenv("IWCODEC_TOKEN", "iw1.x.y")
    assert commands.read_token(None) == "iw1.x.y"
    file.write_text(" \n")
    assert "holds no token" in refused(URL, "--headless", "--token-file", str(file))
    assert "cannot be read" in refused(URL, "--headless", "--token-file", str(tmp_path / "none"))
    assert "no certificate in PEM format" in refused("https://127.0.0.1:1/r/b", "--headless", "--ca", str(file))


def test_an_unreachable_server_is_reported(face_clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.iwc"
    message = refused(URL, "--video", str(face_clip), "--headless", "--record", str(out))
    assert "cannot be reached" in message
    assert list(tmp_path.iterdir()) == []


def test_devices_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "list_cameras", lambda: [capture.Device(0, "Front", "/dev/video0")])
    inputs = [
        {"name": "Mic", "max_input_channels": 1, "max_output_channels": 0, "index": 3},
        {"name": "Box", "max_input_channels": 0, "max_output_channels": 2, "index": 5},
    ]
    monkeypatch.setitem(sys.modules, "sounddevice", SimpleNamespace(query_devices=lambda: inputs))
    found = json.loads(CliRunner().invoke(app, ["devices", "--json"]).stdout)
    assert found["cameras"] == [{"number": 0, "name": "Front", "handle": "/dev/video0"}]
    assert [device["name"] for device in found["microphones"]] == ["Mic"]
    assert found["loudspeakers"] == [{"number": 0, "name": "Box", "handle": "5"}]


def test_without_sounddevice_cameras_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "list_cameras", lambda: [capture.Device(0, "Front", "/dev/video0")])
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    result = CliRunner().invoke(app, ["devices"])
    assert result.exit_code == 0
    assert json.loads(CliRunner().invoke(app, ["devices", "--json"]).stdout)["microphones"] == []


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "iwcodec.client.session", None)
    assert install("call") in refused(URL)
