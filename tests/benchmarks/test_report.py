"""The report from small results files: nothing is coded, and the page needs no other file."""

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("scipy")

from iwcodec.benchmarks import report, report_rd
from iwcodec.benchmarks.quality.rd_clip import picture_name
from iwcodec.benchmarks.quality.rd_results import comparisons
from iwcodec.codec.errors import CodecError

CURVES = {
    "iwcodec": [(3.0, 26.0, 40.0), (9.0, 29.0, 55.0)],
    "svtav1": [(5.0, 23.0, 20.0), (12.5, 29.5, 60.0)],
    "x264": [(4.0, 18.0, 2.0), (11.0, 23.0, 20.0)],
}
SURROUNDINGS: dict[str, Any] = {
    "command": "iwcodec bench rd a.mp4 <b>.mp4",
    "commit": "abc1234",
    "machine": {"processor": "A & B", "cores": 2, "system": "Linux x86_64", "python": "3.11.0"},
    "versions": {"av": "18.0.0"},
}


def spent(kbps: float) -> dict[str, int]:
    """Bytes in 0.8 s: sources 50 %, motion 40 %, container 10 %."""
    return {"sources": int(kbps * 50), "motion": int(kbps * 40), "container": int(kbps * 10)}


def rd_results(clips: int = 2) -> dict[str, Any]:
    points = [
        {
            "codec": codec,
            "asked_kbps": asked,
            "kbps": kbps,
            **({"bytes": spent(kbps), "sources": 3} if codec == "iwcodec" else {"bytes": {"video": int(kbps * 100)}}),
            "scores": {"psnr_rgb": psnr, "vmaf": vmaf},
        }
        for codec, curve in CURVES.items()
        for asked, (kbps, psnr, vmaf) in zip((4.0, 12.0), curve, strict=True)
    ]
    one = {"frames": 20, "fps": "25", "seconds": 0.8, "frames_digest": "0", "points": points}
    results = {
        **SURROUNDINGS,
        "what": "rd",
        "model": {"id": "lite-256", "digest": "00ff"},
        "size": 256,
        "metrics": ["psnr_rgb", "vmaf"],
        "missing_metrics": {"lpips": "no weights"},
        "clips": {f"clip{n}": {**one, "may_be_shown": n == 0} for n in range(clips)},
    }
    return {**results, "comparisons": comparisons(results)}


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the plots, which take most of a second each, by empty files."""

    def touch(curves: Any, column: str, title: str, files: list[Path]) -> None:
        for file in files:
            file.write_text("")

    for name in ("draw", "draw_grid"):
        monkeypatch.setattr(report_rd.plots, name, touch)


def write(folder: Path, results: dict[str, Any], name: str = "rd.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(results))
    return path


def keep_pictures(folder: Path, results: dict[str, Any]) -> None:
    for clip, record in results["clips"].items():
        (folder / "pictures" / clip).mkdir(parents=True)
        for name in ("original", *(picture_name(point) for point in record["points"])):
            for n in range(3):
                cv2.imwrite(str(folder / "pictures" / clip / f"{name}-{n}.png"), np.full((16, 16, 3), 90, np.uint8))


def test_page_and_plots(tmp_path: Path) -> None:
    results = rd_results()
    keep_pictures(tmp_path, results)
    page = report.run([write(tmp_path, results)], tmp_path / "out")
    text = page.read_text()
    made = {file.name for file in page.parent.iterdir()}
    plots = {f"rd{name}.{suffix}" for name in ("", "-vmaf", "-clips") for suffix in ("png", "svg")}
    assert made == {"report.html", *plots}
    assert "abc1234" in text
    assert "A &amp; B" in text
    assert "&lt;b&gt;.mp4" in text
    assert "without lpips: no weights" in text
    assert "29.50<br><small>12.5</small>" in text
    assert re.search(r"Against svtav1</h3>.*iwcodec", text, re.DOTALL)
    assert re.search(r"Margin over SVT-AV1 at the same rate</h2>.*below on \d of 2</small>", text, re.DOTALL)
    assert not re.findall(r'(?:src|href)="(?!data:)', text), "the page must not refer to other files"


def test_plots_are_named_after_the_results(tmp_path: Path, undrawn: None) -> None:
    files = [write(tmp_path, rd_results(clips), f"{name}.json") for name, clips in (("val", 2), ("one", 1))]
    report.run(files, tmp_path / "out")
    assert {"val.png", "val.svg", "val-clips.png", "one.png", "one-vmaf.svg"} <= {
        file.name for file in (tmp_path / "out").iterdir()
    }


def test_eyes_and_mouths_are_drawn_beside_psnr_and_vmaf(tmp_path: Path, undrawn: None) -> None:
    results = rd_results(1)
    expression = ("blink_recall", "eye_r", "mouth_open_r")
    results["metrics"] = sorted([*results["metrics"], *expression])
    for n, point in enumerate(results["clips"]["clip0"]["points"]):
        point["scores"] |= dict.fromkeys(expression, 0.1 * n)
    text = report.run([write(tmp_path, results)], tmp_path / "out").read_text()
    beside, others = text.split("<h2>Bjontegaard deltas", 1)
    shown = [report_rd.AXES[name] for name in ("psnr_rgb", "vmaf", "eye_r", "mouth_open_r", "blink_recall")]
    assert re.findall(r'alt="(.*?) over kbps"', beside) == shown[:4]
    assert re.findall(r'alt="(.*?) over kbps"', others) == shown[4:]


def test_deltas_and_bytes_of_each_clip(tmp_path: Path, undrawn: None) -> None:
    results = rd_results()
    text = report.run([write(tmp_path, results)], tmp_path).read_text()
    own = next(row for row in results["comparisons"] if row["codec"] == "iwcodec" and row["metric"] == "psnr_rgb")
    rate, quality = own["clips"]["clip1"]
    assert rate < -10
    assert quality > 1
    assert f"<td>clip1</td><td>{rate:+.1f} %; {quality:+.2f}</td>" in text
    assert "<td>4 kbps</td><td>1.50</td><td>1.20</td><td>0.30</td><td>3.00</td><td>3.0</td>" in text


def test_low_rate_rows_equal_to_all_rates_are_not_repeated(tmp_path: Path, undrawn: None) -> None:
    results = rd_results()
    text = report.run([write(tmp_path, results)], tmp_path).read_text()
    assert "3 to 12 kbps" not in text
    for clip in results["clips"].values():
        clip["points"] = [
            *clip["points"],
            *(
                {**p, "asked_kbps": 40, "kbps": 40.0 + n, "scores": {"psnr_rgb": 35 + n / 4, "vmaf": 90 + n}}
                for n, p in enumerate(clip["points"][::2])
            ),
        ]
    results["comparisons"] = comparisons(results)
    assert "3 to 12 kbps" in report.run([write(tmp_path, results)], tmp_path).read_text()


def test_results_of_an_interrupted_run_have_deltas(tmp_path: Path, undrawn: None) -> None:
    results = rd_results()
    whole = report.run([write(tmp_path, results)], tmp_path).read_text()
    del results["comparisons"]
    assert report.run([write(tmp_path, results)], tmp_path).read_text() == whole


def test_codecs_excluded_from_the_means_are_named(tmp_path: Path, undrawn: None) -> None:
    results = rd_results()
    points = results["clips"]["clip1"]["points"]
    results["clips"]["clip1"]["points"] = [point for point in points if point["codec"] != "x264"]
    text = report.run([write(tmp_path, results)], tmp_path).read_text()
    assert "Excluded from the means, clips are missing: x264 (1 of 2)." in text


def test_settings_are_shown(tmp_path: Path, undrawn: None) -> None:
    half = {"shrink": 2, "skip": 2, "options": {"4": {"preset": "6", "tune": "<zero>"}, "12": {"preset": "6"}}}
    text = report.run([write(tmp_path, {**rd_results(), "settings": {"svtav1-half": half}})], tmp_path).read_text()
    assert "<td>1/2</td><td>1/2</td><td>4 kbps: preset=6 tune=&lt;zero&gt;</td>" in text


def test_only_publishable_pictures_are_shown(tmp_path: Path, undrawn: None) -> None:
    results = rd_results()
    keep_pictures(tmp_path, results)
    text = report.run([write(tmp_path, results)], tmp_path).read_text()
    assert "Pictures: clip0" in text
    assert "Pictures: clip1" not in text
    # 3 rates, 3 frames, the original and three codecs.
    assert text.count("data:image/jpeg") == 36


def test_the_nearest_rate_is_by_ratio() -> None:
    curve = ((4.0, 20.0), (11.0, 30.0), (6.5, 10.0))
    points = [{"codec": "x264", "kbps": kbps, "scores": {"psnr_rgb": quality}} for kbps, quality in curve]
    assert [point["kbps"] for point in report_rd.nearest(points, 7.0)] == [11.0]
    assert [point["kbps"] for point in report_rd.nearest(points, 6.0)] == [4.0]


@pytest.mark.parametrize(
    "results",
    [{"what": "soup"}, {"what": "rd", "clips": {}}, {"what": "rd", "clips": {"a": {"points": [1]}}}, {"what": "speed"}],
)
def test_files_without_results_are_rejected(tmp_path: Path, results: dict[str, Any]) -> None:
    with pytest.raises(CodecError, match=r"rd\.json"):
        report.run([write(tmp_path, results)], tmp_path)
