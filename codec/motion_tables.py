"""The motion coder's static tables: integer counts, made from real keypoint tracks.

    python -m iwcodec.motion_tables TRACKS.npz... -o motion_tables.npz

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

REACH = 31
"""Residuals from -REACH to REACH have symbols of their own; the next symbol escapes."""
SYMBOLS = 2 * REACH + 2
OWN, SHARED = 4, 6
"""Activity classes: of the value itself in the last frame, and of all values of its kind."""
SHARED_EDGES = (1, 5, 11, 21, 41)
INTRA = 2 * OWN * SHARED
"""Rows INTRA and INTRA + 1 are for values without a frame before them: places, strengths."""
CONTEXTS = INTRA + 2
FILE = Path(__file__).parent / "data" / "motion_tables.npz"


@dataclass(frozen=True)
class Tables:
    id: int
    """CRC-32 of the counts and means; written in the header of every stream."""
    probabilities: NDArray[np.float64]
    """(CONTEXTS, SYMBOLS), from the counts by one division: the same on every machine."""
    means: NDArray[np.int32]
    """(K, 3): the levels a first frame is predicted from."""


def contexts(last: NDArray[np.int32]) -> NDArray[np.int64]:
    """Residuals of the last frame (K, 3) -> rows of the tables (K, 3), from integers alone."""
    size = np.abs(last.astype(np.int64))
    own = np.minimum(size, OWN - 1)
    places, strengths = size[:, :2].sum() // 2, size[:, 2].sum()
    shared = np.searchsorted(SHARED_EDGES, [places, places, strengths], side="right")
    kind = np.array([0, 0, 1])
    return np.asarray((kind * OWN + own) * SHARED + shared, np.int64)


def intra_contexts(keypoints: int) -> NDArray[np.int64]:
    return np.tile(np.array([INTRA, INTRA, INTRA + 1], np.int64), (keypoints, 1))


def symbols_of(residuals: NDArray[np.int32]) -> NDArray[np.int32]:
    inside = np.abs(residuals) <= REACH
    return np.where(inside, residuals + REACH, SYMBOLS - 1).astype(np.int32)


def make_tables(counts: NDArray[np.uint32], means: NDArray[np.int32]) -> Tables:
    counts, means = np.ascontiguousarray(counts, "<u4"), np.ascontiguousarray(means, "<i4")
    return Tables(zlib.crc32(counts.tobytes() + means.tobytes()), counts / counts.sum(1, keepdims=True), means)


def train_tables(tracks: list[NDArray[np.int32]]) -> Tables:
    """Count over quantised tracks (n, K, 3)."""
    counts, means = count_tracks(tracks)
    return make_tables(counts, means)


def count_tracks(tracks: list[NDArray[np.int32]]) -> tuple[NDArray[np.uint32], NDArray[np.int32]]:
    means = np.concatenate(tracks).mean(0).round().astype(np.int32)
    counts = np.zeros((CONTEXTS, SYMBOLS), np.float64)
    for track in tracks:
        last = np.zeros_like(track[0])
        for before, now in itertools.pairwise(track):
            residual = now - before
            np.add.at(counts, (contexts(last), symbols_of(residual)), 1)
            last = residual
        for start in track[::10]:
            np.add.at(counts, (intra_contexts(len(start)), symbols_of(start - means)), 1)
    # Rare symbols get a share that shrinks with distance, so that no table has a hole.
    tail = 0.3 * 0.8 ** np.abs(np.arange(SYMBOLS) - REACH) + 0.02
    tail[-1] = 0.02
    scaled = (counts + tail) * (1_000_000 / (counts + tail).sum(1, keepdims=True))
    return np.maximum(1, scaled.round()).astype(np.uint32), means


@cache
def load_tables(file: Path = FILE) -> Tables:
    """The shipped tables."""
    with np.load(file) as data:
        return make_tables(data["counts"], data["means"])


def main(arguments: list[str]) -> None:
    from .motion import MotionCoder, Quantiser

    quantiser = Quantiser()
    target = Path(arguments[arguments.index("-o") + 1])
    tracks = []
    for name in arguments[: arguments.index("-o")]:
        with np.load(name) as data:
            tracks += [quantiser.quantise_track(data[key]) for key in data.files]
    counts, means = count_tracks(tracks)
    np.savez_compressed(target, counts=counts, means=means)
    coder = MotionCoder(make_tables(counts, means))
    for frames in (3, 50):
        bits = [
            len(coder.encode(t[a : a + frames], None)) * 8
            for t in tracks
            for a in range(0, len(t) - frames + 1, frames)
        ]
        print(f"messages of {frames} frames: {np.mean(bits) / frames / 8:.2f} bytes a frame")


if __name__ == "__main__":
    main(sys.argv[1:])
