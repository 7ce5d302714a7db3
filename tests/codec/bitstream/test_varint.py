"""Varints: round trips, sizes and bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iwcodec.codec.bitstream.varint import read_varint, write_varint
from iwcodec.codec.errors import FormatError


@given(st.integers(0, 2**63 - 1), st.binary(max_size=4))
def test_round_trip(value: int, behind: bytes) -> None:
    data = write_varint(value)
    assert read_varint(data + behind, 0, 2**63) == (value, len(data))


def test_sizes() -> None:
    assert [len(write_varint(v)) for v in (0, 127, 128, 16_383, 16_384)] == [1, 1, 2, 2, 3]


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x80\x00", b"\xff" * 12, b"\x05"])
def test_bad_varints_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        read_varint(data, 0, 4)


def test_values_out_of_range_are_not_written() -> None:
    for value in (-1, 2**63):
        with pytest.raises(ValueError, match="fit"):
            write_varint(value)
