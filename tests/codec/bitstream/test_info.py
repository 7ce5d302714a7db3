"""The description of a file."""

from pathlib import Path

import pytest

from iwcodec.codec.bitstream.container import VERSION
from iwcodec.codec.bitstream.index import Quality
from iwcodec.codec.bitstream.info import inspect
from iwcodec.codec.bitstream.reader import ContainerReader
from iwcodec.codec.bitstream.writer import ContainerWriter, add_quality
from iwcodec.codec.errors import FormatError, MediaError
from support.codec.container_file import HEADER, write_container


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


def test_quality_is_described_where_it_was_measured(tmp_path: Path) -> None:
    path = write_container(tmp_path / "a.iwc")
    before = inspect(path)
    assert before.quality is None
    with ContainerReader(path) as reader:
        packets, seen = list(reader.records()), list(reader.seek(60))
    added = add_quality(path, Quality(31.46, 20.61, 75))
    after = inspect(path)
    assert after.quality == {"psnr_db": 31.46, "worst_psnr_db": 20.61, "worst_at_s": 2.502}
    assert after.bytes["total"] == before.bytes["total"] + added
    assert 0 < added <= 16
    with ContainerReader(path) as reader:
        assert (list(reader.records()), list(reader.seek(60)), reader.damage) == (packets, seen, [])
    assert add_quality(path, Quality(31.46, 20.61, 75)) == 0
    assert [file.name for file in tmp_path.iterdir()] == ["a.iwc"]


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
