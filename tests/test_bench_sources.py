"""`iwcodec bench sources`: a short clip, all columns, their order."""

import json
from pathlib import Path

import typer
from iwcodec.benchmarks.sources import Coded, command, means
from typer.testing import CliRunner


def test_a_short_clip_gets_every_column(face_clip: Path, tmp_path: Path):
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, [str(face_clip), "--sources", "1,2", "--out", str(tmp_path), "--json"])
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "sources.json").read_text())["clips"]
    assert [row["sources"] for row in rows] == [1, 2]
    for row in rows:
        assert 10 < row["copy_db"] < row["oracle_db"] < 60
        assert 10 < row["psnr_db"] < 60
        assert row["kbps"]["video"] > row["kbps"]["sources"] > 0
    assert rows[1]["kbps"]["sources"] > rows[0]["kbps"]["sources"]


def test_means_are_by_number_of_sources():
    rows = [
        Coded(name, n, 10, {"video": 2.0 * n}, db, db, db) for name, n, db in [("a", 1, 20), ("b", 1, 30), ("a", 3, 40)]
    ]
    found = means(rows)
    assert [(row.sources, row.psnr_db, row.kbps["video"]) for row in found] == [(1, 25, 2), (3, 40, 6)]
