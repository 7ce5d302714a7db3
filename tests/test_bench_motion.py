"""`iwcodec bench motion`: finer steps take more bits and come nearer to the motion as it was fitted."""

import json
from pathlib import Path

import pytest
import typer
from iwcodec.benchmarks.motion import command, parse_scales, table
from iwcodec.errors import CodecError
from rich.console import Console
from typer.testing import CliRunner


def test_a_short_clip(face_clip: Path, tmp_path: Path):
    app = typer.Typer()
    app.command()(command)
    words = [str(face_clip), "--sources", "1", "--scales", "110,60,80", "--out", str(tmp_path), "--json"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    results = json.loads((tmp_path / "motion.json").read_text())
    (clip,) = results["clips"]
    assert [point["scale"] for point in clip["points"]] == [60, 80, 110]
    rates = [point["kbps"] for point in clip["points"]]
    assert rates == sorted(rates, reverse=True)
    losses = [clip["fitted_db"] - point["psnr_db"] for point in clip["points"]]
    assert losses[0] < 0.15
    assert losses[0] < losses[2]
    console = Console(width=120)
    with console.capture() as drawn:
        console.print(table(results))
    assert f"{losses[2]:.2f}" in drawn.get()


@pytest.mark.parametrize("text", ["", "a", "60,,80", "-1", "256"])
def test_scales_out_of_range(text: str):
    with pytest.raises(CodecError):
        parse_scales(text)
