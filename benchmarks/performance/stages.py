"""Timing of a stage: repeated calls and their quantiles."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

WARM = 10
"""Warm-up calls that are not counted."""
MESSAGE_FRAMES = 4
"""Frames in a motion message, as in a call."""

Seconds = NDArray[np.float64]


@dataclass(frozen=True)
class Stage:
    """Time per frame of one stage."""

    stage: str
    sources: int | None
    """Sources in the library; None if the stage does not depend on it."""
    p50_ms: float
    p95_ms: float
    p99_ms: float
    per_s: float
    """Frames per second, from the mean time."""
    repeats: int


def timed(name: str, work: Callable[[Any], object], inputs: Iterable[Any], frames: int = 1) -> Stage:
    """Time `work` on each input, which covers `frames` frames; the first WARM inputs are not counted."""
    seconds = []
    for value in inputs:
        started = time.perf_counter()
        work(value)
        seconds.append((time.perf_counter() - started) / frames)
    return summarised(name, seconds[WARM:])


def summarised(name: str, seconds: Sequence[float] | Seconds, sources: int | None = None) -> Stage:
    """Quantiles of measured seconds. Raises ValueError without any."""
    if not len(seconds):
        raise ValueError(f"{name} was never measured")
    p50, p95, p99 = (round(float(q) * 1000, 3) for q in np.quantile(seconds, [0.5, 0.95, 0.99]))
    return Stage(name, sources, p50, p95, p99, round(1 / float(np.mean(seconds)), 2), len(seconds))
