"""Static tables of the transform coder: integer counts, and the principal directions of facial motion.

`iwcodec.codec.file.train_tables` trains them. The table for a level is selected by the class of its frequency, of its
coordinate, and of its activity: a weighted sum of the magnitudes of the neighbouring levels already coded.
"""

import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.motion.types import Levels

REACH = 15
"""Levels from -REACH to REACH have symbols of their own; the last symbol is the escape."""
SYMBOLS = 2 * REACH + 2
"""Symbols per table."""
FREQUENCY_EDGES = (0.01, 0.3, 0.6, 1.1, 2.1, 4.1, 7.0)
"""Lower edges of the frequency classes 1 to 7, in Hz at FRAME_RATE."""
COORDINATE_EDGES = (1, 3, 6, 10, 16, 24, 36)
"""Lower edges of the coordinate classes 1 to 7, as indices of coordinates."""
ACTIVITY_EDGES = (0, 1, 2, 3, 5, 8)
"""Lower edges of the activity classes 1 to 6: half the weighted sum of neighbouring magnitudes, rounded down."""
FRAME_RATE = 27.0
"""Nominal frames per second. Frequency classes assume it whatever the clip's rate."""
FREQUENCIES, COORDINATES, ACTIVITIES = len(FREQUENCY_EDGES) + 1, len(COORDINATE_EDGES) + 1, len(ACTIVITY_EDGES) + 1
ROWS = FREQUENCIES * COORDINATES * ACTIVITIES
"""Number of tables."""
_ACTIVITY = np.searchsorted(ACTIVITY_EDGES, np.arange(ACTIVITY_EDGES[-1] + 1), side="right").tolist()
FILE = Path(__file__).parents[1] / "data" / "transform_tables.npz"


@dataclass(frozen=True)
class TransformTables:
    """Probabilities of the transform coder, and the directions of its coordinates."""

    id: int
    """CRC-32 of counts and directions; part of every file header."""
    probabilities: NDArray[np.float64]
    """(ROWS, SYMBOLS), one division of the counts: the same on every machine."""
    directions: NDArray[np.float64]
    """(3 K, 3 K): columns are directions of the unknowns, by decreasing variance of facial motion (space.py)."""


def base_rows(length: int, coordinates: int) -> NDArray[np.int64]:
    """Return the first row (length, coordinates) of each level's activity classes, for a run of `length` frames."""
    frequencies = np.arange(length) * (FRAME_RATE / 2) / length
    frequency = np.searchsorted(FREQUENCY_EDGES, frequencies, side="right")
    coordinate = np.searchsorted(COORDINATE_EDGES, np.arange(coordinates), side="right")
    return np.asarray((frequency[:, None] * COORDINATES + coordinate) * ACTIVITIES, np.int64)


def activity_class(own: list[int], last: list[int], before: list[int], i: int) -> int:
    """Return the activity class of coordinate `i` from magnitudes already coded: of its own frequency (`own`, known up
    to i - 1), of the next lower frequency (`last`) and of the one below that (`before`). Each list has 3 K + 3 entries:
    two zeros precede coordinate 0 and one follows the last."""
    activity = 2 * own[i + 1] + own[i] + 2 * last[i + 2] + last[i + 1] + last[i + 3] + before[i + 2]
    return int(_ACTIVITY[min(activity // 2, ACTIVITY_EDGES[-1])])


def rows_of(levels: Levels, length: int) -> NDArray[np.int64]:
    """Return the table rows (n, 3 K) of the n lowest frequencies' levels (n, 3 K) in a run of `length` frames. Encoder
    only: the decoder goes level by level."""
    count, coordinates = levels.shape
    size = np.zeros((count + 2, coordinates + 3), np.int64)
    size[2:, 2:-1] = np.abs(levels.astype(np.int64))
    own, last, before = size[2:], size[1:-1], size[:-2]
    activity = 2 * own[:, 1:-2] + own[:, :-3] + 2 * last[:, 2:-1] + last[:, 1:-2] + last[:, 3:] + before[:, 2:-1]
    classes = np.searchsorted(ACTIVITY_EDGES, activity // 2, side="right")
    return np.asarray(base_rows(length, coordinates)[:count] + classes, np.int64)


def symbols_of(levels: Levels) -> NDArray[np.int64]:
    """Return the symbols of levels of any shape."""
    return np.where(np.abs(levels) <= REACH, levels + REACH, SYMBOLS - 1).astype(np.int64)


def make_tables(counts: NDArray[np.uint32], directions: NDArray[np.float32]) -> TransformTables:
    """Build tables from counts (ROWS, SYMBOLS) and directions (3 K, 3 K)."""
    identity = zlib.crc32(directions.astype("<f4").tobytes(), zlib.crc32(counts.astype("<u4").tobytes()))
    exact = counts.astype(np.float64)
    return TransformTables(identity, exact / exact.sum(1, keepdims=True), directions.astype(np.float64))


@cache
def load_transform_tables(file: Path = FILE) -> TransformTables:
    """Load tables, by default the shipped ones."""
    with np.load(file) as data:
        return make_tables(data["counts"], data["directions"])
