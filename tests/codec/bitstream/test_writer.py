"""Writing .iwc files: complete or not at all, and how many bytes the container costs."""

import io
from pathlib import Path

import pytest

from iwcodec.codec.bitstream.packets import AudioPacket, MotionPacket, SourcePacket
from iwcodec.codec.bitstream.reader import ContainerReader
from iwcodec.codec.bitstream.writer import ContainerWriter
from iwcodec.codec.errors import MediaError
from support.codec.container_file import HEADER


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


@pytest.mark.parametrize("variants", [False, True])
def test_sources_that_share_records_cost_under_six_bytes_each(variants: bool, tmp_path: Path) -> None:
    path, sizes = tmp_path / "a.iwc", []
    sources = [SourcePacket(0, bytes(300), 0)]
    sources += [SourcePacket(n, bytes(300), *((None, 0) if variants else (50 * n, None))) for n in range(1, 25)]
    for count in (1, 25):
        with ContainerWriter(path, HEADER) as writer:
            writer.write_sources(sources[:count])
        sizes.append(writer.bytes["container"])
        assert writer.bytes["sources"] == 300 * count
        with ContainerReader(path) as reader:
            assert list(reader.records()) == sources[:count]
    assert (sizes[1] - sizes[0]) / 24 < 6
