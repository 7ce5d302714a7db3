"""The golden file pins the format: a change to it needs a new version."""

import io
from pathlib import Path

import pytest

from iwcodec.codec.bitstream.container import VERSION
from iwcodec.codec.bitstream.reader import ContainerReader
from iwcodec.codec.errors import VersionError
from support.codec.container_file import HEADER, packets, write_container

GOLDEN = Path(__file__).parents[2] / "golden" / f"version{VERSION}.iwc"


def test_the_golden_file_is_read() -> None:
    with ContainerReader(GOLDEN) as reader:
        assert reader.header == HEADER
        assert list(reader.records()) == packets()
        assert not reader.truncated
        assert reader.damage == []


def test_the_writer_gives_the_golden_bytes(tmp_path: Path) -> None:
    assert write_container(tmp_path / "a.iwc").read_bytes() == GOLDEN.read_bytes()


@pytest.mark.parametrize("version", [0, VERSION - 1, VERSION + 1, 0xFFFF])
def test_other_versions_are_refused_in_one_sentence(version: int) -> None:
    data = GOLDEN.read_bytes()
    with pytest.raises(VersionError, match=rf"^This \.iwc file has version {version}; .* version {VERSION}\.$"):
        ContainerReader(io.BytesIO(data[:4] + version.to_bytes(2, "little") + data[6:]))
