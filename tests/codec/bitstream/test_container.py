"""The .iwc container: round trips, seeking, truncation at every byte, flips of every byte, forged numbers."""

import io
import tracemalloc
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import msgpack
import pytest

from iwcodec.codec.bitstream import container, header
from iwcodec.codec.bitstream.header import Header
from iwcodec.codec.bitstream.packets import AudioPacket, MotionPacket, Packet, Run, SourcePacket
from iwcodec.codec.bitstream.reader import ContainerReader
from iwcodec.codec.bitstream.writer import ContainerWriter
from iwcodec.codec.errors import CodecError, FormatError, MediaError, VersionError

GOLDEN = Path(__file__).parents[2] / "golden"
HEADER = Header(
    model_id="lite-256",
    model_digest=bytes(range(8)),
    keypoints=20,
    step_xy=0.0078125,
    step_strength=0.03125,
    tables=0x12345678,
    fps=Fraction(30_000, 1001),
    size=256,
    frames=120,
).with_audio(312, 2880)
TODAYS = replace(HEADER, suppression=8)


def packets(version: int = header.VERSION) -> list[Packet]:
    """Sources first, then motion of 40 frames and sound of 60 ms by turns, as that version had them."""
    none = 0 if version >= 4 else None
    sources: list[Packet] = [SourcePacket(n, bytes([n]) * (30 + n), n * 40 or none) for n in range(3)]
    streams: list[Packet] = []
    for n in range(3):
        streams.append(AudioPacket(n * 8640, (b"one", b"three", b"to")))
        payload = bytes([0xA1 + n, 0xA2, n]) * 7
        runs, scale = ((), None) if version < 4 else ((Run(n, 30), Run(0, 10)), 60 * n)
        streams.append(MotionPacket(n * 40, 40, None, payload, runs, scale=scale))
    return [*sources, *streams]


def write(path: Path, header: Header = HEADER) -> Path:
    with ContainerWriter(path, header) as writer:
        writer.write_sources([packet for packet in packets() if isinstance(packet, SourcePacket)])
        for packet in packets():
            if isinstance(packet, MotionPacket):
                writer.write_motion(packet)
            elif isinstance(packet, AudioPacket):
                writer.write_audio(packet)
    assert sum(writer.bytes.values()) == path.stat().st_size
    return path


@pytest.fixture
def data(tmp_path: Path) -> bytes:
    return write(tmp_path / "a.iwc").read_bytes()


def test_round_trip(tmp_path: Path):
    with ContainerReader(write(tmp_path / "a.iwc")) as reader:
        assert reader.header == HEADER
        assert list(reader.records()) == packets()
        assert not reader.truncated
        assert reader.damage == []


@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_golden_files(version: int):
    """Written once by `python tests/test_container.py` of their time; later versions must go on reading them."""
    with ContainerReader(GOLDEN / f"version{version}.iwc") as reader:
        assert reader.header == replace(HEADER if version < 5 else TODAYS, version=version)
        assert list(reader.records()) == packets(version)


def test_writer_gives_the_golden_bytes(tmp_path: Path):
    assert write(tmp_path / "a.iwc", TODAYS).read_bytes() == (GOLDEN / "version5.iwc").read_bytes()


@pytest.mark.parametrize(("frame", "first"), [(0, 0), (39, 0), (40, 40), (119, 80)])
def test_seek_gives_all_sources_and_the_right_motion(data: bytes, frame: int, first: int):
    for stream in (data, data[:-1]):  # by the index, and by walking where it is missing
        reader = ContainerReader(io.BytesIO(stream))
        found = list(reader.seek(frame))
        assert [p.slot for p in found if isinstance(p, SourcePacket)] == [0, 1, 2]
        assert next(p for p in found if isinstance(p, MotionPacket)).first == first


def test_truncated_anywhere_plays_up_to_there(data: bytes):
    whole = packets()
    for cut in range(len(data)):
        try:
            reader = ContainerReader(io.BytesIO(data[:cut]))
        except FormatError:
            continue
        found = list(reader.records())
        assert found == whole[: len(found)]
        assert len(found) != 2  # two sources share a record
        assert reader.truncated
        assert reader.damage == []


def test_any_flipped_byte_costs_one_record_at_most(data: bytes):
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
        found = list(reader.records())
        missing = [p for p in whole if p not in found]
        assert len(missing) <= 1 or missing == whole[1:3]  # two sources share a record
        assert [p for p in whole if p in found] == found
        if missing:
            assert len(reader.damage) == 1
            assert "record" in reader.damage[0]
    assert refused < 400  # the header alone


def test_damage_is_named(data: bytes):
    at = data.find(packets()[4].payload)  # type: ignore[union-attr]
    broken = bytearray(data)
    broken[at] ^= 1
    reader = ContainerReader(io.BytesIO(bytes(broken)))
    list(reader.records())
    (line,) = reader.damage
    assert line.startswith("motion record 1 at byte ")
    assert "CRC mismatch" in line


def test_version_and_magic(data: bytes):
    with pytest.raises(VersionError, match="version 7"):
        ContainerReader(io.BytesIO(data[:4] + b"\x07\x00" + data[6:]))
    with pytest.raises(FormatError, match=r"not an \.iwc file"):
        ContainerReader(io.BytesIO(b"RIFF" + data[4:]))
    with pytest.raises(FormatError):
        ContainerReader(io.BytesIO(b""))


def test_declared_lengths_cost_no_memory(data: bytes):
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


def test_a_file_of_markers_ends_soon(data: bytes):
    """Every byte might start a record: the search for one is bounded."""
    reader = ContainerReader(io.BytesIO(data[: data.find(b"\xa1")] + b"\xa1\x90\x4e" * 60_000))
    assert list(reader.records()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"keypoints": 0},
        {"keypoints": "20"},
        {"keypoints": True},
        {"suppression": 101},
        {"suppression": -1},
        {"suppression": 0.5},
        {"step_xy": 5},
        {"step_xy": float("nan")},
        {"fps": [0, 1]},
        {"fps": [1, 0]},
        {"fps": [10**9, 1]},
        {"size": 10**6},
        {"model_id": ""},
        {"model_id": "a\nb"},
        {"model_digest": b"short"},
        {"audio": 3},
        {"audio": {"pre_skip": -1, "packet_samples": 960}},
        {"audio": [-1, 960]},
        {"audio": [312]},
        {"frames": 2**60},
    ],
)
def test_headers_out_of_range(change: dict[str, object]):
    raw = dict(zip(header.HEADER_FIELDS, msgpack.unpackb(HEADER.to_bytes()), strict=True))
    with pytest.raises(FormatError):
        Header.from_bytes(msgpack.packb(list({**raw, **change}.values())))
    with pytest.raises(FormatError):  # as version 2 wrote it
        Header.from_bytes(msgpack.packb({**raw, **change}))


@pytest.mark.parametrize(
    "packed", [b"", b"\xc1", b"\x93\x01", msgpack.packb([1]), b"\xdf\xff\xff\xff\xff", b"\x91" * 5000]
)
def test_headers_that_are_neither_array_nor_map(packed: bytes):
    with pytest.raises(FormatError):
        Header.from_bytes(packed)


def test_header_round_trip_without_sound():
    silent = replace(HEADER, audio=None)
    assert Header.from_bytes(silent.to_bytes()) == silent


def test_forged_index_falls_back_to_walking(data: bytes):
    for offset in (0, 5, len(data), 2**63):
        forged = data[:-12] + offset.to_bytes(8, "little") + data[-4:]
        reader = ContainerReader(io.BytesIO(forged))
        assert next(p for p in reader.seek(50) if isinstance(p, MotionPacket)).first == 40


def test_nothing_is_left_of_a_failed_write(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt), ContainerWriter(tmp_path / "a.iwc", HEADER):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(MediaError):
        ContainerWriter(tmp_path / "no" / "a.iwc", HEADER)


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Full(io.RawIOBase):
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    writer = ContainerWriter(tmp_path / "a.iwc", HEADER)
    writer._file.close()
    monkeypatch.setattr(writer, "_file", Full())
    with pytest.raises(MediaError, match="No space"):
        writer.write_source(SourcePacket(0, b"x"))
    assert list(tmp_path.iterdir()) == []


def test_overhead_of_a_typical_file(tmp_path: Path):
    """Two-second motion records and one-second sound records: what the container costs in bits a second."""
    path = tmp_path / "a.iwc"
    with ContainerWriter(path, HEADER) as writer:
        for n in range(30):
            writer.write_audio(AudioPacket(n * 96_000, (bytes(90),) * 17))
            writer.write_audio(AudioPacket(n * 96_000 + 48_000, (bytes(90),) * 17))
            writer.write_motion(MotionPacket(n * 50, 50, None, bytes(500)))
    assert writer.bytes["container"] * 8 / 60 < 320  # 318.4 bits a second, of which the Opus lengths are half


def test_sources_that_come_together_cost_little_more_than_themselves(tmp_path: Path):
    path, sizes = tmp_path / "a.iwc", []
    sources = [SourcePacket(n, bytes(300), 50 * n) for n in range(25)]
    for count in (1, 25):
        with ContainerWriter(path, HEADER) as writer:
            writer.write_sources(sources[:count])
        sizes.append(writer.bytes["container"])
        with ContainerReader(path) as reader:
            assert list(reader.records()) == sources[:count]
    assert (sizes[1] - sizes[0]) / 24 < 6


def test_only_codec_errors_come_from_noise(data: bytes):
    assert issubclass(FormatError, CodecError)
    assert header.VERSION == 5


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    write(GOLDEN / "version5.iwc", TODAYS)


def test_frames_are_counted_by_the_index_or_by_walking(data: bytes):
    for stream in (data, data[:-1]):
        assert ContainerReader(io.BytesIO(stream)).frames() == HEADER.frames


def test_an_index_that_is_too_long_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of a file of many hours, which plays and is entered in the middle all the same."""
    with monkeypatch.context() as patch:
        patch.setattr(container, "MAX_RECORD", 8)
        path = write(tmp_path / "long.iwc")
    with ContainerReader(path) as reader:
        assert list(reader.records()) == packets()
        assert [p.first for p in reader.seek(90) if isinstance(p, MotionPacket)] == [80]
        assert reader.damage == []
