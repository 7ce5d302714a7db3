"""The errors that a user may see. The message is one clear sentence that needs no traceback."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class CodecError(Exception):
    """Something the user can act on; the base class of all errors that this package raises on purpose."""


class OptionError(CodecError, ValueError):
    """An option or argument that is impossible."""


class FormatError(CodecError):
    """Bytes from a file or the network that do not have the expected format."""


class VersionError(FormatError):
    """Bytes in another version of the format, or for another model."""


class MediaError(CodecError):
    """A video or sound file that cannot be read, or an output that cannot be written."""


class NoFaceError(CodecError):
    """No face was found where one is needed."""


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Name the file in the FormatErrors raised inside."""
    try:
        yield
    except FormatError as error:
        raise type(error)(f"{path}: {error}") from error
