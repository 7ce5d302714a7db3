"""Cache of a clip's fits in a temporary file: 15 KB per frame."""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.errors import MediaError
from iwcodec.codec.motion.types import Fit, Quadratic


class FitCache:
    """Stores fits once, as float32, and reads them as often as needed; a context manager.

    Raises MediaError, naming the folder, if the temporary file cannot be written.
    """

    def __init__(self, fits: Iterable[Fit]) -> None:
        with write_errors():
            self._file = tempfile.TemporaryFile()  # noqa: SIM115  # closed by __exit__
        self._unknowns = 0
        for frame, reference_source, skip in fits:
            self._unknowns = len(frame.target)
            row = np.concatenate([[reference_source, skip], frame.target, frame.gram.reshape(-1)])
            with write_errors():
                self._file.write(row.astype(np.float32).tobytes())
        with write_errors():
            self._file.flush()

    def __enter__(self) -> "FitCache":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def messages(self, frames: int) -> Iterator[list[Fit]]:
        """All fits in order, in lists of `frames` (the last may be shorter)."""
        self._file.seek(0)
        unknowns = self._unknowns
        width = 4 * (2 + unknowns * (unknowns + 1))
        while block := self._file.read(frames * width):
            rows = np.frombuffer(block, np.float32).reshape(-1, width // 4).astype(np.float64)
            yield [_fit(row, unknowns) for row in rows]


def _fit(row: NDArray[np.float64], unknowns: int) -> Fit:
    frame = Quadratic(row[2 : unknowns + 2], row[unknowns + 2 :].reshape(unknowns, unknowns))
    return Fit(frame, int(row[0]), bool(row[1]))


@contextmanager
def write_errors() -> Iterator[None]:
    """Turn OSError into MediaError."""
    try:
        yield
    except OSError as error:
        folder = tempfile.tempdir or "the folder for temporary files"  # None if no folder is writable
        raise MediaError(f"Cannot store the motion in {folder}: {error.strerror}; set TMPDIR to another.") from error
