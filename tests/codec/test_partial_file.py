"""Files that appear only when they are complete."""

from pathlib import Path

import pytest

from iwcodec.codec.partial_file import PartialFile, write_whole


def test_a_complete_file_replaces_the_former(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"former")
    with PartialFile(target) as file:
        file._open().write(b"new")
        assert target.read_bytes() == b"former"
    assert target.read_bytes() == b"new"
    file.close()
    file.abort()
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_after_an_exception_the_former_file_is_left(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"former")

    def interrupted() -> None:
        with PartialFile(tmp_path / "a.bin") as file:
            file._open().write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"former"]


def test_without_data_there_is_no_file(tmp_path: Path) -> None:
    with PartialFile(tmp_path / "a.bin"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_whole_file_replaces_the_former(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"former")
    write_whole(tmp_path / "a.bin", b"new")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"new"]
