"""Static tables of the predictive coder: integer counts and weights, trained by `iwcodec.codec.file.train_tables`.

The table for a residual is selected by three activity classes, for positions and strengths apart: the magnitude of the
same value's residual in the previous frame, the total magnitude of that frame's residuals, and the mean magnitude of
the residuals already coded in this frame.
"""

import zlib
from bisect import bisect_right
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.motion.prediction import Predictor
from iwcodec.codec.motion.types import Levels

REACH = 31
"""Residuals from -REACH to REACH have symbols of their own; the last symbol is the escape."""
SYMBOLS = 2 * REACH + 2
"""Symbols per table."""
OWN_CLASSES, FRAME_CLASSES, CAUSAL_CLASSES = 4, 6, 5
"""Number of activity classes: of the value's own residual in the previous frame, of all residuals there, and of the
residuals already coded in this frame."""
FRAME_EDGES = (1, 5, 11, 21, 41)
"""Lower edges of the frame classes 1 to 5: sum of the magnitudes of the strength residuals, or half that of the
position residuals, in levels."""
CAUSAL_EDGES = (0, 2, 5, 10)
"""Lower edges of the causal classes 1 to 4: mean magnitude of the residuals already coded, in eighths of a level."""
INTRA = 2 * OWN_CLASSES * FRAME_CLASSES * CAUSAL_CLASSES
"""First row for intra frames, whose context is the causal class alone."""
CONTEXTS = INTRA + 2 * CAUSAL_CLASSES
"""Number of tables (rows)."""
FILE = Path(__file__).parents[1] / "data" / "motion_tables.npz"


@dataclass(frozen=True)
class Tables:
    """Probabilities and predictions of the predictive coder."""

    id: int
    """CRC-32 of counts, means and weights; part of every stream header."""
    probabilities: NDArray[np.float64]
    """(CONTEXTS, SYMBOLS), one division of the counts: the same on every machine."""
    means: Levels
    """(K, 3): levels from which an intra frame is predicted."""
    predictor: Predictor


def frame_contexts(last_residuals: Levels | None, keypoints: int) -> NDArray[np.int64]:
    """Return the first row (K, 3) of each value's causal classes, given the residuals (K, 3) of the previous frame, or
    None for an intra frame."""
    kind = np.array([0, 0, 1])
    if last_residuals is None:
        return np.tile(INTRA + kind * CAUSAL_CLASSES, (keypoints, 1)).astype(np.int64)
    size = np.abs(last_residuals.astype(np.int64))
    own = np.minimum(size, OWN_CLASSES - 1)
    positions, strengths = size[:, :2].sum() // 2, size[:, 2].sum()
    frame = np.searchsorted(FRAME_EDGES, [positions, positions, strengths], side="right")
    return np.asarray(((kind * OWN_CLASSES + own) * FRAME_CLASSES + frame) * CAUSAL_CLASSES, np.int64)


def causal_classes(positions: int, strengths: int, coded: int) -> list[int]:
    """Return the causal classes of a keypoint's x, y and strength, given the sums of the magnitudes of the position and
    strength residuals of the `coded` keypoints before it."""
    if coded == 0:
        return [2, 2, 2]  # nothing is known yet: the middle class
    position = bisect_right(CAUSAL_EDGES, positions * 8 // (2 * coded))
    return [position, position, bisect_right(CAUSAL_EDGES, strengths * 8 // coded)]


def rows_of(contexts: NDArray[np.int64], residuals: Levels) -> NDArray[np.int64]:
    """Return the table rows (K, 3) of a whole frame from its `frame_contexts` and its residuals (K, 3). Encoder only:
    the decoder goes keypoint by keypoint."""
    size = np.abs(residuals.astype(np.int64))
    sums = np.stack([size[:, :2].sum(1), size[:, 2]], axis=1)
    before = (sums.cumsum(0) - sums).tolist()
    return contexts + np.array([causal_classes(position, strength, k) for k, (position, strength) in enumerate(before)])


def symbols_of(residuals: Levels) -> NDArray[np.int32]:
    """Return the symbols of residuals of any shape."""
    inside = np.abs(residuals) <= REACH
    return np.where(inside, residuals + REACH, SYMBOLS - 1).astype(np.int32)


def make_tables(counts: NDArray[np.uint32], means: Levels, predictor: Predictor) -> Tables:
    """Build tables from counts (CONTEXTS, SYMBOLS), mean levels (K, 3) and weights."""
    parts = [np.ascontiguousarray(part, "<i4") for part in (counts, means, predictor.inter, predictor.intra)]
    identity = zlib.crc32(b"".join(part.tobytes() for part in parts))
    return Tables(identity, counts / counts.sum(1, keepdims=True), means, predictor)


@cache
def load_tables(file: Path = FILE) -> Tables:
    """Load tables, by default the shipped ones."""
    with np.load(file) as data:
        return make_tables(data["counts"], data["means"], Predictor(data["inter"], data["intra"]))
