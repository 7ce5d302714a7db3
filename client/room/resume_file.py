"""Keeps the resume token of a call on disk, so that a program that was killed gets its place in the room back."""

import hashlib
import os
import sys
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout


def state_folder() -> Path:
    """Where programs of this user keep what is worth keeping, but not for long."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local") / "iwcodec"
    if sys.platform == "darwin":
        return Path.home() / "Library/Application Support/iwcodec"
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "iwcodec"


class ResumeFile:
    """The token of one room and name. Only one program at a time uses it, because two with the same token would take
    the place from each other; in others, and where nothing can be written, all methods do nothing."""

    def __init__(self, room_url: str, name: str, folder: Path | None = None) -> None:
        key = hashlib.sha256(f"{room_url}\n{name}".encode()).hexdigest()[:24]
        self._path = (folder or state_folder()) / f"{key}.resume"
        self._lock = FileLock(self._path.with_suffix(".lock"), timeout=0)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock.acquire()
            self._active = True
        except (OSError, Timeout, NotImplementedError):
            self._active = False

    def read(self) -> str | None:
        """The token that an earlier program has left behind."""
        with suppress(OSError, ValueError):
            if self._active:
                return self._path.read_text(encoding="ascii") or None
        return None

    def write(self, token: str) -> None:
        """Keep a token, readable by this user alone."""
        with suppress(OSError, ValueError):
            if self._active:
                with open(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                    file.write(token)

    def forget(self) -> None:
        """Delete the token: the room was left."""
        with suppress(OSError):
            if self._active:
                self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let other programs use the token."""
        if self._active:
            self._active = False
            self._lock.release()
