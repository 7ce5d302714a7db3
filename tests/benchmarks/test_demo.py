"""`iwcodec demo`: everything that it writes and prints, with only the base dependencies."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from iwcodec.benchmarks import demo
from iwcodec.codec.media.video import probe, read_video, sample_clip
from media_fixtures import write_clip

WITHOUT_EXTRAS = """
import sys
from importlib.machinery import PathFinder

EXTRAS = {
    "aiortc", "fastapi", "httpx", "hypothesis", "imageio_ffmpeg", "matplotlib", "onnx", "onnxscript", "psutil",
    "prometheus_client", "redis", "scipy", "skimage", "sounddevice", "torch", "triton", "uvicorn", "websockets",
}

class WithoutExtras(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in EXTRAS else super().find_spec(name, path, target)

sys.meta_path = [WithoutExtras if finder is PathFinder else finder for finder in sys.meta_path]
from iwcodec.codec.cli import main
sys.argv = ["iwcodec", "demo", *sys.argv[1:]]
main()
"""
"""Runs `iwcodec demo` where no package of an extra can be imported."""


@pytest.fixture(scope="module")
def first_second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first second of the bundled clip."""
    clip = sample_clip()
    rate = probe(clip).fps
    pictures = [frame.picture for _, frame in zip(range(round(rate)), read_video(clip), strict=False)]
    return write_clip(tmp_path_factory.mktemp("clip") / "second.mp4", pictures, fps=round(rate))


def test_demo_needs_no_extras(first_second: Path, tmp_path: Path) -> None:
    words = ["--clip", str(first_second), "--out", str(tmp_path / "demo"), "--sources", "1"]
    done = subprocess.run([sys.executable, "-c", WITHOUT_EXTRAS, *words], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stderr.split())
    for text in ("1 source picture (", "kbps", "dB", "side_by_side.mp4", "demo.webp", "Try next"):
        assert text in said, said
    names = {file.name for file in (tmp_path / "demo").iterdir()}
    assert names == {
        "second.iwc",
        "side_by_side.mp4",
        "contact_sheet.png",
        "demo.webp",
        "demo.json",
    }


def test_results_are_written(face_clip: Path, tmp_path: Path) -> None:
    for name in ("demo.json", "contact_sheet.png", "side_by_side.mp4"):
        (tmp_path / name).write_text("from an earlier run")
    report, rows = demo.run(tmp_path, face_clip, 2)
    assert report.sources == 2
    assert rows[0].name == "iwcodec, 2 sources"
    assert len(rows) == 4
    assert all(row.kbps > 0 and row.psnr_db > 10 for row in rows)
    written = json.loads((tmp_path / "demo.json").read_text())
    assert written["rows"] == [{"name": r.name, "kbps": r.kbps, "psnr_db": r.psnr_db} for r in rows]
    assert {"command", "commit", "machine", "versions"} <= written.keys()
    sheet = cv2.imread(str(tmp_path / "contact_sheet.png"))
    assert sheet.shape[1] == 5 * 256
    assert probe(tmp_path / "side_by_side.mp4").width == 5 * 256
