"""Reading .iwc files: seeking, truncation at every byte, flips of every byte, forged numbers."""

import io
import tracemalloc
from pathlib import Path

import pytest

from iwcodec.codec.bitstream import writer
from iwcodec.codec.bitstream.packets import MotionPacket, SourcePacket
from iwcodec.codec.bitstream.reader import ContainerReader
from iwcodec.codec.errors import FormatError
from support.codec.container_file import HEADER, packets, write_container


@pytest.fixture
def data(tmp_path: Path) -> bytes:
    return write_container(tmp_path / "a.iwc").read_bytes()


@pytest.mark.parametrize(("frame", "first"), [(0, 0), (39, 0), (40, 40), (119, 80)])
def test_seek_gives_all_sources_and_the_right_motion(data: bytes, frame: int, first: int) -> None:
    for stream in (data, data[:-1]):  # with the index, and without
        reader = ContainerReader(io.BytesIO(stream))
        read = list(reader.seek(frame))
        assert read[:6] == packets()[:6]
        assert sum(isinstance(p, SourcePacket) for p in read) == 6
        assert next(p for p in read if isinstance(p, MotionPacket)).first == first


def test_a_file_truncated_anywhere_is_read_up_to_the_cut(data: bytes) -> None:
    whole = packets()
    for cut in range(len(data)):
        try:
            reader = ContainerReader(io.BytesIO(data[:cut]))
        except FormatError:
            continue
        read = list(reader.records())
        assert read == whole[: len(read)]
        assert len(read) not in (2, 4)  # two sources, and two variants, share a record
        assert reader.truncated
        assert reader.damage == []


def test_any_flipped_byte_costs_one_record_at_most(data: bytes) -> None:
    whole = packets()
    refused = 0
    for at in range(len(data)):
        broken = bytearray(data)
        broken[at] ^= 0x41
        try:
            reader = ContainerReader(io.BytesIO(bytes(broken)))
        except FormatError:
            refused += 1
            continue
        read = list(reader.records())
        missing = [p for p in whole if p not in read]
        assert len(missing) <= 1 or missing in (whole[1:3], whole[3:5])  # which share a record
        assert [p for p in whole if p in read] == read
        if missing:
            assert len(reader.damage) == 1
            assert "record" in reader.damage[0]
    assert refused < 400  # only damage in the header


def test_damage_is_reported_with_record_and_offset(data: bytes) -> None:
    at = data.find(next(p for p in packets() if isinstance(p, MotionPacket)).payload)
    broken = bytearray(data)
    broken[at] ^= 1
    reader = ContainerReader(io.BytesIO(bytes(broken)))
    list(reader.records())
    (line,) = reader.damage
    assert line.startswith("motion record 1 at byte ")
    assert "CRC mismatch" in line


def test_damaged_variants_are_reported_and_skipped(data: bytes) -> None:
    """Two share the record that is damaged."""
    variants = [p for p in packets() if isinstance(p, SourcePacket) and p.base is not None]
    broken = bytearray(data)
    broken[data.find(variants[0].payload)] ^= 1
    for read in (lambda reader: reader.records(), lambda reader: reader.seek(50)):
        reader = ContainerReader(io.BytesIO(bytes(broken)))
        found = [p for p in read(reader) if isinstance(p, SourcePacket)]
        assert [p for p in found if p.base is not None] == variants[2:]
        assert len(found) == 4
    reader = ContainerReader(io.BytesIO(bytes(broken)))
    assert len(list(reader.records())) == len(packets()) - 2
    (line,) = reader.damage
    assert line.startswith("sources record 2 at byte ")


def test_files_of_other_formats_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match=r"not an \.iwc file"):
        ContainerReader(io.BytesIO(b"RIFF" + data[4:]))
    with pytest.raises(FormatError):
        ContainerReader(io.BytesIO(b""))


def test_declared_lengths_cost_no_memory(data: bytes) -> None:
    huge = data[:6] + b"\xff\xff\xff\xff" + data[10:]
    start = data.find(b"\xa1")
    long_record = data[:start] + b"\xa1" + b"\xff\xff\xff\x7f" + data[start + 5 :]
    tracemalloc.start()
    for forged in (huge, long_record):
        with pytest.raises(FormatError):  # noqa: PT012
            reader = ContainerReader(io.BytesIO(forged))
            list(reader.records())
            raise FormatError("read on behind the forged record")
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_the_search_for_the_next_record_is_bounded(data: bytes) -> None:
    """In a file where a record could start at any byte."""
    reader = ContainerReader(io.BytesIO(data[: data.find(b"\xa1")] + b"\xa1\x90\x4e" * 60_000))
    assert list(reader.records()) == []


def test_with_a_forged_index_seeking_walks_the_file(data: bytes) -> None:
    for offset in (0, 5, len(data), 2**63):
        forged = data[:-12] + offset.to_bytes(8, "little") + data[-4:]
        reader = ContainerReader(io.BytesIO(forged))
        assert next(p for p in reader.seek(50) if isinstance(p, MotionPacket)).first == 40


def test_frames_are_counted_with_the_index_and_without(data: bytes) -> None:
    for stream in (data, data[:-1]):
        assert ContainerReader(io.BytesIO(stream)).count_frames() == HEADER.frames


def test_a_file_without_an_index_for_its_length_can_be_read_and_sought(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of many hours has too many records for an index."""
    with monkeypatch.context() as patch:
        patch.setattr(writer, "MAX_RECORD", 8)
        path = write_container(tmp_path / "long.iwc")
    with ContainerReader(path) as reader:
        assert list(reader.records()) == packets()
        assert [p.first for p in reader.seek(90) if isinstance(p, MotionPacket)] == [80]
        assert reader.damage == []
