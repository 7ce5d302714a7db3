"""`iwcodec bench encode`: times of encodes, and what the progress foretold."""

import itertools
import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

pytest.importorskip("psutil")

from iwcodec.benchmarks.performance.encode_time import command, foretold_error, parse_settings
from iwcodec.codec.errors import CodecError
from iwcodec.codec.media.video import read_video, sample_clip
from support.media.clips import write_clip


def test_a_steady_progress_foretells_the_time() -> None:
    assert foretold_error([(second, second / 10) for second in range(11)], 10.0) == pytest.approx(0)
    assert foretold_error([(1.0, 0.9), (5.0, 0.25), (9.0, 0.9)], 10.0) == pytest.approx(1.0)
    assert foretold_error([], 10.0) == 0


def test_settings_are_known() -> None:
    assert parse_settings("default, effort0") == ["default", "effort0"]
    with pytest.raises(CodecError, match="not 'fast'"):
        parse_settings("default,fast")


def test_short_clip(tmp_path: Path) -> None:
    pictures = [frame.picture for frame in itertools.islice(read_video(sample_clip()), 12)]
    clip = write_clip(tmp_path / "clip.mp4", pictures, fps=12)
    app = typer.Typer()
    app.command()(command)
    words = [str(clip), "--settings", "effort0", "--crop", "none", "--out", str(tmp_path), "--json"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    ((encode,),) = json.loads((tmp_path / "encode.json").read_text())["clips"].values()
    assert encode["seconds"] > 0
    assert encode["psnr_db"] > 10
    assert encode["cpu_seconds"] > 0
