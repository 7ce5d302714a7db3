"""The motion coder's static tables: integer counts and weights, made from real keypoint tracks.

    python -m iwcodec.codec.motion.predictive_tables TRACKS.npz... -o motion_tables.npz

Each TRACKS.npz holds float32 arrays (n, K, 3) of consecutive frames.
"""

import itertools
import sys
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.motion.prediction import Predictor, fit_predictor, predict

REACH = 31
"""Residuals from -REACH to REACH have symbols of their own; the next symbol escapes."""
SYMBOLS = 2 * REACH + 2
OWN, SHARED, SO_FAR = 4, 6, 5
"""Activity classes: how far the prediction missed the value itself in the last frame, and all values of its kind there,
and those of this frame that are known already."""
SHARED_EDGES = (1, 5, 11, 21, 41)
SO_FAR_EDGES = (0, 2, 5, 10)
"""Mean miss of the values known already, in eighths of a level."""
INTRA = 2 * OWN * SHARED * SO_FAR
"""Rows from INTRA on are for values without a frame before them."""
CONTEXTS = INTRA + 2 * SO_FAR
FILE = Path(__file__).parents[1] / "data" / "motion_tables.npz"


@dataclass(frozen=True)
class Tables:
    id: int
    """CRC-32 of counts, means and weights; written in the header of every stream."""
    probabilities: NDArray[np.float64]
    """(CONTEXTS, SYMBOLS), from the counts by one division: the same on every machine."""
    means: NDArray[np.int32]
    """(K, 3): the levels a first frame is predicted from."""
    predictor: Predictor


def frame_contexts(last: NDArray[np.int32] | None, keypoints: int) -> NDArray[np.int64]:
    """Misses of the last frame (K, 3), or none -> what the rows of a frame's values (K, 3) start at."""
    kind = np.array([0, 0, 1])
    if last is None:
        return np.tile(INTRA + kind * SO_FAR, (keypoints, 1)).astype(np.int64)
    size = np.abs(last.astype(np.int64))
    own = np.minimum(size, OWN - 1)
    places, strengths = size[:, :2].sum() // 2, size[:, 2].sum()
    shared = np.searchsorted(SHARED_EDGES, [places, places, strengths], side="right")
    return np.asarray(((kind * OWN + own) * SHARED + shared) * SO_FAR, np.int64)


def so_far_class(misses: NDArray[np.int64], known: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sums of the absolute misses of the keypoints before, of places and strengths (..., 2), and how many keypoints
    they are (...) -> class of the values (..., 3)."""
    values = known[..., None] * np.array([2, 1])
    eighths = np.where(values > 0, misses * 8 // np.maximum(values, 1), 4)
    found = np.searchsorted(SO_FAR_EDGES, eighths, side="right")
    return found[..., [0, 0, 1]]


def rows_of(base: NDArray[np.int64], misses: NDArray[np.int32]) -> NDArray[np.int64]:
    """Rows of the tables for all values of a frame whose misses (K, 3) are known: the encoder's view."""
    size = np.abs(misses.astype(np.int64))
    both = np.stack([size[:, :2].sum(1), size[:, 2]], axis=1)
    before = np.concatenate([np.zeros((1, 2), np.int64), both.cumsum(0)[:-1]])
    return base + so_far_class(before, np.arange(len(misses)))


def symbols_of(residuals: NDArray[np.int32]) -> NDArray[np.int32]:
    inside = np.abs(residuals) <= REACH
    return np.where(inside, residuals + REACH, SYMBOLS - 1).astype(np.int32)


def make_tables(counts: NDArray[np.uint32], means: NDArray[np.int32], predictor: Predictor) -> Tables:
    parts = [np.ascontiguousarray(part, "<i4") for part in (counts, means, predictor.inter, predictor.intra)]
    identity = zlib.crc32(b"".join(part.tobytes() for part in parts))
    return Tables(identity, counts / counts.sum(1, keepdims=True), means, predictor)


def train_tables(tracks: list[NDArray[np.int32]]) -> Tables:
    """Fit and count over quantised tracks (n, K, 3)."""
    means = np.concatenate(tracks).mean(0).round().astype(np.int32)
    predictor = fit_predictor(tracks, means)
    return make_tables(count_tracks(tracks, means, predictor), means, predictor)


def count_tracks(tracks: list[NDArray[np.int32]], means: NDArray[np.int32], predictor: Predictor) -> NDArray[np.uint32]:
    counts = np.zeros((CONTEXTS, SYMBOLS), np.float64)
    nothing = np.zeros_like(means)
    for track in tracks:
        last, last_misses = nothing, nothing
        for before, now in itertools.pairwise(track):
            moved = now - before
            misses = moved - predict(predictor.inter, moved, last)
            rows = rows_of(frame_contexts(last_misses, len(means)), misses)
            np.add.at(counts, (rows, symbols_of(misses)), 1)
            last, last_misses = moved, misses
        for start in track[::5]:
            moved = start - means
            misses = moved - predict(predictor.intra, moved, nothing)
            np.add.at(counts, (rows_of(frame_contexts(None, len(means)), misses), symbols_of(misses)), 1)
    # Rare symbols get a share that shrinks with distance, so that no table has a hole.
    tail = 0.3 * 0.8 ** np.abs(np.arange(SYMBOLS) - REACH) + 0.02
    tail[-1] = 0.02
    scaled = (counts + tail) * (1_000_000 / (counts + tail).sum(1, keepdims=True))
    return np.maximum(1, scaled.round()).astype(np.uint32)


@cache
def load_tables(file: Path = FILE) -> Tables:
    """The shipped tables."""
    with np.load(file) as data:
        return make_tables(data["counts"], data["means"], Predictor(data["inter"], data["intra"]))


def main(arguments: list[str]) -> None:
    from iwcodec.codec.motion.predictive_coder import MotionCoder
    from iwcodec.codec.motion.types import Quantiser

    quantiser = Quantiser()
    target = Path(arguments[arguments.index("-o") + 1])
    tracks = []
    for name in arguments[: arguments.index("-o")]:
        with np.load(name) as data:
            tracks += [quantiser.quantise_track(data[key]) for key in data.files]
    means = np.concatenate(tracks).mean(0).round().astype(np.int32)
    predictor = fit_predictor(tracks, means)
    counts = count_tracks(tracks, means, predictor)
    np.savez_compressed(target, counts=counts, means=means, inter=predictor.inter, intra=predictor.intra)
    coder = MotionCoder(make_tables(counts, means, predictor))
    for frames in (3, 50):
        bits = [
            len(coder.encode(t[a : a + frames], None)) * 8
            for t in tracks
            for a in range(0, len(t) - frames + 1, frames)
        ]
        print(f"messages of {frames} frames: {np.mean(bits) / frames / 8:.2f} bytes a frame")


if __name__ == "__main__":
    main(sys.argv[1:])
