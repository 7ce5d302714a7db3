"""Expression from landmarks made by hand, and of the bundled speaker against himself."""

import itertools
from dataclasses import asdict

import cv2
import numpy as np
import pytest

from iwcodec.benchmarks.metrics.expression import (
    EYELIDS,
    LIP_CONTOURS,
    MAX_FRAMES,
    Expression,
    measure,
    measure_clip,
    to_eyes,
)
from iwcodec.benchmarks.metrics.learned.availability import MetricUnavailableError
from iwcodec.benchmarks.metrics.mesh.face_mesh import FaceMesh
from iwcodec.benchmarks.metrics.scoring import METRICS, Clip, make_scorer
from iwcodec.codec.media.types import Picture
from iwcodec.codec.media.video import read_video, sample_clip
from iwcodec.codec.sources.face_mesh import Landmarks
from support.codec.face_landmarks import EYE_DISTANCE, face


def moving(count: int = 20) -> list[Landmarks]:
    """Eyes, gaze and mouth move independently; eyes are closed in frames 4 and 14."""
    rng = np.random.default_rng(0)
    eyes = rng.uniform(0.9, 1.1, count)
    eyes[4::10] = 0.1
    return [
        face(e, *values) for e, values in zip(eyes, rng.uniform((0.3, 0, 40), (0.7, 10, 60), (count, 3)), strict=True)
    ]


def test_landmarks_are_compared_at_the_same_eyes() -> None:
    turn = np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
    moved = (1.7 * face(0.8, 0.4, 5) @ turn.T + (30, -20)).astype(np.float32)
    np.testing.assert_allclose(to_eyes(moved), to_eyes(face(0.8, 0.4, 5)), atol=1e-5)


def test_a_clip_against_itself_is_perfect() -> None:
    scores = asdict(measure(moving(), moving()))
    perfect = {"blink_recall": 1, "blink_false": 0, "lips_lmd": 0, "eyes_lmd": 0, "faces": 20}
    assert scores == pytest.approx({name: perfect.get(name, 1) for name in scores})


def test_a_frozen_face_has_no_correlation_and_no_blinks() -> None:
    scores = measure(moving(), [face()] * 20)
    assert (scores.eye_r, scores.gaze_r, scores.mouth_open_r, scores.mouth_width_r) == (0, 0, 0, 0)
    assert (scores.blink_recall, scores.blink_false) == (0, 0)


def test_only_the_changed_feature_suffers() -> None:
    decoded = moving()
    gaze = [landmarks[[468, 473]] for landmarks in decoded]
    for landmarks, other in zip(decoded, gaze[::-1], strict=True):
        landmarks[[468, 473]] = other
    scores = measure(moving(), decoded)
    assert scores.gaze_r < 0.9
    assert (scores.eye_r, scores.mouth_open_r, scores.mouth_width_r) == pytest.approx((1, 1, 1))
    assert scores.lips_lmd == 0


def test_blinks_lost_and_invented_are_counted() -> None:
    decoded = moving()
    decoded[4], decoded[9] = face(1), face(0.1)
    scores = measure(moving(), decoded)
    assert scores.blink_recall == 0.5
    assert scores.blink_false == pytest.approx(1 / 18)


def test_without_blinks_their_recall_is_undefined() -> None:
    open_eyes = [face(1 + n / 100, 0.5, n) for n in range(20)]
    assert measure(open_eyes, open_eyes).blink_recall is None


def test_landmark_distance_is_in_percent_of_the_eye_distance() -> None:
    moved = [landmarks.copy() for landmarks in moving()]
    for landmarks in moved:
        landmarks[LIP_CONTOURS, 1] += 6
    scores = measure(moving(), moved)
    assert scores.lips_lmd == pytest.approx(100 * 6 / EYE_DISTANCE, rel=1e-4)
    assert scores.eyes_lmd == pytest.approx(0, abs=1e-4)
    assert len(LIP_CONTOURS) == 40
    assert len(EYELIDS) == 34


def test_frames_without_a_face_are_left_out() -> None:
    with_gap: list[Landmarks | None] = [*moving()]
    with_gap[3] = None
    assert measure(moving(), with_gap).faces == 19
    assert measure(moving(), [None] * 20) == Expression(0, *[None] * 8)
    with pytest.raises(ValueError, match=r"shorter|longer"):
        measure(moving(), moving(19))


@pytest.mark.parametrize(("count", "measured"), [(30, 30), (239, 239), (240, 120), (600, 120), (650, 130)])
def test_about_120_frames_are_measured(count: int, measured: int) -> None:
    assert MAX_FRAMES == 120
    pictures = [np.full((1, 1, 3), n % 256, np.uint8) for n in range(count)]
    assert measure_clip(lambda picture: face(mouth=float(picture[0, 0, 0])), pictures, pictures).faces == measured


def test_clips_of_different_length_are_rejected() -> None:
    with pytest.raises(ValueError, match="2 original frames"):
        measure_clip(lambda picture: None, [np.zeros((8, 8, 3), np.uint8)] * 2, [])


def test_the_scorer_returns_every_column_and_is_repeatable() -> None:
    try:
        FaceMesh()
    except MetricUnavailableError as error:
        pytest.skip(str(error))
    pictures = [frame.picture[:, 270:630] for frame in itertools.islice(read_video(sample_clip()), 60)][::5]
    blurred: list[Picture] = [cv2.GaussianBlur(picture, (0, 0), 4) for picture in pictures]
    scorer = make_scorer(["expression"])
    same, worse = (scorer(Clip(pictures, made, 24)) for made in (pictures, blurred))
    assert set(same) == set(METRICS["expression"]) == scorer.columns
    assert same["eye_r"] == same["mouth_open_r"] == 1
    assert same["lips_lmd"] == same["eyes_lmd"] == 0
    assert 0 < (worse["lips_lmd"] or 0) < 20
    assert worse == make_scorer(["expression"])(Clip(pictures, blurred, 24))
