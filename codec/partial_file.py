"""Files that appear under their name only when they are complete."""

import os
import secrets
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self


class PartialFile:
    """A temporary file in the folder of `path`.

    A context manager: leaving it calls `close`, which renames the file to `path`, or after an exception `abort`, which
    removes it and leaves an existing file at `path` unchanged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._partial = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}.part")
        self._file: IO[bytes] | None = None
        """None before `_open`, and after `close` and `abort`."""

    def _open(self) -> IO[bytes]:
        """Raises OSError."""
        self._file = open(self._partial, "w+b")  # noqa: SIM115 (closed by close or abort)
        return self._file

    def close(self) -> None:
        """Rename the file to `path`. Raises OSError."""
        if self._file is not None:
            self._file.close()
            os.replace(self._partial, self.path)
            self._file = None

    def abort(self) -> None:
        """Remove the file."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None
            with suppress(OSError):
                self._partial.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that appears, or replaces another, only when it is complete. Raises OSError."""
    with PartialFile(path) as partial:
        partial._open().write(data)
