"""Sources that a clip cannot do without: what no other source shows needs one of its own.

Sources are chosen by the mean quality over the clip (source_selection.py), to which a second of black or a title card
hardly counts. But no source can be warped into something that it does not show.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.file.rate_control.source_selection import flattened, mean_square
from iwcodec.codec.sources.library import CAPACITY

OTHER_SHOT = 500.0
"""Mean squared difference of thumbnails, in squared grey levels, from which pictures of different shots show something
else."""
FADED = 0.55
"""Factor of brightness, or its inverse, from which pictures of one shot differ: fades, and lights that go out. Speakers
who move reach 0.87 and 1.48."""
MIN_S = 0.2
"""Seconds that something must be seen to need a source."""
MAX_COMPARED = 200
"""Pictures of a shot that are compared with each other."""

_Flat = NDArray[np.float32]
"""Thumbnails (n, values)."""
_Brightness = NDArray[np.float32]
"""Mean level of each thumbnail (n,)."""
_Scene = NDArray[np.int64]
"""Numbers of the frames that one source can show."""


def required_sources(thumbnails: NDArray[np.uint8], shots: Sequence[int], fps: float) -> tuple[int, ...]:
    """Return the frames that must become sources, the one that stands for most frames first; none if a single source
    will do.

    `thumbnails` (n, h, w, 3); `shots`: the first frames of the shots. At most CAPACITY.
    """
    brightness = thumbnails.reshape(len(thumbnails), -1).mean(1, dtype=np.float32)
    shortest = max(1, round(MIN_S * fps))
    served: dict[int, int] = {}
    for begin, end in zip(shots, [*shots[1:], len(thumbnails)], strict=True):
        for frame, count in _scenes(thumbnails, brightness, np.arange(begin, end), shortest):
            picture = flattened(thumbnails[[frame]])[0]
            same = [known for known in served if _differences(flattened(thumbnails[[known]]), picture)[0] < OTHER_SHOT]
            served[same[0] if same else frame] = served.get(same[0] if same else frame, 0) + count
    ranked = sorted(served, key=lambda frame: -served[frame])
    return tuple(ranked[:CAPACITY]) if len(ranked) > 1 else ()


def _scenes(
    thumbnails: NDArray[np.uint8], brightness: _Brightness, frames: _Scene, shortest: int
) -> Iterator[tuple[int, int]]:
    """Yield (most typical frame, number of frames it stands for) until the rest of the shot's frames is seen for fewer
    than `shortest` frames at a time."""
    while len(frames) >= shortest:
        typical = _typical(thumbnails, brightness, frames)
        alike = _alike(brightness[frames], brightness[typical])
        yield typical, int(alike.sum())
        rest = frames[~alike]
        runs = np.split(rest, np.flatnonzero(np.diff(rest) > 1) + 1)
        kept = [run for run in runs if len(run) >= shortest]
        frames = np.concatenate(kept) if kept else rest[:0]


def _typical(thumbnails: NDArray[np.uint8], brightness: _Brightness, frames: _Scene) -> int:
    """The frame that differs least from those like it, among the frames that are like nearly as many as any is."""
    some = frames[np.unique(np.linspace(0, len(frames) - 1, min(len(frames), MAX_COMPARED)).round().astype(np.int64))]
    pictures = flattened(thumbnails[some])
    alike = np.stack([_alike(brightness[some], one) for one in brightness[some]])
    counts = alike.sum(1)
    differences = mean_square(pictures, pictures)
    means = np.where(counts >= 0.9 * counts.max(), (differences * alike).sum(1) / counts, np.inf)
    return int(some[int(means.argmin())])


def _alike(brightness: _Brightness, other: float) -> NDArray[np.bool_]:
    # One level more, so that all black pictures are alike.
    ratio = (brightness + 1) / (other + 1)
    return np.asarray((ratio >= FADED) & (ratio <= 1 / FADED))


def _differences(pictures: _Flat, other: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(np.square(pictures - other).mean(1))
