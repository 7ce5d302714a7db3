"""`iwcodec bench wire`."""

import json
from copy import deepcopy
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from iwcodec.benchmarks.call.participants import Camera
from iwcodec.benchmarks.call.simulated_call import scenario, seeded
from iwcodec.benchmarks.call.wire import averages, command
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


def test_seeds_differ_and_are_averaged_in_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iwcodec.benchmarks.call.simulated_call.SETTLED_S", 1.0)
    call = {"clip": "0", "no loss": scenario(StubRuntime(), camera(), 3.0, {})}
    call["10 % loss"] = seeded(StubRuntime(), camera(), 3.0, {"loss": 0.1}, 2, call)
    calls = [call, {**deepcopy(call), "clip": "1"}]
    calls[1]["no loss"]["psnr_db"] += 1.0
    first, second = calls[0]["10 % loss"]["runs"]
    assert first != second
    assert {"psnr_db", "psnr_db_at_equal_sources"} <= set(first)
    means = averages(calls)
    of = means["10 % loss"]
    assert of["psnr_db"]["mean"] == pytest.approx((first["psnr_db"] + second["psnr_db"]) / 2)
    base = calls[0]["no loss"]["psnr_db"] + 0.5
    assert of["psnr_db_to_no_loss"]["mean"] == pytest.approx(of["psnr_db"]["mean"] - base)
    assert of["psnr_db_to_no_loss"]["standard_error"] == pytest.approx(0.5)
