"""The fits of a whole clip, on disk: 15 KB a frame."""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.errors import MediaError
from iwcodec.codec.motion.types import Fit, Quadratic


@contextmanager
def spooling() -> Iterator[None]:
    """OSError becomes MediaError."""
    try:
        yield
    except OSError as error:
        folder = tempfile.tempdir or "the folder for temporary files"  # none where no folder could be written
        raise MediaError(f"The motion cannot be kept in {folder}: {error.strerror}; set TMPDIR to another.") from error


class FitCache:
    """A context manager; what is in it can be read as often as needed. Raises MediaError, naming the folder for
    temporary files, where that cannot be written."""

    def __init__(self, fits: Iterable[Fit]) -> None:
        with spooling():
            self._file = tempfile.TemporaryFile()  # noqa: SIM115  # closed by __exit__
        self._unknowns = 0
        for frame, reference_source, still in fits:
            self._unknowns = len(frame.target)
            row = np.concatenate([[reference_source, still], frame.target, frame.gram.reshape(-1)])
            with spooling():
                self._file.write(row.astype(np.float32).tobytes())
        with spooling():
            self._file.flush()

    def __enter__(self) -> "FitCache":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def messages(self, frames: int) -> Iterator[list[Fit]]:
        """All of them in order, so many at a time."""
        self._file.seek(0)
        count = self._unknowns
        width = 4 * (2 + count * (count + 1))
        while block := self._file.read(frames * width):
            rows = np.frombuffer(block, np.float32).reshape(-1, width // 4).astype(np.float64)
            yield [_fit(row, count) for row in rows]


def _fit(row: NDArray[np.float64], count: int) -> Fit:
    frame = Quadratic(row[2 : count + 2], row[count + 2 :].reshape(count, count))
    return Fit(frame, int(row[0]), bool(row[1]))
