"""The mean of a slow distance over some frames of a clip."""

from collections.abc import Sequence
from hashlib import sha256
from typing import Protocol, TypeVar

import numpy as np

from iwcodec.codec.media.types import Picture

FRAMES = 12
"""Frames of a clip that are compared: VGG-16 takes about a second of one core for a picture of 256x256."""

Features = TypeVar("Features")


class FeatureDistance(Protocol[Features]):
    """A distance of two pictures that compares their features."""

    def features(self, picture: Picture) -> Features: ...

    def distance(self, a: Features, b: Features) -> float: ...


class SampledDistance:
    """Mean distance of two clips over FRAMES of their frames.

    Every codec and rate is compared with the same originals, so their features are kept until another clip comes
    (0.4 GB for VGG-16 at 256x256, four times as much at 512x512).
    """

    def __init__(self, metric: FeatureDistance[Features]) -> None:
        self._metric = metric
        self._kept: dict[bytes, Features] = {}

    def __call__(self, originals: Sequence[Picture], decoded: Sequence[Picture]) -> float:
        frames = [(n, sha256(originals[n].tobytes()).digest()) for n in sampled(len(originals))]
        self._kept = {key: self._kept[key] for _, key in frames if key in self._kept}
        distances = []
        for n, key in frames:
            if key not in self._kept:
                self._kept[key] = self._metric.features(originals[n])
            distances.append(self._metric.distance(self._kept[key], self._metric.features(decoded[n])))
        return float(np.mean(distances))


def sampled(count: int) -> list[int]:
    """Indices of FRAMES of `count` frames, evenly spread: the middle of each of FRAMES equal parts. All, if fewer."""
    frames = min(FRAMES, count)
    return [(2 * n + 1) * count // (2 * frames) for n in range(frames)]
