"""`iwcodec demo`: everything that it writes, from a short clip."""

import json
from pathlib import Path

import cv2

from iwcodec.benchmarks import demo
from iwcodec.codec.media.video import probe


def test_all_columns_are_there(face_clip: Path, tmp_path: Path) -> None:
    rows = demo.run(tmp_path, face_clip, 2)
    assert rows[0].name == "iwcodec, 2 sources"
    assert len(rows) == 4
    assert all(row.kbps > 0 and row.psnr_db > 10 for row in rows)
    written = json.loads((tmp_path / "demo.json").read_text())
    assert written["rows"] == [{"name": r.name, "kbps": r.kbps, "psnr_db": r.psnr_db} for r in rows]
    assert {"command", "commit", "machine", "versions"} <= written.keys()
    sheet = cv2.imread(str(tmp_path / "contact_sheet.png"))
    assert sheet.shape[1] == 5 * 256
    assert probe(tmp_path / "side_by_side.mp4").width == 5 * 256
    demo.run(tmp_path, face_clip, 2)  # again, over what is there
