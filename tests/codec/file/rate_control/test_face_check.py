"""Keypoints that miss the face, in a clip's pictures and in its decoded sources."""

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from iwcodec.codec.file.rate_control import face_check
from iwcodec.codec.file.rate_control.closed_loop import Stream
from iwcodec.codec.file.rate_control.face_check import (
    CHECK_EVERY,
    MAX_OFF,
    FaceCheck,
    at_landmarks,
    misleading_sources,
    off_regions,
    points,
)
from iwcodec.codec.file.rate_control.source_plan import Plan, encode_plan
from iwcodec.codec.media.crop.face_detector import Face, FaceDetector
from iwcodec.codec.media.video import read_video, sample_clip
from iwcodec.codec.shipped_model import load_runtime
from iwcodec.codec.sources.regions import EYES, MOUTH
from support.codec.stub_runtime import SIZE, StubRuntime

PICTURE = np.zeros((256, 256, 3), np.uint8)


def found(x: float = 128.0) -> Face:
    """A face whose eyes are 40 pixels apart, x pixels from the left."""
    return Face(x - 50, 60, 100, 130, 0.9, ((x - 20, 100), (x + 20, 100), (x, 120), (x - 15, 150), (x + 15, 150)))


def keypoints(off: float = 0.0) -> np.ndarray:
    """(20, 3): on that face, with the left iris `off` pixels to the right."""
    rows = np.full((20, 3), 0.5, np.float32)
    rows[:2, 0], rows[:2, 1] = ((108 + 0.5) / 128 - 1, (148 + off + 0.5) / 128 - 1), (100 + 0.5) / 128 - 1
    rows[7:11, :2] = (128 + 0.5) / 128 - 1, (150 + 0.5) / 128 - 1
    return rows


class Detector(SimpleNamespace):
    """Counts how often it is asked."""

    def __init__(self, *faces: Face) -> None:
        super().__init__(faces=faces, asked=0)

    def detect(self, picture: Any) -> list[Face]:
        self.asked += 1
        return list(self.faces)


def checked(detector: Detector, offs: list[float], monkeypatch: pytest.MonkeyPatch) -> tuple[list[float], float]:
    """The left iris's x in pixels in each of these frames, and the share of wrong ones."""
    monkeypatch.setattr(face_check, "FaceDetector", lambda: detector)
    check, irises = FaceCheck(), list[float]()
    for first in range(0, len(offs), CHECK_EVERY):
        group = [keypoints(off) for off in offs[first : first + CHECK_EVERY]]
        corrected = check.corrected([PICTURE] * len(group), group)
        irises += [float((found[1, 0] + 1) * 128 - 0.5) for found in corrected]
    return irises, check.wrong_share


def test_keypoints_on_the_face_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = Detector(found())
    irises, share = checked(detector, [3.0] * 11, monkeypatch)
    assert irises == pytest.approx([151.0] * 11, abs=0.01)
    assert share == 0
    assert detector.asked == 3, f"every {CHECK_EVERY}th picture"


def test_keypoints_beside_it_give_way_to_landmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures after a wrong one are looked at until the next regular one; others are believed."""
    detector = Detector(found())
    irises, share = checked(detector, [30.0, 30, 2, 30, 30, 2, 30, 30, 30, 30, 2], monkeypatch)
    assert irises == pytest.approx([148.0, 148, 150, 148, 148, 150, 178, 178, 178, 178, 150], abs=0.01)
    assert share == pytest.approx(1 / 3)
    assert detector.asked == 7


def test_without_a_face_keypoints_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    irises, share = checked(Detector(), [30.0], monkeypatch)
    assert irises == pytest.approx([178.0], abs=0.01)
    assert share == 0


def test_only_eyes_and_mouth_are_moved_to_the_nearest_face() -> None:
    detector: Any = Detector(found(30.0), found(130.0))
    moved = at_landmarks(PICTURE, keypoints(), detector)
    expected = (np.array([(110, 100), (150, 100), (130, 150)]) + 0.5) / 128 - 1
    np.testing.assert_allclose(points(moved), expected, atol=1e-6)
    others = [k for k in range(20) if k not in (0, 1, 7, 8, 9, 10)]
    np.testing.assert_array_equal(moved[others], keypoints()[others])
    np.testing.assert_array_equal(moved[:, 2], keypoints()[:, 2])


@pytest.mark.parametrize(("rows", "regions"), [([0], {EYES, MOUTH}), ([1], {EYES, MOUTH}), ([7, 8, 9, 10], {MOUTH})])
def test_one_point_beside_the_face_is_enough(rows: list[int], regions: set[int]) -> None:
    """Distances count in distances of the eyes, 40 pixels here."""
    moved = keypoints()
    moved[rows, 1] += 40 / 128 * MAX_OFF * 0.95
    assert off_regions(moved, keypoints()) == set()
    moved[rows, 1] += 40 / 128 * MAX_OFF * 0.1
    assert off_regions(moved, keypoints()) == regions


def test_sources_mislead_by_their_decoded_pictures() -> None:
    """The stub's keypoints follow the grey level of a picture, which tells the sources apart."""
    runtime, levels = StubRuntime(), (60, 200, 120)
    pictures = [np.full((SIZE, SIZE, 3), level, np.uint8) for level in levels]
    faces = np.stack([runtime.detect(picture) for picture in pictures])
    coded = encode_plan(Plan((2, 1, 0), 40, True), [(n, pictures[n]) for n in (2, 1, 0)], SIZE)
    assert misleading_sources(Stream(coded, [], 1), faces, runtime) == {EYES: set(), MOUTH: set()}
    faces[2, :, 0] += 0.3
    assert misleading_sources(Stream(coded, [], 1), faces, runtime) == {EYES: {0}, MOUTH: {0}}


def test_landmarks_and_keypoints_agree_on_the_sample() -> None:
    picture = next(read_video(sample_clip())).picture
    face = cv2.resize(picture[:, 270:630], (256, 256), interpolation=cv2.INTER_AREA)
    found = load_runtime(threads=1).detect(face)
    right = at_landmarks(face, found, FaceDetector())
    assert right is not None
    assert np.abs(points(right) - points(found)).max() < 0.06
