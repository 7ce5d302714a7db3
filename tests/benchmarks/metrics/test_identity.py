"""Identity embeddings of two people, and the score of a clip."""

import itertools

import cv2
import numpy as np
import pytest

from iwcodec.benchmarks.metrics.identity import Embedding, FaceRecognition, cosine, similarity
from iwcodec.benchmarks.metrics.learned.availability import MetricUnavailableError
from iwcodec.benchmarks.metrics.scoring import METRICS, Clip, make_scorer
from iwcodec.codec.media.types import Picture
from iwcodec.codec.media.video import read_video, sample_clip

SAME_PERSON = 0.6
"""Distance below which two embeddings are one person's, as published for the network."""


@pytest.fixture(scope="module")
def describe() -> FaceRecognition:
    try:
        return FaceRecognition()
    except MetricUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def speaker() -> list[Picture]:
    """Two moments of the bundled clip."""
    frames = itertools.islice(read_video(sample_clip()), 0, 49, 48)
    return [np.ascontiguousarray(frame.picture[:, 270:630]) for frame in frames]


def embedding(describe: FaceRecognition, picture: Picture) -> Embedding:
    found = describe(picture)
    assert found is not None
    return found


def test_the_published_threshold_tells_people_apart(describe: FaceRecognition, speaker: list[Picture]) -> None:
    data = pytest.importorskip("skimage.data")
    a, b = (embedding(describe, picture) for picture in speaker)
    other = embedding(describe, data.astronaut()[:256, 80:336])
    assert np.linalg.norm(a - b) < SAME_PERSON < np.linalg.norm(a - other)
    assert cosine(a, b) > 0.95 > cosine(a, other)


def test_the_score_falls_with_the_face(describe: FaceRecognition, speaker: list[Picture]) -> None:
    scorer = make_scorer(["identity"])
    blurred: list[Picture] = [cv2.GaussianBlur(picture, (0, 0), 6) for picture in speaker]
    same, worse = (scorer(Clip(speaker, pictures, 24)) for pictures in (speaker, blurred))
    assert set(same) == set(METRICS["identity"]) == {"csim"}
    assert same["csim"] == 1
    assert 0.5 < (worse["csim"] or 0) < 0.97


def test_a_lost_face_counts_as_another_one() -> None:
    def by_colour(picture: Picture) -> Embedding | None:
        level = float(picture[0, 0, 0])
        return np.array([1.0, level]) if level else None

    clips = [[np.full((2, 2, 3), level, np.uint8) for level in levels] for levels in ((1, 1, 0), (1, 0, 1))]
    assert similarity(by_colour, *clips) == pytest.approx(0.5)
    assert similarity(by_colour, clips[0][2:], clips[1][2:]) is None
