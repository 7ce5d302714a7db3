"""Distance of body landmarks by hand, and of a real upper body that moves."""

import numpy as np
import pytest

from iwcodec.benchmarks.metrics.faces import STRIDE
from iwcodec.benchmarks.metrics.mesh.body_pose import Body
from iwcodec.benchmarks.metrics.pose import pose_distance
from iwcodec.benchmarks.metrics.scoring import METRICS, Clip, make_scorer
from iwcodec.codec.errors import CodecError
from iwcodec.codec.media.types import Picture


def by_colour(picture: Picture) -> Body | None:
    """A body whose landmarks lie at the picture's grey level, the second half hidden; None in black."""
    level = float(picture[0, 0, 0])
    if not level:
        return None
    visibility = (np.arange(33) < 8).astype(float)
    return np.column_stack([np.where(visibility > 0, level, 7 * level), np.zeros(33), visibility])


def clip(*levels: int) -> list[Picture]:
    """Each level held for STRIDE frames."""
    return [np.full((2, 2, 3), level, np.uint8) for level in levels for _ in range(STRIDE)]


def test_visible_landmarks_count_where_both_have_a_body() -> None:
    assert pose_distance(by_colour, clip(10, 20, 30), clip(12, 24, 0)) == {
        "pose_akd": 3.0,
        "missing_bodies": pytest.approx(1 / 3),
    }
    assert pose_distance(by_colour, clip(0), clip(5)) == {"pose_akd": None, "missing_bodies": None}


def test_a_moved_upper_body_is_as_far_away() -> None:
    data = pytest.importorskip("skimage.data")
    try:
        scorer = make_scorer(["pose"])
    except CodecError as error:
        pytest.skip(str(error))
    picture = data.astronaut()
    moved = np.roll(picture, 24, axis=1)
    scores = scorer(Clip([picture], [moved], 25))
    assert set(scores) == set(METRICS["pose"])
    assert scores["missing_bodies"] == 0
    assert scores["pose_akd"] == pytest.approx(24, abs=4)
