"""MTCNN on the bundled speaker, and against the code of the package that carries the weights."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from iwcodec.benchmarks.metrics import mtcnn
from iwcodec.benchmarks.metrics.learned.availability import MetricUnavailableError
from iwcodec.benchmarks.metrics.mtcnn import Mtcnn, non_maximum_suppression, pyramid, to_squares
from iwcodec.codec.media.types import Picture
from iwcodec.codec.media.video import read_video


@pytest.fixture(scope="module")
def find() -> Mtcnn:
    try:
        return Mtcnn()
    except MetricUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def speaker(face_clip: Path) -> Picture:
    return next(iter(read_video(face_clip))).picture


def test_finds_the_face_and_its_landmarks(find: Mtcnn, speaker: Picture) -> None:
    (face,) = find(speaker)
    assert face.confidence > 0.99
    left, right, nose, *mouth = face.points
    assert left[0] < nose[0] < right[0]
    assert max(left[1], right[1]) < nose[1] < min(corner[1] for corner in mouth)
    assert (face.box[:2] < face.points).all()
    assert (face.points < face.box[2:]).all()


def test_landmarks_move_with_the_picture(find: Mtcnn, speaker: Picture) -> None:
    (before,), (after,) = find(speaker), find(np.roll(speaker, (8, -8), (0, 1)))
    assert (after.points - before.points).mean(0) == pytest.approx((-8, 8), abs=1)


def test_two_speakers_are_two_faces(find: Mtcnn, speaker: Picture) -> None:
    assert len(find(np.concatenate([speaker, speaker[:, ::-1]], axis=1))) == 2


@pytest.mark.parametrize("shape", [(128, 128), (200, 30), (8, 8)])
def test_picture_without_a_face_gives_none(find: Mtcnn, shape: tuple[int, int]) -> None:
    assert find(np.zeros((*shape, 3), np.uint8)) == []
    assert find(np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)) == []


def test_equals_facenet_pytorch(find: Mtcnn, speaker: Picture, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = facenet_pytorch_class(monkeypatch)(select_largest=False, device="cpu")
    for picture in (speaker, speaker[:, ::-1], np.concatenate([speaker, speaker[:, ::-1]], axis=1)):
        _, confidence, points = theirs.detect(np.ascontiguousarray(picture), landmarks=True)
        faces = find(picture)
        assert [face.confidence for face in faces] == pytest.approx(list(confidence), abs=1e-5)
        np.testing.assert_allclose([face.points for face in faces], points.astype(float), atol=0.01)


def facenet_pytorch_class(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The MTCNN class of facenet-pytorch, with the parts of torchvision that it imports replaced by stubs."""
    names = ("", ".transforms", ".transforms.functional", ".ops", ".ops.boxes")
    made = {name: ModuleType(f"torchvision{name}") for name in names}
    made[".transforms"].functional = made[".transforms.functional"]
    made[".ops.boxes"].batched_nms = lambda boxes, scores, pictures, most: torch.tensor(
        non_maximum_suppression(boxes.numpy(), scores.numpy(), most), dtype=torch.long
    )
    package = ModuleType("facenet_pytorch")
    package.__path__ = [str(mtcnn.weights_folder().parent)]
    for name, module in made.items():
        monkeypatch.setitem(sys.modules, f"torchvision{name}", module)
    monkeypatch.setitem(sys.modules, "facenet_pytorch", package)
    return importlib.import_module("facenet_pytorch.models.mtcnn").MTCNN


def test_non_maximum_suppression_keeps_the_most_confident() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 8], [20, 0, 30, 10], [2, 2, 6, 6]], np.float32)
    confidence = np.array([0.8, 0.9, 0.7, 0.6], np.float32)
    assert non_maximum_suppression(boxes, confidence, 0.7) == [1, 2, 3]
    assert non_maximum_suppression(boxes, confidence, 0.9) == [1, 0, 2, 3]
    assert non_maximum_suppression(boxes, confidence, 0.7, of_smaller=True) == [1, 2]
    assert non_maximum_suppression(boxes[:0], confidence[:0], 0.5) == []


def test_squares_keep_the_centre() -> None:
    assert to_squares(np.array([[0, 0, 4, 10]], np.float32)).tolist() == [[-3, 0, 7, 10]]


def test_pyramid_ends_below_the_smallest_face() -> None:
    assert pyramid(19) == []
    assert pyramid(20) == [0.6]
    assert pyramid(256)[-1] * 256 >= 12 > pyramid(256)[-1] * 256 * 0.709


def test_missing_package_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mtcnn, "find_spec", lambda name: None)
    with pytest.raises(MetricUnavailableError, match="facenet-pytorch"):
        Mtcnn()
    monkeypatch.setattr(mtcnn, "find_spec", importlib.util.find_spec)
    with pytest.raises(MetricUnavailableError, match=r"pnet\.pt"):
        mtcnn.load(Path("nowhere") / "pnet.pt")
