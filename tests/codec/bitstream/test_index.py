"""The index: round trips, and bytes that are refused."""

import pytest

from iwcodec.codec.bitstream.index import INDEX_MOTION, INDEX_SOURCES, IndexEntry, pack_index, unpack_index
from iwcodec.codec.errors import FormatError

ENTRIES = [
    IndexEntry(INDEX_SOURCES, 100, 0),
    IndexEntry(INDEX_MOTION, 300, 0),
    IndexEntry(INDEX_MOTION, 450, 50),
]


def test_round_trip() -> None:
    assert unpack_index(pack_index(ENTRIES), 1000) == ENTRIES
    assert unpack_index(b"", 1000) == []


@pytest.mark.parametrize("data", [b"\x01", b"\x01\x05", b"\x03\x05\x00", pack_index([IndexEntry(2, 2000, 0)])])
def test_bad_entries_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        unpack_index(data, 1000)
