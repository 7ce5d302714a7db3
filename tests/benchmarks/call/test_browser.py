"""The browser's measurement: its figures, its camera, and what is said where something is missing."""

from pathlib import Path
from typing import Any

import pytest

for needed in ("fastapi", "psutil"):
    pytest.importorskip(needed)

from iwcodec.benchmarks.call import browser
from iwcodec.codec.errors import CodecError


def test_rates_are_those_between_two_counts() -> None:
    report: dict[str, Any] = {
        "before": {"shown": 10, "coded": 5, "at": 1000.0},
        "after": {"shown": 60, "coded": 45, "at": 3000.0},
        "times": {"firstShown": 1.234},
        "bytes": 9_250_000,
        "problems": ["one"],
    }
    watching = {"first_picture_s": 1.23, "frames_shown_per_s": 25.0, "transferred_mb": 9.25, "problems": 1}
    assert browser.in_call(report, [], films=False) == watching
    reports = [{"frames_per_s": rate, "received_per_s": rate + 2} for rate in (0.0, 2.0, 14.0, 16.0)]
    both = browser.in_call(report, reports, films=True)
    rates = {"frames_coded_per_s": 20.0, "frames_received_per_s": 17.0, "frames_seen_per_s": 15.0}
    assert both == {**watching, **rates}
    assert browser.in_call(report, [], films=True)["frames_seen_per_s"] == 0
    played = browser.playing({"firstMs": 900, "shown": 50, "playedMs": 2000, "bytes": 1, "problems": []})
    assert played == {"first_picture_s": 0.9, "frames_shown_per_s": 25.0, "transferred_mb": 0.0, "problems": 0}
    table = browser.table({"browser": "Chromium 1", "load": 0.5, "playing": played, "watching": watching})
    assert table.row_count == len(browser.LABELS)
    assert len(table.columns) == 3


def test_the_camera_repeats_the_beginning_of_a_clip(face_clip: Path, tmp_path: Path) -> None:
    camera = browser.write_camera(face_clip, tmp_path / "camera.y4m").read_bytes()
    head, _, rest = camera.partition(b"\n")
    assert head.startswith(b"YUV4MPEG2 W")
    assert head.endswith(b"F25:1 Ip C420")
    width, height = (int(part[1:]) for part in head.split()[1:3])
    assert rest.count(b"FRAME\n") >= 1
    assert len(rest) % (len(b"FRAME\n") + width * height * 3 // 2) == 0


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(browser.shutil, "which", lambda name: None)
    with pytest.raises(CodecError, match="No browser was found"):
        browser.browser()
    monkeypatch.setattr(browser.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(browser, "WEB", tmp_path)
    with pytest.raises(CodecError, match="make web"):
        browser.browser()
    (tmp_path / "node_modules").mkdir()
    monkeypatch.setattr(browser, "is_built", lambda: False)
    with pytest.raises(CodecError, match="not built"):
        browser.browser()
