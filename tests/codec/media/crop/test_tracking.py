"""The crop follows the speaker: calm, smooth, and always inside the picture."""

from collections.abc import Callable, Sequence
from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iwcodec.codec.errors import NoFaceError, OptionError
from iwcodec.codec.media.crop.face_detector import DETECT_EVERY, Face, FaceDetector
from iwcodec.codec.media.crop.square import Crop, centre_square
from iwcodec.codec.media.crop.tracking import CropTracker, parse_face, plan_crops
from iwcodec.codec.media.video import read_video, sample_clip

WIDTH, HEIGHT = 1280, 720
Detections = list[list[Face] | None]


def face_at(x: float, y: float = 300, height: float = 160) -> Face:
    """A face centred at (x, y)."""
    width = 0.75 * height
    return Face(x - width / 2, y - height / 2, width, height, 0.9)


def detections(faces: Sequence[Face | None]) -> Detections:
    """The results of a detector that runs on every fifth frame."""
    return [None if n % DETECT_EVERY else [face] if face else [] for n, face in enumerate(faces)]


def live(frames: Detections, width: int = WIDTH, height: int = HEIGHT) -> list[Crop]:
    tracker = CropTracker(width, height)
    return [tracker.update(faces) for faces in frames]


def planned(frames: Detections) -> list[Crop]:
    return plan_crops(frames, WIDTH, HEIGHT)


CropsOf = Callable[[Detections], list[Crop]]
BOTH = pytest.mark.parametrize("crops_of", [live, planned])


def steps(crops: Sequence[Crop]) -> np.ndarray:
    """Largest movement of an edge from each crop to the next, in pixels."""
    edges = np.array([(c.x, c.y, c.x + c.side, c.y + c.side) for c in crops])
    return np.abs(np.diff(edges, axis=0)).max(axis=1)


def off_centre(face: Face, crop: Crop) -> float:
    return abs(face.x + face.w / 2 - crop.x - crop.side / 2) / crop.side


@BOTH
def test_the_first_crop_shows_head_and_shoulders(crops_of: CropsOf) -> None:
    crop = crops_of(detections([face_at(700)]))[0]
    assert 0.45 <= 160 / crop.side <= 0.55
    assert crop.x + crop.side / 2 == pytest.approx(700, abs=2)
    room = (300 - 80 - crop.y) / crop.side  # above the face box, which ends at the forehead
    assert 0.2 < room < 0.3


@BOTH
def test_the_crop_of_a_seated_speaker_never_moves(crops_of: CropsOf) -> None:
    """Nodding, swaying and talking stay within the hysteresis."""
    rng = np.random.default_rng(0)
    time = np.arange(1500) / 25
    swaying = [
        face_at(640 + 20 * np.sin(1.3 * t) + 3 * n, 300 + 10 * np.sin(3 * t), 160 * (1 + 0.08 * np.sin(2 * t)))
        for t, n in zip(time, rng.standard_normal(1500), strict=True)
    ]
    assert len(set(crops_of(detections(swaying)))) == 1


@BOTH
@pytest.mark.parametrize(("shift", "growth"), [(400, 1.0), (-300, 1.0), (60, 1.9), (0, 0.5)])
def test_a_moving_speaker_is_followed_slowly_and_smoothly(crops_of: CropsOf, shift: float, growth: float) -> None:
    part = np.clip((np.arange(600) - 100) / 200, 0, 1)
    faces = [face_at(640 + shift * p, 340, 160 * growth**p) for p in part]
    crops = crops_of(detections(faces))
    sides = np.array([crop.side for crop in crops])
    moved = steps(crops)
    assert (moved <= 0.01 * sides[1:] + 1.5).all()  # 1 %, and whole pixels
    assert np.abs(np.diff([(c.x, c.y, c.side) for c in crops], n=2, axis=0)).max() <= 2  # no jerks
    assert moved.any()
    assert off_centre(faces[-1], crops[-1]) < 0.13
    assert 0.75 < sides[-1] * 0.5 / faces[-1].h < 1.3
    assert not moved[-100:].any()


def test_look_ahead_moves_earlier_and_stays_closer() -> None:
    part = np.clip((np.arange(500) - 100) / 100, 0, 1)
    faces = [face_at(500 + 300 * p) for p in part]
    now, ahead = live(detections(faces)), planned(detections(faces))
    assert np.argmax(steps(ahead) > 0) < np.argmax(steps(now) > 0)
    worst = [max(off_centre(f, c) for f, c in zip(faces, crops, strict=True)) for crops in (now, ahead)]
    assert worst[1] < worst[0]


def test_look_ahead_finds_one_place_that_serves_the_whole_file() -> None:
    """A face that moves to and fro by 0.18 sides leaves its first place, but never the middle of both."""
    faces = [face_at(600 + 58 * (n // 100 % 2)) for n in range(600)]
    assert len(set(planned(detections(faces)))) == 1
    assert len(set(live(detections(faces)))) > 1


def test_before_the_first_face_a_call_shows_the_middle_and_a_file_already_the_speaker() -> None:
    faces = detections([None] * 50 + [face_at(900)] * 50)
    now, ahead = live(faces), planned(faces)
    assert now[:50] == [centre_square(WIDTH, HEIGHT)] * 50
    assert len(set(now[50:])) == 1
    assert len(set(ahead)) == 1
    assert now[60].x + now[60].side / 2 == pytest.approx(900, abs=2)


@BOTH
def test_the_crop_stays_while_the_face_is_gone(crops_of: CropsOf) -> None:
    faces = [face_at(700)] * 100 + [None] * 200 + [face_at(720)] * 100
    assert len(set(crops_of(detections(faces)))) == 1


def test_the_crop_stops_when_the_face_is_lost_while_moving() -> None:
    walking = [face_at(600 + 5 * n) for n in range(40)]
    faces = [face_at(600)] * 40 + walking + [None] * 100
    crops = live(detections(faces))
    assert steps(crops)[60:80].any()
    assert len(set(crops[110:])) == 1


@BOTH
def test_a_second_and_larger_face_does_not_steal_the_crop(crops_of: CropsOf) -> None:
    frames: Detections = []
    for n in range(300):
        faces = [face_at(400)]
        if n >= 100:
            faces.insert(0, face_at(900, height=240))
        frames.append(None if n % DETECT_EVERY else faces)
    assert len(set(crops_of(frames))) == 1


@BOTH
def test_of_two_faces_the_larger_is_framed_at_first(crops_of: CropsOf) -> None:
    crop = crops_of([[face_at(400, height=100), face_at(900, height=200)]])[0]
    assert crop.x + crop.side / 2 == pytest.approx(900, abs=2)


def test_another_speaker_takes_over_after_a_while() -> None:
    faces = [face_at(400)] * 50 + [None] * 10 + [face_at(1000)] * 100
    crops = live(detections(faces))
    assert crops[70] == crops[0]
    assert off_centre(faces[-1], crops[-1]) < 0.01
    assert (steps(crops) > 0).sum() == 1  # one jump, not a pan


def test_one_wrong_detection_moves_nothing() -> None:
    faces: list[Face | None] = [face_at(600)] * 300
    faces[150] = face_at(660, height=230)
    assert len(set(live(detections(faces)))) == 1
    assert len(set(planned(detections(faces)))) == 1


@settings(max_examples=30, deadline=None)
@given(
    st.integers(40, 700),
    st.integers(40, 700),
    st.lists(st.tuples(st.floats(-0.5, 1.5), st.floats(-0.5, 1.5), st.floats(0.001, 3)), max_size=30),
)
def test_the_crop_is_always_a_square_inside_the_picture(
    width: int, height: int, faces: list[tuple[float, float, float]]
) -> None:
    frames: Detections = [[face_at(x * width, y * height, h * height)] for x, y, h in faces]
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
        plan_crops(detections([None] * 20), WIDTH, HEIGHT)


def test_the_crop_of_the_sample_never_moves() -> None:
    """Even when the speaker disappears for a while."""
    pictures = [frame.picture for frame in islice(read_video(sample_clip()), 60)]
    grey = np.full_like(pictures[0], 128)
    shown, detector = [*pictures, *[grey] * 40, *pictures[::-1]], FaceDetector()
    faces = [None if n % DETECT_EVERY else detector.detect(picture) for n, picture in enumerate(shown)]
    for crops in (live(faces, 640, 360), plan_crops(faces, 640, 360)):
        assert len(set(crops)) == 1
        assert crops[0].side == 360
        assert 200 < crops[0].x <= 280
    assert all(a == b for a, b in pairwise(crops))


def two_faces(count: int) -> Detections:
    """A small face on the left, a large one on the right."""
    return [None if n % DETECT_EVERY else [face_at(900, height=200), face_at(300, height=120)] for n in range(count)]


@pytest.mark.parametrize(
    ("text", "centre"), [("largest", 900), ("1", 300), ("2", 900), ("350,280", 300), ("1000,0", 900)]
)
def test_the_face_to_follow_is_chosen(text: str, centre: int) -> None:
    crops = plan_crops(two_faces(30), WIDTH, HEIGHT, choice=parse_face(text))
    assert {crop.x + crop.side / 2 for crop in crops} == {centre}


def test_a_face_is_waited_for_and_missed_by_number() -> None:
    alone = detections([face_at(300, height=120)] * 20)
    crops = plan_crops([*alone, *two_faces(40)], WIDTH, HEIGHT, choice=parse_face("2"))
    assert {crop.x + crop.side / 2 for crop in crops} == {900}
    with pytest.raises(NoFaceError, match="There is no face 3: at most 2 are in the video at once"):
        plan_crops(two_faces(20), WIDTH, HEIGHT, choice=parse_face("3"))


@pytest.mark.parametrize("text", ["", "0", "-1", "first", "1,2,3", "1.5", "9" * 9])
def test_other_faces_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="is not a face"):
        parse_face(text)


def test_every_shot_is_framed_from_its_first_frame() -> None:
    """A title without a face, then one speaker, then another elsewhere."""
    title, left, right = ([face] * 24 for face in (None, face_at(300), face_at(1000)))
    frames = detections([*title, *left, *right])
    for first in (24, 48):  # the detector also runs at cuts
        frames[first] = [face_at(300 if first == 24 else 1000)]
    crops = plan_crops(frames, WIDTH, HEIGHT, shots=[0, 24, 48])
    assert set(crops[:24]) == {centre_square(WIDTH, HEIGHT)}
    assert {crop.x + crop.side / 2 for crop in crops[24:48]} == {300}
    assert {crop.x + crop.side / 2 for crop in crops[48:]} == {1000}


def test_one_shot_is_planned_as_before() -> None:
    frames = detections([face_at(300 + 8 * n) for n in range(60)])
    assert plan_crops(frames, WIDTH, HEIGHT, shots=[0]) == planned(frames)
