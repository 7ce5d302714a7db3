"""`iwcodec bench wire`."""

import json
from pathlib import Path

import pytest

pytest.importorskip("aiortc")

import typer
from typer.testing import CliRunner

from iwcodec.benchmarks.call.participants import Camera
from iwcodec.benchmarks.call.wire import command
from support.codec.stub_runtime import StubRuntime, picture

pytestmark = pytest.mark.usefixtures("every_picture_has_a_face")


def camera() -> Camera:
    return Camera([picture(100 + 2 * n) for n in range(30)], StubRuntime())


def test_result_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result is written with its provenance, and printed as a table."""
    monkeypatch.setattr("iwcodec.benchmarks.call.wire.load_runtime", lambda threads: StubRuntime())
    monkeypatch.setattr("iwcodec.benchmarks.call.wire.load_camera", lambda clip, runtime: camera())
    app = typer.Typer()
    app.command()(command)
    out = tmp_path / "wire.json"
    result = CliRunner().invoke(app, ["--only", "30 kbps, 100 ms", "--seconds", "10", "--out", str(out)])
    assert result.exit_code == 0, result.output
    written = json.loads(out.read_text())
    assert written["calls"][0]["30 kbps, 100 ms"]["kbps"] < 30
    assert written["aiortc"]
    assert "paths" in result.output
