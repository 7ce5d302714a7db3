from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice, pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iwcodec.codec.errors import CodecError, NoFaceError
from iwcodec.codec.media.crop_tracking import Crop, CropTracker, centre_square, crop_resize, parse_crop, plan_crops
from iwcodec.codec.media.face_detector import DETECT_EVERY, Face, FaceDetector, find_faces
from iwcodec.codec.media.video import read_video, sample_clip

WIDTH, HEIGHT = 1280, 720
Looks = list[list[Face] | None]


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector()


@pytest.fixture(scope="module")
def speaker() -> np.ndarray:
    """The sample's first picture, 360 x 640, with a face right of the middle."""
    return next(read_video(sample_clip())).picture


def face_at(x: float, y: float = 300, height: float = 160) -> Face:
    """A face centred there."""
    width = 0.75 * height
    return Face(x - width / 2, y - height / 2, width, height, 0.9)


def looks(faces: Sequence[Face | None]) -> Looks:
    """What a detector that looks at every fifth frame reports."""
    return [None if n % DETECT_EVERY else [face] if face else [] for n, face in enumerate(faces)]


def live(frames: Looks, width: int = WIDTH, height: int = HEIGHT) -> list[Crop]:
    tracker = CropTracker(width, height)
    return [tracker.update(faces) for faces in frames]


def planned(frames: Looks) -> list[Crop]:
    return plan_crops(frames, WIDTH, HEIGHT)


CropsOf = Callable[[Looks], list[Crop]]
BOTH = pytest.mark.parametrize("crops_of", [live, planned])


def steps(crops: Sequence[Crop]) -> np.ndarray:
    """By how many pixels the edge that moved most moved from each crop to the next."""
    edges = np.array([(c.x, c.y, c.x + c.side, c.y + c.side) for c in crops])
    return np.abs(np.diff(edges, axis=0)).max(axis=1)


def off_centre(face: Face, crop: Crop) -> float:
    return abs(face.x + face.w / 2 - crop.x - crop.side / 2) / crop.side


# ---------------------------------------------------------------------------------------------- detector


def test_the_face_of_the_sample_is_found_where_it_is(detector: FaceDetector, speaker: np.ndarray) -> None:
    (face,) = detector.detect(speaker)
    assert face.score > 0.8
    assert 400 < face.x + face.w / 2 < 480
    assert 120 < face.y + face.h / 2 < 200
    assert 220 < face.h < 330


def test_in_every_look_at_the_sample_there_is_one_face(detector: FaceDetector) -> None:
    for frame in islice(read_video(sample_clip()), 0, None, 20):
        assert len(detector.detect(frame.picture)) == 1


def test_no_face_in_grey_or_noise(detector: FaceDetector) -> None:
    assert detector.detect(np.full((240, 320, 3), 128, np.uint8)) == []
    assert detector.detect(np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)) == []


@pytest.mark.parametrize("turn", [0, 1])
def test_small_faces_and_tall_pictures(detector: FaceDetector, speaker: np.ndarray, turn: int) -> None:
    small = cv2.resize(speaker[:, 260:620], (100, 100), interpolation=cv2.INTER_AREA)
    wide = np.full((720, 1280, 3), 90, np.uint8)
    if turn:
        wide = np.ascontiguousarray(wide.transpose(1, 0, 2))
    wide[400:500, 300:400] = small
    (face,) = detector.detect(wide)
    assert 335 < face.x + face.w / 2 < 365
    assert 425 < face.y + face.h / 2 < 465


def test_two_faces_are_two(detector: FaceDetector, speaker: np.ndarray) -> None:
    half = speaker[:, 240:640]
    faces = sorted(detector.detect(np.hstack([half, half])), key=lambda face: face.x)
    assert len(faces) == 2
    assert faces[1].x - faces[0].x == pytest.approx(400, abs=10)


# --------------------------------------------------------------------------------------------- crop modes


def test_crop_modes() -> None:
    assert parse_crop("face", 640, 360) is None
    assert parse_crop("none", 640, 360) == Crop(140, 0, 360)
    assert parse_crop("face", 512, 512) == Crop(0, 0, 512)
    assert parse_crop("100, 20,300", 640, 360) == Crop(100, 20, 300)
    assert parse_crop("10,20,300", 512, 512) == Crop(10, 20, 300)
    assert centre_square(33, 101) == Crop(0, 34, 33)


@pytest.mark.parametrize(
    ("mode", "word"),
    [
        ("middle", "not a crop"),
        ("", "not a crop"),
        ("1,2", "not a crop"),
        ("-1,0,100", "not a crop"),
        ("1,2,3,4", "not a crop"),
        ("0,0,8", "at least"),
        ("300,0,360", "inside"),
        ("0,1,360", "inside"),
        ("0,0,999999", "inside"),
    ],
)
def test_crops_that_make_no_sense(mode: str, word: str) -> None:
    with pytest.raises(CodecError, match=word):
        parse_crop(mode, 640, 360)


def test_crop_resize_takes_the_square_and_only_it() -> None:
    picture = np.zeros((60, 80, 3), np.uint8)
    picture[10:50, 20:60] = (200, 100, 50)
    for size in (20, 40, 64):
        square = crop_resize(picture, Crop(20, 10, 40), size)
        assert square.shape == (size, size, 3)
        assert square.flags.c_contiguous
        assert (square == (200, 100, 50)).all()


def test_crop_resize_shrinks_by_averaging() -> None:
    checks = np.indices((64, 64)).sum(axis=0) % 2 * 255
    picture = np.repeat(checks[..., None], 3, axis=2).astype(np.uint8)
    assert np.abs(crop_resize(picture, Crop(0, 0, 64), 16).astype(int) - 127.5).max() <= 1


def test_crop_resize_continues_the_edge_outside() -> None:
    picture = np.zeros((20, 40, 3), np.uint8)
    picture[0] = 200
    square = crop_resize(picture, Crop(-5, -10, 50), 50)
    assert (square[:11] == 200).all()
    assert (square[11:] == 0).all()


# ------------------------------------------------------------------------------------------------ following


@BOTH
def test_first_crop_shows_head_and_shoulders(crops_of: CropsOf) -> None:
    crop = crops_of(looks([face_at(700)]))[0]
    assert 0.45 <= 160 / crop.side <= 0.55
    assert crop.x + crop.side / 2 == pytest.approx(700, abs=2)
    room = (300 - 80 - crop.y) / crop.side  # above the face box, which ends at the forehead
    assert 0.2 < room < 0.3


@BOTH
def test_the_crop_of_a_still_speaker_never_moves(crops_of: CropsOf) -> None:
    """Heads that nod, sway and open their mouths sit still, too."""
    rng = np.random.default_rng(0)
    time = np.arange(1500) / 25
    swaying = [
        face_at(640 + 20 * np.sin(1.3 * t) + 3 * n, 300 + 10 * np.sin(3 * t), 160 * (1 + 0.08 * np.sin(2 * t)))
        for t, n in zip(time, rng.standard_normal(1500), strict=True)
    ]
    assert len(set(crops_of(looks(swaying)))) == 1


@BOTH
@pytest.mark.parametrize(("shift", "growth"), [(400, 1.0), (-300, 1.0), (60, 1.9), (0, 0.5)])
def test_a_moving_speaker_is_followed_slowly_and_smoothly(crops_of: CropsOf, shift: float, growth: float) -> None:
    part = np.clip((np.arange(600) - 100) / 200, 0, 1)
    faces = [face_at(640 + shift * p, 340, 160 * growth**p) for p in part]
    crops = crops_of(looks(faces))
    sides = np.array([crop.side for crop in crops])
    moved = steps(crops)
    assert (moved <= 0.01 * sides[1:] + 1.5).all()  # 1 %, and whole pixels
    assert np.abs(np.diff([(c.x, c.y, c.side) for c in crops], n=2, axis=0)).max() <= 2  # no jerks
    assert moved.any()
    assert off_centre(faces[-1], crops[-1]) < 0.13
    assert 0.75 < sides[-1] * 0.5 / faces[-1].h < 1.3
    assert not moved[-100:].any()


def test_looking_ahead_is_earlier_and_moves_less() -> None:
    part = np.clip((np.arange(500) - 100) / 100, 0, 1)
    faces = [face_at(500 + 300 * p) for p in part]
    now, ahead = live(looks(faces)), planned(looks(faces))
    assert np.argmax(steps(ahead) > 0) < np.argmax(steps(now) > 0)
    worst = [max(off_centre(f, c) for f, c in zip(faces, crops, strict=True)) for crops in (now, ahead)]
    assert worst[1] < worst[0]


def test_looking_ahead_finds_the_one_place_that_serves_all_along() -> None:
    """To and fro by 0.18 sides: the first place alone would be left, their middle never is."""
    faces = [face_at(600 + 58 * (n // 100 % 2)) for n in range(600)]
    assert len(set(planned(looks(faces)))) == 1
    assert len(set(live(looks(faces)))) > 1


def test_before_the_first_face_a_call_shows_the_middle_and_a_file_already_the_speaker() -> None:
    faces = looks([None] * 50 + [face_at(900)] * 50)
    now, ahead = live(faces), planned(faces)
    assert now[:50] == [centre_square(WIDTH, HEIGHT)] * 50
    assert len(set(now[50:])) == 1
    assert len(set(ahead)) == 1
    assert now[60].x + now[60].side / 2 == pytest.approx(900, abs=2)


@BOTH
def test_the_crop_stays_while_the_face_is_gone(crops_of: CropsOf) -> None:
    faces = [face_at(700)] * 100 + [None] * 200 + [face_at(720)] * 100
    assert len(set(crops_of(looks(faces)))) == 1


def test_the_crop_stops_when_the_face_is_lost_on_the_way() -> None:
    walking = [face_at(600 + 5 * n) for n in range(40)]
    faces = [face_at(600)] * 40 + walking + [None] * 100
    crops = live(looks(faces))
    assert steps(crops)[60:80].any()
    assert len(set(crops[110:])) == 1


@BOTH
def test_a_second_and_larger_face_does_not_steal_the_crop(crops_of: CropsOf) -> None:
    frames: Looks = []
    for n in range(300):
        seen = [face_at(400)]
        if n >= 100:
            seen.insert(0, face_at(900, height=240))
        frames.append(None if n % DETECT_EVERY else seen)
    assert len(set(crops_of(frames))) == 1


@BOTH
def test_of_two_faces_the_larger_is_framed_at_first(crops_of: CropsOf) -> None:
    crop = crops_of([[face_at(400, height=100), face_at(900, height=200)]])[0]
    assert crop.x + crop.side / 2 == pytest.approx(900, abs=2)


def test_another_speaker_takes_over_after_a_while() -> None:
    faces = [face_at(400)] * 50 + [None] * 10 + [face_at(1000)] * 100
    crops = live(looks(faces))
    assert crops[70] == crops[0]
    assert off_centre(faces[-1], crops[-1]) < 0.01
    assert (steps(crops) > 0).sum() == 1  # a cut, not a journey past an empty wall


def test_one_wrong_look_moves_nothing() -> None:
    faces: list[Face | None] = [face_at(600)] * 300
    faces[150] = face_at(660, height=230)
    assert len(set(live(looks(faces)))) == 1
    assert len(set(planned(looks(faces)))) == 1


@settings(max_examples=30, deadline=None)
@given(
    st.integers(40, 700),
    st.integers(40, 700),
    st.lists(st.tuples(st.floats(-0.5, 1.5), st.floats(-0.5, 1.5), st.floats(0.001, 3)), max_size=30),
)
def test_the_crop_is_always_a_square_inside_the_picture(
    width: int, height: int, faces: list[tuple[float, float, float]]
) -> None:
    frames: Looks = [[face_at(x * width, y * height, h * height)] for x, y, h in faces]
    crops = live(frames, width, height)
    if frames:
        crops += plan_crops(frames, width, height)
    for crop in crops:
        assert crop.side >= min(32, width, height)
        assert crop.x >= 0
        assert crop.y >= 0
        assert crop.x + crop.side <= width
        assert crop.y + crop.side <= height


def test_a_file_without_a_face_is_an_error() -> None:
    with pytest.raises(NoFaceError, match="No face"):
        plan_crops(looks([None] * 20), WIDTH, HEIGHT)


def test_the_sample_is_framed_once_and_for_all(detector: FaceDetector) -> None:
    """Also when the speaker disappears for a while."""
    pictures = [frame.picture for frame in islice(read_video(sample_clip()), 60)]
    grey = np.full_like(pictures[0], 128)
    looked = find_faces([*pictures, *[grey] * 40, *pictures[::-1]], detector)
    assert [n for n, faces in enumerate(looked) if faces is not None] == list(range(0, 160, DETECT_EVERY))
    for crops in (live(looked, 640, 360), plan_crops(looked, 640, 360)):
        assert len(set(crops)) == 1
        assert crops[0].side == 360
        assert 200 < crops[0].x <= 280
    assert all(a == b for a, b in pairwise(crops))
