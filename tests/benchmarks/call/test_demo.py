"""`iwcodec demo-call`: its table or JSON, and the sheet of expressions, without the delay of the call."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import pytest
import typer
from typer.testing import CliRunner

pytest.importorskip("websockets")
from iwcodec.benchmarks.call import demo
from iwcodec.benchmarks.expression_sheet import Moment
from iwcodec.client.demo import call
from iwcodec.client.demo.measurement import TABLE_ROWS, results_table
from support.calls.recorded_side import recorded_side

app = typer.Typer()
app.command("demo-call")(demo.command)


def test_a_table_or_json(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = {name: dict.fromkeys(TABLE_ROWS, 7) for name in call.NAMES}
    statistics: dict[str, Any] = {"seconds": 12.0, "sides": sides}
    monkeypatch.setattr(call, "run_demo", lambda *_: (statistics, [recorded_side("Ada"), recorded_side("Bob")]))
    monkeypatch.setattr(demo, "write_expressions", lambda *_: None)
    shown = CliRunner().invoke(app, ["--json"])
    assert json.loads(shown.stdout) == statistics
    shown = CliRunner().invoke(app, [])
    assert shown.exit_code == 0
    assert "expressions.jpg" in " ".join(shown.stderr.split())
    assert results_table(statistics).row_count == len(TABLE_ROWS)


def test_frames_are_compared_with_what_was_shown_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recorded side's grey levels tell the frames apart: they were seen 0.1 s later, one frame."""
    sender, receiver = recorded_side("Ada"), recorded_side("Bob")
    seen = demo.as_seen([frame.captured_s for frame in sender.sent], receiver)
    assert [int(picture[0, 0, 0]) for picture in seen] == [int(frame.picture[0, 0, 0]) for frame in sender.sent]
    monkeypatch.setattr(demo, "expressive_moments", lambda *_: [Moment(3, "blink"), Moment(9, "open mouth")])
    rival = SimpleNamespace(kbps=6.0, pictures=lambda: iter([frame.picture for frame in sender.sent]))
    monkeypatch.setattr(demo, "av1_versions", lambda *_: [rival, rival])
    monkeypatch.setattr(demo, "load_runtime_for", lambda *_, **__: None)
    demo.write_expressions(tmp_path / "sheet.jpg", sender, receiver)
    sheet = cv2.imread(str(tmp_path / "sheet.jpg"))
    width = sheet.shape[1] // 4
    camera, call_shows = (sheet[sheet.shape[0] // 4, at].astype(int) for at in (width // 2, width * 3 // 2))
    assert abs(camera - 30).max() < 6
    assert abs(camera - call_shows).max() < 4
