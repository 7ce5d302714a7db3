"""Writing .iwc files: complete or not at all, and how many bytes the container costs."""

import io
from pathlib import Path

import pytest

from container_file import HEADER
from iwcodec.codec.bitstream.packets import AudioPacket, Box, MotionPacket, PartsPacket, SourcePacket
from iwcodec.codec.bitstream.reader import ContainerReader
from iwcodec.codec.bitstream.writer import ContainerWriter
from iwcodec.codec.errors import MediaError


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), ContainerWriter(tmp_path / "a.iwc", HEADER):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(MediaError):
        ContainerWriter(tmp_path / "no" / "a.iwc", HEADER)


def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.RawIOBase):
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    writer = ContainerWriter(tmp_path / "a.iwc", HEADER)
    writer._file.close()
    monkeypatch.setattr(writer, "_file", Full())
    with pytest.raises(MediaError, match="No space"):
        writer.write_source(SourcePacket(0, b"x"))
    assert list(tmp_path.iterdir()) == []


def test_the_container_costs_under_320_bits_a_second(tmp_path: Path) -> None:
    """With two-second motion records and one-second sound records."""
    path = tmp_path / "a.iwc"
    with ContainerWriter(path, HEADER) as writer:
        for n in range(30):
            writer.write_audio(AudioPacket(n * 96_000, (bytes(90),) * 17))
            writer.write_audio(AudioPacket(n * 96_000 + 48_000, (bytes(90),) * 17))
            writer.write_motion(MotionPacket(n * 50, 50, None, bytes(500)))
    assert writer.bytes["container"] * 8 / 60 < 320  # 318.4, half of it the lengths of Opus packets


def test_sources_that_share_records_cost_under_six_bytes_each(tmp_path: Path) -> None:
    path, sizes = tmp_path / "a.iwc", []
    sources = [SourcePacket(n, bytes(300), 50 * n) for n in range(25)]
    for count in (1, 25):
        with ContainerWriter(path, HEADER) as writer:
            writer.write_sources(sources[:count])
        sizes.append(writer.bytes["container"])
        with ContainerReader(path) as reader:
            assert list(reader.records()) == sources[:count]
    assert (sizes[1] - sizes[0]) / 24 < 6


def test_parts_cost_two_bytes_each_beyond_their_payloads(tmp_path: Path) -> None:
    """After the first, which costs 40 with its record, and the entry of the index."""
    path, costs = tmp_path / "a.iwc", []
    for count in (0, 1, 30):
        packets = [PartsPacket(1, 0, 3, Box(1020, 1300, 700, 700, 12), (bytes(150),) * count)] if count else []
        with ContainerWriter(path, HEADER) as writer:
            for packet in packets:
                writer.write_parts(packet)
        assert writer.bytes["parts"] == 150 * count
        costs.append(writer.bytes["container"])
        with ContainerReader(path) as reader:
            assert list(reader.records()) == packets
    assert costs[1] - costs[0] <= 40
    assert costs[2] - costs[1] <= 2 * 29 + 1
