"""Inputs that are no files (pipes, standard input, URLs), which are copied to a temporary file because encoding reads
them many times; and the reverse for outputs."""

import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from http.client import HTTPException
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit
from urllib.request import Request, url2pathname, urlopen

from iwcodec.codec.errors import CodecError, MediaError

STANDARD = "-"
"""Names standard input, and standard output."""
MAX_DOWNLOAD = 16 << 30
"""Bytes: a server that never stops sending must not fill the disk."""
TIMEOUT_S = 30.0
"""Seconds without an answer of a server."""
_BLOCK = 1 << 20
_PLAYLISTS = (b"#EXTM3U", b"<?xml", b"<MPD", b"<!DOCTYPE", b"<html", b"<!doctype")


@contextmanager
def local_input(source: str | Path) -> Iterator[Path]:
    """Yield the path of a file with the content of `source`: the path itself if it is a file, else a temporary copy of
    a pipe, of standard input ("-"), or of an http, https or file URL. Raises MediaError."""
    text = str(source)
    scheme = re.match(r"([a-zA-Z][a-zA-Z0-9+.-]+)://", text) if isinstance(source, str) else None
    if scheme and scheme[1].lower() == "file":
        yield Path(url2pathname(unquote(urlsplit(text).path)))
        return
    if not scheme and not is_stream(text):
        _check_name(text)
        yield Path(text)
        return
    name = "standard input" if text == STANDARD else text
    with tempfile.TemporaryDirectory(prefix="iwcodec-") as folder:
        path = Path(folder) / _file_name(name)
        try:
            if scheme:
                _download(text, scheme[1].lower(), path)
            elif text == STANDARD:
                _copy(sys.stdin.buffer, path, name)
            else:
                with open(text, "rb") as stream:
                    _copy(stream, path, name)
        except OSError as error:
            reason = getattr(error, "reason", None) or error.strerror or error
            raise MediaError(f"{name} cannot be read: {getattr(reason, 'strerror', None) or reason}.") from error
        try:
            yield path
        except CodecError as error:  # the reader knows the copy
            raise type(error)(str(error).replace(str(path), name).replace(path.name, name)) from error


def _check_name(text: str) -> None:
    """Raise MediaError for a path that can be none; whether there is such a file its reader says."""
    try:
        os.stat(text)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:
        raise MediaError(f"{text!r} cannot be read: {getattr(error, 'strerror', None) or error}.") from error


def is_stream(path: str) -> bool:
    """Return whether a path is "-", or that of a pipe, a device or a socket."""
    if path == STANDARD:
        return True
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode)


def _file_name(name: str) -> str:
    """A harmless name with the same suffix, by which FFmpeg tells a few formats apart."""
    try:
        last = unquote(urlsplit(name).path).rsplit("/", 1)[-1]
    except ValueError as error:
        raise MediaError(f"{name} cannot be read: {error}.") from error
    return re.sub(r"[^\w. -]", "_", last)[-80:].strip(". ") or "input"


def _copy(stream: IO[bytes], path: Path, name: str, limit: int | None = None) -> None:
    size = 0
    with path.open("wb") as out:
        while block := stream.read(_BLOCK):
            size += len(block)
            if limit is not None and size > limit:
                raise MediaError(f"{name} is larger than {limit >> 30} GiB; download it first.")
            out.write(block)
    if not size:
        raise MediaError(f"{name} is empty.")


def _download(url: str, scheme: str, path: Path) -> None:
    if scheme not in ("http", "https"):
        raise MediaError(f"{url} cannot be read: of URLs only http, https and file are supported.")
    try:
        with urlopen(Request(url, headers={"User-Agent": "iwcodec"}), timeout=TIMEOUT_S) as answer:
            _copy(answer, path, url, MAX_DOWNLOAD)
    except (HTTPException, ValueError) as error:
        raise MediaError(f"{url} cannot be read: {error}.") from error
    with path.open("rb") as file:
        if file.read(16).lstrip().startswith(_PLAYLISTS):
            raise MediaError(f"{url} is a page or a playlist, not a video file.")


@contextmanager
def local_output(target: str, suffix: str) -> Iterator[Path]:
    """Yield the path to write to: `target` itself; or, if it is standard output ("-"), a pipe or a device, that of a
    temporary file with this suffix, which is copied there when it is complete. Raises MediaError."""
    if not is_stream(target):
        yield Path(target)
        return
    if target == STANDARD and sys.stdout.isatty():
        raise MediaError("Standard output is a terminal; redirect it to a file or a program.")
    with tempfile.TemporaryDirectory(prefix="iwcodec-") as folder:
        path = Path(folder) / f"output{suffix}"
        yield path
        try:
            with path.open("rb") as file, _opened(target) as stream:
                shutil.copyfileobj(file, stream, _BLOCK)
                stream.flush()
        except OSError as error:
            name = "Standard output" if target == STANDARD else target
            raise MediaError(f"{name} cannot be written: {error.strerror}.") from error


def _opened(target: str) -> AbstractContextManager[IO[bytes]]:
    """A stream to write to; standard output is not closed."""
    return nullcontext(sys.stdout.buffer) if target == STANDARD else open(target, "wb")
