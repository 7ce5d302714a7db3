"""Messages of the data channels: round trips, sizes, refusal of malformed ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iwcodec.client.link.messages import (
    MAX_MESSAGE,
    Control,
    Hello,
    MotionMessage,
    Report,
    SourceAck,
    SourceChunk,
    Status,
    control_from_bytes,
    control_to_bytes,
    is_control,
)
from iwcodec.codec.bitstream.packets import MotionPacket
from iwcodec.codec.errors import FormatError
from support.codec.fuzzing import mutated

MOTION = MotionMessage(7, (1000, 1040, 1080), 1, 200, MotionPacket(90, 3, 84, b"levels"))
CONTROLS: list[Control] = [
    Report(1000, None, 0, 25, 2, 30, 812, 75),
    Report(1000, 900, 12, 25, 2, 30, None, 75),
    Hello(1, b"8 bytes!", 77, 1234, None, 0),
    Hello(1, b"8 bytes!", 77, 1234, 5, 9),
    Status(False, True),
    SourceAck(4, 11),
]


@given(
    st.integers(0, 255),
    st.integers(0, 1 << 39),
    st.lists(st.integers(0, 4000), max_size=15),
    st.integers(0, 3),
    st.none() | st.integers(0, 255),
)
def test_motion_round_trip(
    sequence: int, first: int, gaps: list[int], coarseness: int, acknowledged: int | None
) -> None:
    stamps = tuple(np.cumsum([first, *gaps]).tolist())
    packet = MotionPacket(500, len(stamps), None, b"levels")
    back = MotionMessage.from_bytes(MotionMessage(sequence, stamps, coarseness, acknowledged, packet).to_bytes())
    assert (back.sequence, back.coarseness, back.acknowledged) == (sequence, coarseness, acknowledged)
    assert back.packet == packet
    assert max(abs(a - b) for a, b in zip(back.stamps, stamps, strict=True)) <= 10


def test_motion_overhead_is_6_bytes() -> None:
    """Overhead besides the packet: flags, sequence, two bytes of the stamp, span, acknowledgement."""
    assert len(MOTION.to_bytes()) == len(MOTION.packet.to_bytes()) + 6
    assert not is_control(MOTION.to_bytes())


def test_source_round_trip() -> None:
    for is_snapshot in (False, True):
        chunk = SourceChunk(3, 200, is_snapshot, 2000, 900, b"part")
        assert SourceChunk.from_bytes(chunk.to_bytes()) == chunk


@pytest.mark.parametrize("control", CONTROLS)
def test_control_round_trip(control: Control) -> None:
    data = control_to_bytes(control)
    assert is_control(data)
    assert control_from_bytes(data) == control
    assert len(data) < 40


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"\x10\x00\x00\x00\x00\x00\x00x",  # an unknown flag
        b"\x04\x00\x00\x10" + bytes(30),  # too many times
        b"\x04\x00\x00\x02\x01\x01\x00\x00\x00x",  # three times for one frame
        b"\x00\x00\x00\x05\x00\x00\x00x",  # one frame, but a time span
        b"\x00\x00\x00\x05\x00\x7f\x00x",  # 128 frames
        MOTION.to_bytes() + bytes(MAX_MESSAGE),
    ],
)
def test_bad_motion_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        MotionMessage.from_bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        SourceChunk(0, 0, False, 10, 8, b"abc").to_bytes(),  # exceeds the length
        SourceChunk(0, 0, False, 10, 8, b"").to_bytes(),
        SourceChunk(0, 0, False, 1 << 17, 0, b"a").to_bytes(),  # too long
    ],
)
def test_bad_source_chunk_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        SourceChunk.from_bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80",
        b"\xff\x90",  # no such kind
        b"\x82\xc3",  # not an array
        b"\x82\x91\xc3",  # a field is missing
        b"\x82\x92\xc3\x01",  # 1 is not true
        b"\x83\x92\xc3\x01",  # true is not 1
        b"\x83\x92\xff\x01",  # below zero
        b"\x83" + b"\x91" * 900,  # deeply nested
        b"\x83\x92\x01\x01\x01",  # trailing data
        b"\x83\xdd\xff\xff\xff\xff",  # claims 2**32 - 1 fields
    ],
)
def test_bad_control_message_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        control_from_bytes(data)


def test_damaged_messages_raise_only_format_error() -> None:
    """10,000 damaged messages raise nothing but FormatError."""
    rng = np.random.default_rng(4)
    seeds = [MOTION.to_bytes(), SourceChunk(3, 200, True, 2000, 900, b"part").to_bytes()]
    seeds += [control_to_bytes(control) for control in CONTROLS]
    parsers = (MotionMessage.from_bytes, SourceChunk.from_bytes, control_from_bytes)
    for n in range(10_000):
        data = mutated(seeds[n % len(seeds)], rng)
        for parse in parsers:
            try:
                parse(data)
            except FormatError:
                continue
