"""Packets: round trips, overheads, and bytes that are refused."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iwcodec.codec.bitstream.packets import (
    MAX_BACK,
    MAX_BOX,
    MAX_FRAME,
    MAX_GROUP,
    MAX_OPUS_BYTES,
    MAX_PACKET_FRAMES,
    MAX_PART,
    MAX_PART_BYTES,
    MAX_PARTS_GROUP,
    MAX_PAYLOAD,
    MAX_REGIONS,
    MAX_SLOT,
    AudioPacket,
    Box,
    MotionPacket,
    PartsPacket,
    Run,
    SourcePacket,
    pack_sources,
    runs_of,
    source_groups,
    unpack_sources,
)
from iwcodec.codec.errors import FormatError

payloads = st.binary(min_size=1, max_size=50)


@given(st.integers(0, MAX_SLOT), payloads, st.none() | st.integers(0, MAX_FRAME - 1))
def test_source_round_trip(slot: int, payload: bytes, frame: int | None) -> None:
    packet = SourcePacket(slot, payload, frame)
    assert SourcePacket.from_bytes(packet.to_bytes()) == packet


@given(
    st.integers(0, MAX_SLOT - MAX_GROUP),
    st.lists(st.tuples(payloads, st.integers(0, MAX_FRAME)), min_size=2, max_size=MAX_GROUP),
)
def test_sources_round_trip(slot: int, contents: list[tuple[bytes, int]]) -> None:
    packets = [SourcePacket(slot + n, payload, frame) for n, (payload, frame) in enumerate(contents)]
    assert unpack_sources(pack_sources(packets)) == packets


def test_consecutive_sources_of_known_frames_share_a_packet() -> None:
    def sizes(packets: list[SourcePacket]) -> list[int]:
        groups = list(source_groups(packets))
        assert [packet for group in groups for packet in group] == packets
        return [len(group) for group in groups]

    assert sizes([SourcePacket(n, b"x", n) for n in range(20)]) == [
        1,
        8,
        8,
        3,
    ]  # all depend on the first
    assert sizes([SourcePacket(n, b"x", n) for n in range(5, 9)]) == [4]
    assert sizes([SourcePacket(n, b"x", None) for n in range(5, 8)]) == [1, 1, 1]  # calls do not name frames
    assert sizes([SourcePacket(n, b"x", 3) for n in (5, 6, 9, 10)]) == [2, 2]
    assert sizes([SourcePacket(n, bytes(MAX_PAYLOAD // 2), 3) for n in range(5, 9)]) == [2, 2]
    assert sizes([]) == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x05\x00\x01\x02",  # no lengths
        b"\x05\x00\x01\x02\x03ab",  # the first is longer than the packet
        b"\x05\x00\x01\x02\x02ab",  # nothing is left for the last
        b"\x05\x00\x01\x02\x00ab",  # one is empty
        b"\x05\x00\x01\x05\x01ab",  # a frame number below 0
        b"\x05\x07\x01\x02\x01ab",  # too many sources
        b"\x05\x00\x01\x02\x01a" + bytes(MAX_PAYLOAD + 1),
    ],
)
def test_bad_groups_of_sources_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        unpack_sources(data)


numbers = st.integers(0, MAX_BOX)
boxes = st.builds(Box, numbers, numbers, st.integers(1, MAX_BOX), st.integers(1, MAX_BOX), numbers)


@given(
    st.integers(0, MAX_REGIONS - 1),
    st.integers(0, MAX_PART),
    st.integers(0, MAX_SLOT),
    boxes,
    st.lists(payloads, min_size=1, max_size=MAX_PARTS_GROUP),
)
def test_parts_round_trip(region: int, last: int, slot: int, box: Box, contents: list[bytes]) -> None:
    packet = PartsPacket(region, max(0, last + 1 - len(contents)), slot, box, tuple(contents))
    assert PartsPacket.from_bytes(packet.to_bytes()) == packet


BOX = Box(800, 900, 300, 200, 40)
PARTS = PartsPacket(1, 5, 2, BOX, (b"ab", b"cde"))


@pytest.mark.parametrize(
    "packet",
    [
        replace(PARTS, region=MAX_REGIONS),
        replace(PARTS, first=MAX_PART),  # the second part's number is beyond the last
        replace(PARTS, first=MAX_PART + 1, payloads=(b"a",)),
        replace(PARTS, slot=MAX_SLOT + 1),
        replace(PARTS, box=replace(BOX, width=0)),
        replace(PARTS, box=replace(BOX, height=0)),
        *(replace(PARTS, box=replace(BOX, **{name: MAX_BOX + 1})) for name in vars(BOX)),
        replace(PARTS, payloads=(b"a",) * (MAX_PARTS_GROUP + 1)),
        replace(PARTS, payloads=(b"", b"a")),
        replace(PARTS, payloads=(b"a", b"")),
        replace(PARTS, payloads=(bytes(MAX_PART_BYTES + 1), b"a")),
        replace(PARTS, payloads=(b"a", bytes(MAX_PART_BYTES + 1))),
    ],
)
def test_parts_out_of_range_are_refused(packet: PartsPacket) -> None:
    with pytest.raises(FormatError):
        PartsPacket.from_bytes(packet.to_bytes())


def test_truncated_parts_are_refused() -> None:
    """All but the last payload's bytes, whose length is not transmitted."""
    data = PARTS.to_bytes()
    for cut in range(len(data) - 2):
        with pytest.raises(FormatError):
            PartsPacket.from_bytes(data[:cut])


@given(
    st.integers(MAX_BACK, MAX_FRAME), st.integers(1, MAX_PACKET_FRAMES), st.none() | st.integers(1, MAX_BACK), payloads
)
def test_motion_round_trip(first: int, count: int, back: int | None, payload: bytes) -> None:
    packet = MotionPacket(first, count, None if back is None else first - back, payload)
    assert MotionPacket.from_bytes(packet.to_bytes()) == packet
    assert packet.reference_sources() == [None] * count


@given(st.lists(st.integers(0, MAX_SLOT), min_size=1, max_size=MAX_PACKET_FRAMES), payloads)
def test_motion_with_reference_sources_round_trip(slots: list[int], payload: bytes) -> None:
    packet = MotionPacket(9, len(slots), 4, payload, runs_of(slots))
    assert MotionPacket.from_bytes(packet.to_bytes()) == packet
    assert packet.reference_sources() == slots


@given(st.lists(st.integers(0, MAX_SLOT), min_size=1, max_size=MAX_PACKET_FRAMES), st.integers(0, 255), payloads)
def test_transformed_motion_round_trip(slots: list[int], scale: int, payload: bytes) -> None:
    packet = MotionPacket(9, len(slots), None, payload, runs_of(slots), scale=scale)
    assert MotionPacket.from_bytes(packet.to_bytes()) == packet


part_numbers = st.none() | st.integers(0, MAX_PART)


@given(
    st.integers(1, MAX_REGIONS).flatmap(
        lambda regions: st.lists(st.tuples(*[part_numbers] * regions), min_size=1, max_size=MAX_PACKET_FRAMES)
    ),
    st.none() | st.integers(0, 255),
    payloads,
)
def test_motion_with_parts_round_trip(shown: list[tuple[int | None, ...]], scale: int | None, payload: bytes) -> None:
    parts = tuple(runs_of([0 if part is None else part + 1 for part in region]) for region in zip(*shown, strict=True))
    runs = () if scale is None else (Run(3, len(shown)),)
    packet = MotionPacket(9, len(shown), None, payload, runs, scale, parts)
    assert MotionPacket.from_bytes(packet.to_bytes()) == packet
    assert [packet.parts_of(frame) for frame in range(len(shown))] == shown


def test_without_parts_frames_show_none() -> None:
    assert MotionPacket(9, 4, None, b"x").parts_of(3) == ()


def test_runs_need_the_slots_of_all_frames() -> None:
    assert runs_of([2, 2, 5, 2]) == (Run(2, 2), Run(5, 1), Run(2, 1))
    assert runs_of([2, None]) == ()


@given(st.integers(0, 2**40), st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=20))
def test_audio_round_trip(first: int, opus: list[bytes]) -> None:
    packet = AudioPacket(first, tuple(opus))
    assert AudioPacket.from_bytes(packet.to_bytes()) == packet


def test_overheads() -> None:
    """Bytes with a one-byte payload, for typical numbers."""
    assert len(SourcePacket(3, b"x").to_bytes()) == 3
    assert len(SourcePacket(3, b"x", 1000).to_bytes()) == 4
    assert len(MotionPacket(100, 50, None, b"x").to_bytes()) == 4
    assert len(MotionPacket(100, 3, 97, b"x").to_bytes()) == 5
    assert len(MotionPacket(100, 50, None, b"x", runs_of([3] * 50)).to_bytes()) == 6
    assert len(MotionPacket(100, 50, None, b"x", runs_of([3] * 50), scale=78).to_bytes()) == 7
    no_eyes, mouth = (Run(0, 50),), (Run(0, 20), Run(5, 30))
    assert len(MotionPacket(100, 50, None, b"x", runs_of([3] * 50), 78, (no_eyes, mouth)).to_bytes()) == 14
    assert len(PartsPacket(1, 5, 2, BOX, (b"x",)).to_bytes()) == 14


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",  # no first frame's count
        b"\x00\x00",
        b"\x00\x00\x00",  # no payload
        b"\x00\x00\x10x",  # an unknown flag
        b"\x00\x00\x08\x50x",  # transform-coded without reference sources
        b"\x05\x00\x0b\x01\x00\x00\x50x",  # transform-coded with a reference frame
        b"\x00\x05\x0f\x00\x00\x00\x00\x00\x50x",  # transform-coded with parts and a reference frame
        b"\x00\x05\x0c\x00\x00\x00\x50x",  # transform-coded with parts, without reference sources
        b"\x00\x05\x0e\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x50x",  # parts of too many regions
        b"\x00\x05\x0e\x00\x00\x00\x00\x81\x08\x50x",  # a part beyond the last
        b"\x00\x05\x0e\x00\x00\x00\x06\x00x",  # more runs of parts than frames
        b"\x00\x05\x0e\x00\x00\x00\x01\x00\x00\x01\x50x",  # a run of no frames of a part
        b"\x00\x05\x0e\x00\x00\x00\x01\x00\x06\x01\x50x",  # a run of all frames before another run of parts
        b"\x00\x05\x0e\x00\x00\x00\x00\x05\x50",  # parts, and no payload
        b"\x00\x00\x0a\x00\x00\x80\x02x",  # a scale beyond the last
        b"\x00\x00\x0a\x00\x00\x50",  # no payload
        b"\x00\x05\x02\x06\x00x",  # more runs than frames
        b"\x00\x05\x02\x01\x00\x00\x01x",  # a run of no frames
        b"\x00\x05\x02\x01\x00\x06\x01x",  # a run of all frames before another run
        b"\x00\x05\x04\x00x",  # ends within the parts
        b"\x00\x05\x04\x01\x00\x05x",  # lacks the parts of the second region
        b"\x05\x00\x01\x06x",  # refers to before the first frame
        b"\x05\x00\x01\x00x",  # refers to itself
        b"\x00\xff\x7fx",  # too many frames
        b"\x00\x00\x00" + bytes(1 << 19),
    ],
)
def test_bad_motion_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        MotionPacket.from_bytes(data)


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"\x00\x01\x05abc", b"\x00\x01\x00abc", b"\x00\x00" + bytes(MAX_OPUS_BYTES + 1)]
)
def test_bad_audio_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        AudioPacket.from_bytes(data)


@pytest.mark.parametrize("data", [b"", b"\x01", b"\xff\xff\x7fx"])
def test_a_bad_source_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        SourcePacket.from_bytes(data)
