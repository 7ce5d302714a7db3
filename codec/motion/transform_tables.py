"""Static tables of the transform coder (motion_transform.py): integer counts, and directions in which faces move.

python -m iwcodec.codec.file.train_tables CLIPS... -o FOLDER
python -m iwcodec.codec.motion.transform_tables FOLDER/*.npz -o codec/data/transform_tables.npz
"""

import sys
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

REACH = 15
"""Levels from -REACH to REACH have symbols of their own; the last symbol escapes."""
SYMBOLS = 2 * REACH + 2
FREQUENCY_EDGES = (0.01, 0.3, 0.6, 1.1, 2.1, 4.1, 7.0)
"""In cycles a second, at FRAME_RATE."""
COORDINATE_EDGES = (1, 3, 6, 10, 16, 24, 36)
ACTIVITY_EDGES = (0, 1, 2, 3, 5, 8)
"""Half the weighted sum of the levels beside; an edge belongs to the class above it."""
FRAME_RATE = 27.0
"""Only the classes of frequency assume it."""
FREQUENCIES, COORDINATES, ACTIVITIES = len(FREQUENCY_EDGES) + 1, len(COORDINATE_EDGES) + 1, len(ACTIVITY_EDGES) + 1
ROWS = FREQUENCIES * COORDINATES * ACTIVITIES
_ACTIVITY = np.searchsorted(ACTIVITY_EDGES, np.arange(ACTIVITY_EDGES[-1] + 1), side="right").tolist()
FILE = Path(__file__).parents[1] / "data" / "transform_tables.npz"


@dataclass(frozen=True)
class TransformTables:
    id: int
    """CRC-32 of counts and directions; written in the header of every file."""
    probabilities: NDArray[np.float64]
    """(ROWS, SYMBOLS), from the counts by one division: the same on every machine."""
    directions: NDArray[np.float64]
    """(3 K, 3 K): columns are changes of the unknowns, from the one that faces move along most (motion_space.py)."""


def base_rows(length: int, coordinates: int) -> NDArray[np.int64]:
    """Rows that the levels (length, coordinates) of a run start at, but for the class of the levels beside them."""
    frequencies = np.arange(length) * (FRAME_RATE / 2) / length
    frequency = np.searchsorted(FREQUENCY_EDGES, frequencies, side="right")
    coordinate = np.searchsorted(COORDINATE_EDGES, np.arange(coordinates), side="right")
    return np.asarray((frequency[:, None] * COORDINATES + coordinate) * ACTIVITIES, np.int64)


def activity_class(own: list[int], last: list[int], before: list[int], i: int) -> int:
    """Class of a coordinate by the absolute levels that are known: of its own frequency those before it, of the next
    lower frequency all, of the one below that its own. Each list starts two before the first coordinate."""
    near = 2 * own[i + 1] + own[i] + 2 * last[i + 2] + last[i + 1] + last[i + 3] + before[i + 2]
    return int(_ACTIVITY[min(near // 2, ACTIVITY_EDGES[-1])])


def rows_of(levels: NDArray[np.int32], length: int) -> NDArray[np.int64]:
    """Rows of the tables for all levels (n, 3 K) of the lowest frequencies of a run: the encoder's view."""
    count, coordinates = levels.shape
    size = np.zeros((count + 2, coordinates + 3), np.int64)
    size[2:, 2:-1] = np.abs(levels.astype(np.int64))
    own, last, before = size[2:], size[1:-1], size[:-2]
    near = 2 * own[:, 1:-2] + own[:, :-3] + 2 * last[:, 2:-1] + last[:, 1:-2] + last[:, 3:] + before[:, 2:-1]
    found = np.searchsorted(ACTIVITY_EDGES, near // 2, side="right")
    return np.asarray(base_rows(length, coordinates)[:count] + found, np.int64)


def symbols_of(levels: NDArray[np.int32]) -> NDArray[np.int64]:
    return np.where(np.abs(levels) <= REACH, levels + REACH, SYMBOLS - 1).astype(np.int64)


def make_tables(counts: NDArray[np.uint32], directions: NDArray[np.float32]) -> TransformTables:
    """From what the file holds."""
    found = zlib.crc32(directions.astype("<f4").tobytes(), zlib.crc32(counts.astype("<u4").tobytes()))
    exact = counts.astype(np.float64)
    return TransformTables(found, exact / exact.sum(1, keepdims=True), directions.astype(np.float64))


@cache
def load_transform_tables(file: Path = FILE) -> TransformTables:
    """The shipped tables."""
    with np.load(file) as data:
        return make_tables(data["counts"], data["directions"])


def smoothed(counts: NDArray[np.float64]) -> NDArray[np.uint32]:
    """Counts (ROWS, SYMBOLS) of levels -> what the tables hold. A row that was seldom met leans on those of other
    coordinates, and these on those of all frequencies; left and right are alike; no table has a hole."""
    by_class = counts.reshape(FREQUENCIES, COORDINATES, ACTIVITIES, SYMBOLS)
    rarest = 0.02 * 0.9 ** np.abs(np.arange(SYMBOLS) - REACH) + 1e-4
    everywhere = _shares(by_class.sum((0, 1)) + rarest)
    of_frequency = 0.9 * _shares(by_class.sum(1) + 1e-3) + 0.1 * everywhere
    shares = (by_class + 20 * of_frequency[:, None]) / (by_class.sum(-1, keepdims=True) + 20)
    shares = 0.998 * shares + 0.002 * everywhere
    shares[..., :-1] = (shares[..., :-1] + shares[..., -2::-1]) / 2
    return np.maximum(1, (shares.reshape(ROWS, SYMBOLS) * 1_000_000).round()).astype(np.uint32)


def _shares(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(counts / counts.sum(-1, keepdims=True))


def main(arguments: list[str]) -> None:
    from iwcodec.codec.file.train_tables import read_fits, train_tables  # which needs the tables that are made here

    target = Path(arguments[arguments.index("-o") + 1])
    counts, directions = train_tables([read_fits(Path(name)) for name in arguments[: arguments.index("-o")]])
    np.savez_compressed(target, counts=counts, directions=directions)


if __name__ == "__main__":
    main(sys.argv[1:])
