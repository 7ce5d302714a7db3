"""The resume token on disk."""

import os
import stat
import sys
from pathlib import Path

import pytest

from iwcodec.client.room.resume_file import ResumeFile, state_folder

URL = "ws://127.0.0.1:8000/r/blue/ws"


def test_a_token_outlives_the_program_but_not_the_call(tmp_path: Path) -> None:
    first = ResumeFile(URL, "Ada", tmp_path)
    assert first.read() is None
    first.write("iwr.ada.key")
    first.close()  # as when the program is killed: the system releases the lock
    again = ResumeFile(URL, "Ada", tmp_path)
    assert again.read() == "iwr.ada.key"
    again.forget()
    assert again.read() is None
    again.close()


def test_two_programs_do_not_share_a_token(tmp_path: Path) -> None:
    first, second = ResumeFile(URL, "Ada", tmp_path), ResumeFile(URL, "Ada", tmp_path)
    first.write("one")
    second.write("two")
    assert (first.read(), second.read()) == ("one", None)
    second.forget()
    assert first.read() == "one"
    other = ResumeFile(URL, "Bob", tmp_path)
    assert other.read() is None
    for file in (first, second, other):
        file.close()


def test_only_this_user_reads_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    if sys.platform == "linux":
        assert state_folder() == tmp_path / "iwcodec"
        file = ResumeFile(URL, "Ada")
        file.write("secret")
        [written] = (tmp_path / "iwcodec").glob("*.resume")
        assert stat.S_IMODE(os.stat(written).st_mode) == 0o600
        assert "Ada" not in written.name
        file.close()


def test_where_nothing_can_be_written_there_is_no_token(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    file = ResumeFile(URL, "Ada", tmp_path / "file" / "folder")
    file.write("x")
    assert file.read() is None
    file.forget()
    file.close()
