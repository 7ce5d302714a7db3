"""Decoding, merging and cropping of detections, by hand; whole detectors are tested with face mesh and body pose."""

import cv2
import numpy as np
import pytest

from iwcodec.benchmarks.metrics.mesh.detector import (
    BODY,
    FACE,
    Detection,
    Square,
    anchors,
    decode,
    eye_level_square,
    merge,
    upright_square,
)


def test_anchors_are_the_centres_of_both_grids() -> None:
    centres = anchors(FACE.grids)
    assert centres.shape == (896, 2)
    np.testing.assert_array_equal(centres[:3], np.array([(0.5, 0.5), (0.5, 0.5), (1.5, 0.5)]) / 16)
    np.testing.assert_array_equal(centres[512:519], np.array([(0.5, 0.5)] * 6 + [(1.5, 0.5)]) / 8)
    assert anchors(BODY.grids).shape == (2254, 2)


def test_offsets_are_pixels_from_the_anchor() -> None:
    offsets = np.zeros((1, 16), np.float32)
    offsets[0, :6] = 12.8, -12.8, 64, 32, 6.4, 0
    boxes, points = decode(offsets / FACE.side, np.array([[0.5, 0.5]]))
    np.testing.assert_allclose(boxes[0], (0.6 - 0.25, 0.4 - 0.125, 0.6 + 0.25, 0.4 + 0.125))
    np.testing.assert_allclose(points[0, :2], [(0.55, 0.5), (0.5, 0.5)])


def test_overlapping_boxes_are_averaged_by_confidence() -> None:
    boxes = np.array([(0, 0, 10, 10), (0, 2, 10, 12), (30, 30, 40, 40)], float)
    face = merge(np.array([0.9, 0.3, 0.8]), boxes, np.repeat(boxes[:, None, :2], 6, axis=1))
    assert face.confidence == 0.9
    np.testing.assert_allclose(face.box, (0, 0.5, 10, 10.5))
    np.testing.assert_allclose(face.points, [(0, 0.5)] * 6)


def test_a_square_is_level_with_the_eyes() -> None:
    points = np.zeros((6, 2))
    points[:2] = (40, 50), (60, 70)
    square = eye_level_square(Detection(1, np.array([30.0, 40, 70, 90]), points), 1.5)
    assert (square.x, square.y, square.side) == (50, 65, 75)
    assert square.angle == pytest.approx(np.pi / 4)


def test_a_square_turns_with_the_body() -> None:
    points = np.zeros((4, 2))
    points[:2] = (100, 200), (140, 170)  # leaning to the right
    square = upright_square(Detection(1, np.zeros(4), points), 1.25)
    assert (square.x, square.y, square.side) == (100, 200, 125)
    np.testing.assert_allclose(square.to_picture(np.array([0.5, 0.1])), (140, 170))


def test_a_crop_shows_what_the_square_covers() -> None:
    y, x = np.mgrid[:100, :100].astype(np.uint8)
    picture = np.stack([x, y, x], -1)
    square = Square(40, 50, 32, angle=0.3)
    crop = square.crop(picture, 32, cv2.BORDER_REPLICATE)
    share = np.array([20, 9]) / 32
    np.testing.assert_allclose(crop[9, 20, :2], square.to_picture(share), atol=0.6)
