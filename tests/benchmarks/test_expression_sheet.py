"""Contact sheet of expressions: which frames it shows, and how."""

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from iwcodec.benchmarks import expression_sheet
from iwcodec.benchmarks.comparison_pictures import LABEL_HEIGHT
from iwcodec.benchmarks.expression_sheet import (
    CELL,
    Features,
    expression_features,
    expressive_moments,
    face_square,
    moments,
    write_sheet,
)
from iwcodec.codec.media.crop.face_detector import Face
from iwcodec.codec.media.video import read_video, sample_clip
from iwcodec.models.runtime.load import load_runtime

EXPECTED = {
    **{20: "blink", 60: "glance", 80: "glance", 100: "open mouth", 120: "open mouth"},
    **{140: "wide mouth", 160: "narrow mouth"},
}


def speaking() -> Features:
    """200 frames with one of each expression, at the frames EXPECTED."""
    still = 0.3, 0.5, 0.1, 0.5
    frames = np.tile(still, (200, 1))
    frames[:, 2] += 0.001 * (np.arange(200) % 7)
    frames[20, 0] = 0.05
    frames[[60, 80], 1] = 0.7, 0.3
    frames[[100, 120], 2] = 0.6, 0.5
    frames[140, 3] = 0.9
    frames[160, 2:] = 0.3, 0.2
    return frames


def test_each_expression_is_found_where_it_is() -> None:
    found = moments(speaking(), gap=10)
    assert {moment.frame: moment.expression for moment in found}.items() >= EXPECTED.items()
    frames = sorted(moment.frame for moment in found)
    assert len(frames) == 8
    assert min(np.diff(frames)) >= 10


def test_frames_without_a_face_and_short_clips() -> None:
    features = speaking()
    features[20] = np.nan
    assert 20 not in {moment.frame for moment in moments(features, gap=10)}
    assert len(moments(features[:5], gap=10)) == 1
    assert moments(np.full((5, 4), np.nan), gap=1) == []


def test_long_clips_are_sampled_and_frames_counted_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expression_sheet, "MAX_FRAMES", 100)
    monkeypatch.setattr(expression_sheet, "expression_features", lambda pictures, runtime: np.array(pictures))
    clip: Any = list(speaking())
    found = expressive_moments(clip, Fraction(25), SimpleNamespace())
    assert {moment.frame: moment.expression for moment in found}.items() >= EXPECTED.items()


def test_expressions_are_those_of_the_mesh() -> None:
    picture = next(read_video(sample_clip())).picture[:, 270:630]
    small = np.asarray(cv2.resize(picture, (256, 256), interpolation=cv2.INTER_AREA), np.uint8)
    (eyes, gaze, opening, width), nothing = expression_features([small, np.zeros_like(small)], load_runtime())
    assert 0.2 < eyes < 0.5
    assert 0.3 < gaze < 0.7
    assert 0 <= opening < 0.2
    assert 0.4 < width < 0.8
    assert np.isnan(nothing).all()


@pytest.mark.parametrize(
    ("found", "square"),
    [
        ([], (10, 0, 100)),
        ([Face(40, 30, 32, 40, 0.9)], (31, 25, 50)),
        ([Face(-20, 80, 32, 40, 0.9)], (0, 50, 50)),
        ([Face(0, 0, 300, 300, 0.9)], (20, 0, 100)),
    ],
)
def test_the_square_around_the_face_lies_in_the_picture(found: list[Face], square: tuple[int, int, int]) -> None:
    picture = np.zeros((100, 120, 3), np.uint8)
    assert face_square(picture, SimpleNamespace(detect=lambda _: found)) == square


def test_sheet_has_a_row_per_expression(tmp_path: Path) -> None:
    shown = [(name, [np.full((64, 64, 3), level, np.uint8) for level in (40, 90)]) for name in ("blink", "glance")]
    write_sheet(tmp_path / "sheet.jpg", shown, ["original", "coded"])
    sheet = cv2.imread(str(tmp_path / "sheet.jpg"))
    assert sheet.shape == (2 * (CELL + LABEL_HEIGHT), 2 * CELL, 3)
    assert abs(sheet[-20, [20, -20]].astype(int) - [[40], [90]]).max() < 4
