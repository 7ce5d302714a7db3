"""The cached runtime returns the same results and computes each once."""

from typing import Any

import numpy as np
import pytest

from iwcodec.benchmarks.quality import cached_runtime
from iwcodec.benchmarks.quality.cached_runtime import CachedRuntime
from iwcodec.models.runtime.load import load_runtime
from iwcodec.models.runtime.types import Runtime


class Counting:
    """A runtime that counts its calls."""

    def __init__(self, runtime: Runtime) -> None:
        self.calls: list[str] = []
        self._runtime = runtime

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._runtime, name)
        if not callable(found):
            return found

        def counted(*arguments: Any) -> Any:
            self.calls.append(name)
            return found(*arguments)

        return counted


def picture(seed: int, size: int = 256) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)


def test_results_are_the_same_and_computed_once() -> None:
    plain = load_runtime(kind="onnx")
    counting = Counting(plain)
    cached = CachedRuntime(counting)
    assert (cached.info, cached.device) == (plain.info, plain.device)
    for _ in range(2):
        source = cached.prepare(picture(0))
        keypoints = cached.detect(picture(1))
        rebuilt = cached.reconstruct(keypoints, [source])
        np.testing.assert_array_equal(keypoints, plain.detect(picture(1)))
        np.testing.assert_array_equal(rebuilt, plain.reconstruct(keypoints, [plain.prepare(picture(0))]))
    assert sorted(counting.calls) == ["detect", "prepare", "reconstruct", "reconstruct"]


def test_equal_bytes_of_another_shape_are_another_picture() -> None:
    seen: list[tuple[int, ...]] = []

    class Shapes:
        def detect(self, picture: Any) -> Any:
            seen.append(picture.shape)
            return picture.shape

    cached = CachedRuntime(Shapes())  # type: ignore[arg-type]
    wide, tall = np.zeros((4, 8, 3), np.uint8), np.zeros((8, 4, 3), np.uint8)
    assert (cached.detect(wide), cached.detect(tall)) == (wide.shape, tall.shape)


def test_least_recently_used_is_evicted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached_runtime, "MAX_KEYPOINTS", 2)
    counting = Counting(load_runtime(kind="onnx"))
    cached = CachedRuntime(counting)
    for seed in (0, 1, 0, 2, 0, 1):
        cached.detect(picture(seed, 64))
    assert len(counting.calls) == 4
