"""`iwcodec demo`: everything that it writes and prints, with only the base dependencies."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import cv2

from iwcodec.codec.media.video import probe, read_video
from support.media.clips import write_clip

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
from iwcodec.codec.cli.app import main
sys.argv = ["iwcodec", "demo", *sys.argv[1:]]
main()
"""
"""Runs `iwcodec demo` where no package of an extra can be imported."""


def test_demo_needs_no_extras_and_writes_its_results(face_clip: Path, tmp_path: Path) -> None:
    """Results of an earlier run are replaced."""
    pictures = [frame.picture for frame in itertools.islice(read_video(face_clip), 6)]
    clip, out = write_clip(tmp_path / "short.mp4", pictures, fps=24), tmp_path / "demo"
    out.mkdir()
    for name in ("demo.json", "contact_sheet.png", "side_by_side.mp4", "expressions.jpg"):
        (out / name).write_text("from an earlier run")
    words = ["--clip", str(clip), "--out", str(out), "--sources", "2"]
    done = subprocess.run([sys.executable, "-c", WITHOUT_EXTRAS, *words], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stderr.split())
    for text in ("2 source pictures (", "kbps", "dB", "side_by_side.mp4", "demo.webp", "expressions.jpg", "Try next"):
        assert text in said, said
    names = {file.name for file in out.iterdir()}
    assert names == {"short.iwc", "side_by_side.mp4", "contact_sheet.png", "demo.webp", "expressions.jpg", "demo.json"}
    written = json.loads((out / "demo.json").read_text())
    assert {"command", "commit", "machine", "versions"} <= written.keys()
    assert written["encode"]["sources"] == 2
    rows = written["rows"]
    assert rows[0]["name"] == "iwcodec, 2 sources"
    assert len(rows) == 4
    assert all(row["kbps"] > 0 and row["psnr_db"] > 10 for row in rows)
    assert all(f"{row['kbps']:.2f}" in said and f"{row['psnr_db']:.2f}" in said for row in rows)
    assert cv2.imread(str(out / "contact_sheet.png")).shape[1] == 5 * 256
    assert probe(out / "side_by_side.mp4").width == 5 * 256
