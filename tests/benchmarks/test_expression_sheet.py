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
    expressive_moments,
    face_square,
    keypoint_features,
    moments,
    write_sheet,
)
from iwcodec.benchmarks.metrics.learned.availability import MetricUnavailableError
from iwcodec.codec.media.crop.face_detector import Face

EXPECTED = {
    **{20: "blink", 60: "glance", 80: "glance", 100: "open mouth", 120: "open mouth"},
    **{140: "wide mouth", 160: "narrow mouth"},
}


def face(opening: float = 0.6, gaze: float = 0.0, mouth: float = 0.1, width: float = 0.5) -> Any:
    """Keypoints (13, 3) of a face whose irises are 0.4 apart."""
    keypoints = np.zeros((13, 3), np.float32)
    keypoints[0] = -0.2 + 0.4 * gaze, -0.1, opening
    keypoints[1] = 0.2 + 0.4 * gaze, -0.1, opening
    keypoints[7, :2], keypoints[8, :2] = (-0.2 * width, 0.3), (0.2 * width, 0.3)
    keypoints[9, :2], keypoints[10, :2] = (0, 0.3 - 0.2 * mouth), (0, 0.3 + 0.2 * mouth)
    keypoints[11, :2], keypoints[12, :2] = (-0.2, -0.2), (0.2, -0.2)
    return keypoints


def speaking() -> list[Any]:
    """200 frames of keypoints with one of each expression, at the frames EXPECTED."""
    frames = [face(mouth=0.1 + 0.001 * (n % 7)) for n in range(200)]
    frames[20] = face(opening=0.1)
    frames[60], frames[80] = face(gaze=0.2), face(gaze=-0.2)
    frames[100], frames[120] = face(mouth=0.6), face(mouth=0.5)
    frames[140], frames[160] = face(width=0.9), face(width=0.2, mouth=0.3)
    return frames


def test_features_have_the_units_of_the_mesh() -> None:
    assert keypoint_features(np.stack([face(0.3, 0.1, 0.25, 0.75)]))[0] == pytest.approx([0.3, 0.1, 0.25, 0.75])


def test_each_expression_is_found_where_it_is() -> None:
    found = moments(keypoint_features(np.stack(speaking())), gap=10)
    assert {moment.frame: moment.expression for moment in found}.items() >= EXPECTED.items()
    frames = sorted(moment.frame for moment in found)
    assert len(frames) == 8
    assert min(np.diff(frames)) >= 10


def test_frames_without_a_face_and_short_clips() -> None:
    features = keypoint_features(np.stack(speaking()))
    features[20] = np.nan
    assert 20 not in {moment.frame for moment in moments(features, gap=10)}
    assert len(moments(features[:5], gap=10)) == 1
    assert moments(np.full((5, 4), np.nan), gap=1) == []


def test_long_clips_are_sampled_and_frames_counted_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the weights of the mesh, the codec's keypoints serve."""

    def unavailable() -> None:
        raise MetricUnavailableError("no weights")

    monkeypatch.setattr(expression_sheet, "FaceMesh", unavailable)
    monkeypatch.setattr(expression_sheet, "MAX_FRAMES", 100)
    clip: Any = speaking()
    found = expressive_moments(clip, Fraction(25), SimpleNamespace(detect=lambda keypoints: keypoints))
    assert {moment.frame: moment.expression for moment in found}.items() >= EXPECTED.items()


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
