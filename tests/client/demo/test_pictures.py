"""Video and contact sheet of a measured call."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from iwcodec.client.demo import pictures
from iwcodec.codec.media.audio.samples import read_samples
from iwcodec.codec.media.video import probe
from support.calls.recorded_side import recorded_side


def test_the_video_shows_both_sides_with_sound(tmp_path: Path) -> None:
    pictures.write_side_by_side(tmp_path / "out.mp4", [recorded_side("Ada"), recorded_side("Bob")], 2.0)
    info = probe(tmp_path / "out.mp4")
    assert (info.width, info.height, info.frames) == (256, 92, 50)
    assert np.abs(np.concatenate(list(read_samples(tmp_path / "out.mp4"))).astype(int)).max() > 4000


def test_the_contact_sheet_shows_the_delay(tmp_path: Path) -> None:
    pictures.write_contact_sheet(tmp_path / "out.png", [recorded_side("Ada"), recorded_side("Bob")], 2.0)
    sheet = cv2.imread(str(tmp_path / "out.png"))
    assert sheet.shape == (pictures.LABEL_HEIGHT + pictures.ROWS * 64, 4 * 64, 3)
    last = sheet[-32, [32, 96], 0].astype(int)
    assert last[0] - last[1] == pytest.approx(10, abs=2)  # one frame behind
