"""`iwcodec bench sources`: all columns for a short clip, and the order of rows."""

import itertools
import json
from pathlib import Path

import cv2
import numpy as np
import typer
from typer.testing import CliRunner

from iwcodec.benchmarks.comparison_pictures import LABEL_HEIGHT
from iwcodec.benchmarks.quality.sources import COLUMNS, MAX_ROWS, Coded, Worst, command, draw, means
from iwcodec.codec.media.video import read_video, sample_clip
from support.media.clips import write_clip


def test_short_clip_has_every_column(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(command)
    pictures = [frame.picture for frame in itertools.islice(read_video(sample_clip()), 0, 24, 3)]
    clip = write_clip(tmp_path / "short.mp4", pictures, fps=8)
    result = CliRunner().invoke(app, [str(clip), "--sources", "1,2", "--out", str(tmp_path), "--json"])
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "sources.json").read_text())["clips"]
    assert [row["sources"] for row in rows] == [1, 2]
    for row in rows:
        assert 10 < row["copy_db"] < row["oracle_db"] < 60
        assert 10 < row["psnr_db"] < 60
        assert row["kbps"]["video"] > row["kbps"]["sources"] > 0
    assert rows[1]["kbps"]["sources"] > rows[0]["kbps"]["sources"]
    for count in (1, 2):
        assert cv2.imread(str(tmp_path / f"worst-{count}.jpg")).shape == (256 + LABEL_HEIGHT, 4 * 256, 3)


def test_the_worst_frames_come_first(tmp_path: Path) -> None:
    worst = [
        Worst(f"clip {n}", n, 30.0 - n, tuple(np.full((64, 64, 3), 10 * n, np.uint8) for _ in COLUMNS))
        for n in range(12)
    ]
    draw(tmp_path / "worst.jpg", worst)
    sheet = cv2.imread(str(tmp_path / "worst.jpg"))
    assert len(sheet) == MAX_ROWS * (64 + LABEL_HEIGHT)
    levels = sheet.reshape(MAX_ROWS, 64 + LABEL_HEIGHT, -1)[:, LABEL_HEIGHT + 32, 0]
    assert np.abs(levels - 10.0 * np.arange(11, 11 - MAX_ROWS, -1)).max() < 4


def test_means_are_by_number_of_sources() -> None:
    rows = [
        Coded(name, n, 10, {"video": 2.0 * n}, db, db, db) for name, n, db in [("a", 1, 20), ("b", 1, 30), ("a", 3, 40)]
    ]
    found = means(rows)
    assert [(row.sources, row.psnr_db, row.kbps["video"]) for row in found] == [(1, 25, 2), (3, 40, 6)]
