"""Headers: round trips, and values that are refused."""

from dataclasses import replace

import msgpack
import pytest

from iwcodec.codec.bitstream.header import HEADER_FIELDS, Header
from iwcodec.codec.errors import FormatError
from support.codec.container_file import HEADER


def test_round_trip() -> None:
    assert Header.from_bytes(HEADER.to_bytes()) == HEADER


def test_round_trip_without_sound() -> None:
    silent = replace(HEADER, audio=None)
    assert Header.from_bytes(silent.to_bytes()) == silent


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
def test_values_out_of_range_are_refused(change: dict[str, object]) -> None:
    raw = dict(zip(HEADER_FIELDS, msgpack.unpackb(HEADER.to_bytes()), strict=True))
    with pytest.raises(FormatError):
        Header.from_bytes(msgpack.packb(list({**raw, **change}.values())))


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\xc1",
        b"\x93\x01",
        msgpack.packb([1]),
        msgpack.packb(dict(zip(HEADER_FIELDS, msgpack.unpackb(HEADER.to_bytes()), strict=True))),
        b"\xdf\xff\xff\xff\xff",
        b"\x91" * 5000,
    ],
)
def test_headers_that_are_not_an_array_of_all_values_are_refused(packed: bytes) -> None:
    with pytest.raises(FormatError):
        Header.from_bytes(packed)
