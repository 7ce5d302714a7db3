"""The description of a file."""

from pathlib import Path

import pytest

from container_file import HEADER, write_container
from iwcodec.codec.bitstream.container import VERSION
from iwcodec.codec.bitstream.info import inspect
from iwcodec.codec.bitstream.reader import ContainerReader
from iwcodec.codec.bitstream.writer import ContainerWriter
from iwcodec.codec.errors import FormatError, MediaError


def test_every_byte_and_frame_is_counted(tmp_path: Path) -> None:
    path = write_container(tmp_path / "a.iwc")
    report = inspect(path)
    assert (report.version, report.model) == (VERSION, HEADER.model_id)
    assert (report.sources, report.variants, report.frames) == (3, 3, HEADER.frames)
    assert report.bytes["sources"] == 30 + 31 + 32 + 25 + 9 + 3
    assert report.bytes["total"] == path.stat().st_size
    assert sum(report.bytes.values()) == 2 * report.bytes["total"]
    assert not report.truncated
    assert report.damage == []


def test_a_path_that_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="is not a file"):
        inspect(tmp_path)
    with pytest.raises(MediaError, match="does not exist"):
        inspect(tmp_path / "a.iwc")


def test_a_file_without_frames_is_refused(tmp_path: Path):
    """Not described with a rate over no time."""
    path = write_container(tmp_path / "a.iwc")
    with ContainerReader(path) as reader:
        start = reader._start
    whole = path.read_bytes()
    for length in (start, start + 9):
        path.write_bytes(whole[:length])
        with pytest.raises(FormatError, match=r"a\.iwc holds no frames: it ends before the first"):
            inspect(path)
    with ContainerWriter(path, HEADER):
        pass
    with pytest.raises(FormatError, match="it is empty"):
        inspect(path)
