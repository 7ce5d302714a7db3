"""The mean distance over sampled frames, with a distance that notes what it looks at."""

import numpy as np

from iwcodec.benchmarks.metrics.learned.sampling import FRAMES, SampledDistance, sampled
from iwcodec.codec.media.types import Picture


class Levels:
    """Difference of grey levels; pictures have one level each."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def features(self, picture: Picture) -> int:
        self.seen.append(int(picture[0, 0, 0]))
        return self.seen[-1]

    def distance(self, a: int, b: int) -> float:
        return abs(a - b)


def clip(*levels: int) -> list[Picture]:
    return [np.full((2, 2, 3), level, np.uint8) for level in levels]


def test_frames_are_evenly_spread() -> None:
    assert sampled(120) == list(range(5, 120, 10))
    assert sampled(5) == [0, 1, 2, 3, 4]
    assert len(set(sampled(FRAMES + 1))) == FRAMES


def test_mean_over_the_sampled_frames() -> None:
    originals, decoded = clip(*range(100, 124)), clip(*range(100, 148, 2))
    assert SampledDistance(Levels())(originals, decoded) == np.mean(sampled(24))


def test_originals_are_looked_at_once() -> None:
    metric = Levels()
    distance = SampledDistance(metric)
    first, second = clip(1, 2, 2), clip(7, 8, 9)
    assert distance(first, clip(11, 12, 13)) == distance(first, clip(11, 12, 13)) == np.mean([10, 10, 11])
    assert sorted(metric.seen) == sorted([1, 2, *2 * [11, 12, 13]])
    distance(second, second)
    metric.seen.clear()
    distance(first, first)
    assert metric.seen.count(1) == 2  # forgotten when another clip came, and seen once as the decoded picture
