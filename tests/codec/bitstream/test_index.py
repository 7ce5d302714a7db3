"""The index: round trips, and bytes that are refused."""

import pytest

from iwcodec.codec.bitstream.index import (
    INDEX_MOTION,
    INDEX_SOURCES,
    IndexEntry,
    Quality,
    pack_index,
    quality_of,
    unpack_index,
)
from iwcodec.codec.errors import FormatError

ENTRIES = [IndexEntry(INDEX_SOURCES, 100, 0), IndexEntry(INDEX_MOTION, 300, 0), IndexEntry(INDEX_MOTION, 450, 50)]


def test_round_trip() -> None:
    assert unpack_index(pack_index(ENTRIES), 1000) == ENTRIES
    assert unpack_index(b"", 1000) == []


def test_quality_follows_the_records() -> None:
    quality = Quality(31.46, 20.61, 75)
    entries = unpack_index(pack_index(ENTRIES, quality), 1000)
    assert entries[:3] == ENTRIES
    assert quality_of(entries, 100) == quality
    assert quality_of(ENTRIES, 100) is None
    assert pack_index(entries) == pack_index(ENTRIES)
    assert quality_of(unpack_index(pack_index([], Quality(float("inf"), 120.0, 0)), 1), 1) == Quality(100.0, 100.0, 0)


@pytest.mark.parametrize("values", [(20, 100.01, 0), (30, 20, 100), (100.01, 20, 0), (30, 20), (30, 20, 0, 0)])
def test_impossible_quality_is_none(values: tuple[float, ...]) -> None:
    entries = [IndexEntry(0, 0, round(value * 100) if n < 2 else round(value)) for n, value in enumerate(values)]
    assert quality_of(entries, 100) is None


@pytest.mark.parametrize("data", [b"\x01", b"\x01\x05", b"\x03\x05\x00", pack_index([IndexEntry(2, 2000, 0)])])
def test_bad_entries_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        unpack_index(data, 1000)
