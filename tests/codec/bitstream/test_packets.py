"""Packets: round trips, overheads, and bytes that are refused."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from iwcodec.codec.bitstream.packets import (
    MAX_BACK,
    MAX_FRAME,
    MAX_GROUP,
    MAX_OPUS_BYTES,
    MAX_PACKET_FRAMES,
    MAX_PAYLOAD,
    MAX_REGIONS,
    MAX_SLOT,
    AudioPacket,
    MotionPacket,
    Run,
    SourcePacket,
    pack_sources,
    runs_of,
    source_groups,
    unpack_sources,
)
from iwcodec.codec.errors import FormatError

payloads = st.binary(min_size=1, max_size=50)


@given(st.integers(0, MAX_SLOT), payloads, st.none() | st.integers(0, MAX_FRAME))
@example(MAX_SLOT, b"x", MAX_FRAME)
def test_source_round_trip(slot: int, payload: bytes, frame: int | None) -> None:
    packet = SourcePacket(slot, payload, frame)
    assert SourcePacket.from_bytes(packet.to_bytes()) == packet


@given(st.integers(0, MAX_SLOT), payloads, st.integers(0, MAX_SLOT))
@example(MAX_SLOT, b"x", MAX_SLOT)
@example(1, b"x", 0)
def test_variant_round_trip(slot: int, payload: bytes, base: int) -> None:
    packet = SourcePacket(slot, payload, base=base)
    assert SourcePacket.from_bytes(packet.to_bytes()) == packet


@given(
    st.integers(0, MAX_SLOT - MAX_GROUP),
    st.lists(st.tuples(payloads, st.integers(0, MAX_FRAME)), min_size=2, max_size=MAX_GROUP),
)
def test_sources_round_trip(slot: int, contents: list[tuple[bytes, int]]) -> None:
    packets = [SourcePacket(slot + n, payload, frame) for n, (payload, frame) in enumerate(contents)]
    assert unpack_sources(pack_sources(packets)) == packets


@given(
    st.integers(0, MAX_SLOT - MAX_GROUP), st.integers(0, MAX_SLOT), st.lists(payloads, min_size=2, max_size=MAX_GROUP)
)
def test_variants_round_trip(slot: int, base: int, contents: list[bytes]) -> None:
    packets = [SourcePacket(slot + n, payload, base=base) for n, payload in enumerate(contents)]
    assert unpack_sources(pack_sources(packets)) == packets


def sizes(packets: list[SourcePacket]) -> list[int]:
    """How many packets are in each group."""
    groups = list(source_groups(packets))
    assert [packet for group in groups for packet in group] == packets
    return [len(group) for group in groups]


def test_variants_of_one_source_share_a_packet() -> None:
    def variants(slots: range, base: int) -> list[SourcePacket]:
        return [SourcePacket(n, b"x", base=base) for n in slots]

    known = [SourcePacket(n, b"x", n) for n in range(3)]
    assert sizes([*known, *variants(range(3, 20), 0)]) == [1, 2, 8, 8, 1]  # not with the sources before them
    assert sizes([*variants(range(3, 6), 0), *variants(range(6, 8), 1)]) == [3, 2]
    assert sizes([*variants(range(3, 6), 2), *(SourcePacket(n, b"x", n) for n in range(6, 8))]) == [3, 2]
    assert sizes([*variants(range(3, 6), 2), *(SourcePacket(n, b"x") for n in range(6, 8))]) == [3, 1, 1]
    assert sizes([*variants(range(3, 5), 0), *variants(range(9, 11), 0)]) == [2, 2]
    assert sizes(variants(range(2), 0)) == [1, 1]  # nothing joins slot 0
    last = variants(range(MAX_SLOT - MAX_GROUP - 4, MAX_SLOT + 1), 0)
    assert [one for group in source_groups(last) for one in unpack_group(group)] == last


def unpack_group(group: list[SourcePacket]) -> list[SourcePacket]:
    """A group, written and read as in a file."""
    return [SourcePacket.from_bytes(group[0].to_bytes())] if len(group) == 1 else unpack_sources(pack_sources(group))


def test_consecutive_sources_of_known_frames_share_a_packet() -> None:
    assert sizes([SourcePacket(n, b"x", n) for n in range(20)]) == [1, 8, 8, 3]  # all depend on the first
    assert sizes([SourcePacket(n, b"x", n) for n in range(5, 9)]) == [4]
    assert sizes([SourcePacket(n, b"x", None) for n in range(5, 8)]) == [1, 1, 1]  # calls do not name frames
    assert sizes([SourcePacket(n, b"x", 3) for n in (5, 6, 9, 10)]) == [2, 2]
    assert sizes([SourcePacket(n, bytes(MAX_PAYLOAD // 2), 3) for n in range(5, 9)]) == [2, 2]
    assert sizes([]) == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x05\x00\x02\x02",  # no lengths
        b"\x05\x00\x02\x02\x03ab",  # the first is longer than the packet
        b"\x05\x00\x02\x02\x02ab",  # nothing is left for the last
        b"\x05\x00\x02\x02\x00ab",  # one is empty
        b"\x05\x00\x02\x05\x01ab",  # a frame number below 0
        b"\x05\x07\x02\x02\x01ab",  # too many sources
        b"\x05\x00\x02\x02\x01a" + bytes(MAX_PAYLOAD + 1),
        b"\x05\x00\x01",  # variants without lengths
        b"\x05\x00\x01\x03ab",  # the first variant is longer than the packet
        b"\x05\x00\x01\x02ab",  # nothing is left for the last variant
        b"\x05\x07\x01" + bytes([1] * 8) + b"abcdefghi",  # too many variants
        b"\x05\x00\x81\x80\x08\x01ab",  # variants of a slot beyond the last
        b"\xf8\xff\x03\x00\x01\x01ab",  # variants in slots beyond the last
    ],
)
def test_bad_groups_of_sources_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        unpack_sources(data)


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
    for reference in (None, 4):
        packet = MotionPacket(9, len(slots), reference, payload, runs_of(slots), scale=scale)
        assert MotionPacket.from_bytes(packet.to_bytes()) == packet
    packet = MotionPacket(9, len(slots), 4, payload, scale=scale, alike=True)
    assert MotionPacket.from_bytes(packet.to_bytes()) == packet


@given(
    st.integers(1, MAX_REGIONS).flatmap(
        lambda count: st.lists(
            st.tuples(*[st.none() | st.integers(0, MAX_SLOT)] * count), min_size=1, max_size=MAX_PACKET_FRAMES
        )
    ),
    st.none() | st.integers(0, 255),
    payloads,
)
@example([(MAX_SLOT, None), (0, MAX_SLOT)], 70, b"x")
@settings(max_examples=40, deadline=None)
def test_motion_with_regions_round_trip(shown: list[tuple[int | None, ...]], scale: int | None, payload: bytes) -> None:
    """Slots are sent as slot + 1, so that the last one needs a number beyond those of slots."""
    regions = tuple(runs_of([0 if slot is None else slot + 1 for slot in slots]) for slots in zip(*shown, strict=True))
    runs = () if scale is None else (Run(3, len(shown)),)
    packet = MotionPacket(9, len(shown), None, payload, runs, scale, regions)
    assert MotionPacket.from_bytes(packet.to_bytes()) == packet
    assert [packet.regions_of(frame) for frame in range(len(shown))] == shown


def test_without_named_regions_frames_have_none() -> None:
    assert MotionPacket(9, 4, None, b"x").regions_of(3) == ()


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
    assert len(MotionPacket(100, 4, 96, b"x", scale=78, alike=True).to_bytes()) == 6
    no_eyes, mouth = (Run(0, 50),), (Run(0, 20), Run(5, 30))
    assert len(MotionPacket(100, 50, None, b"x", runs_of([3] * 50), 78, (no_eyes, mouth)).to_bytes()) == 14
    assert len(SourcePacket(3, b"x", base=0).to_bytes()) == 3
    assert len(pack_sources([SourcePacket(n, b"x", base=0) for n in (3, 4)])) == 3 + 1 + 2


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",  # no first frame's count
        b"\x00\x00",
        b"\x00\x00\x00",  # no payload
        b"\x00\x00\x20x",  # an unknown flag
        b"\x00\x00\x08\x50x",  # transform-coded without reference sources
        b"\x05\x00\x09\x01\x50x",  # transform-coded with a reference frame, without reference sources
        b"\x05\x00\x18\x50x",  # like a reference frame, without one
        b"\x05\x00\x11\x01x",  # like the reference frame, but not transform-coded
        b"\x05\x00\x1b\x01\x00\x00\x50x",  # like the reference frame, and names reference sources
        b"\x05\x00\x1d\x01\x00\x00\x00\x50x",  # like the reference frame, and names regions
        b"\x05\x00\x19\x06\x50x",  # like a frame before the first
        b"\x00\x05\x0c\x00\x00\x00\x50x",  # transform-coded with regions, without reference sources
        b"\x00\x05\x0e\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x50x",  # too many regions
        b"\x00\x05\x0e\x00\x00\x00\x00\x81\x80\x04\x50x",  # a region of a slot beyond the last
        b"\x00\x05\x0e\x00\x00\x00\x06\x00x",  # more runs of a region than frames
        b"\x00\x05\x0e\x00\x00\x00\x01\x00\x00\x01\x50x",  # a run of no frames of a region
        b"\x00\x05\x0e\x00\x00\x00\x01\x00\x06\x01\x50x",  # a run of all frames before another run of a region
        b"\x00\x05\x0e\x00\x00\x00\x00\x05\x50",  # regions, and no payload
        b"\x00\x00\x0a\x00\x00\x80\x02x",  # a scale beyond the last
        b"\x00\x00\x0a\x00\x00\x50",  # no payload
        b"\x00\x05\x02\x06\x00x",  # more runs than frames
        b"\x00\x05\x02\x01\x00\x00\x01x",  # a run of no frames
        b"\x00\x05\x02\x01\x00\x06\x01x",  # a run of all frames before another run
        b"\x00\x05\x04\x00x",  # ends within the regions
        b"\x00\x05\x04\x01\x00\x05x",  # lacks the second region
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


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        b"\x01\x00",  # no payload
        b"\x01\x02",  # a variant without a payload
        b"\x80\x80\x04\x00x",  # a slot beyond the last
        b"\x01\x82\x80\x08x",  # a variant of a slot beyond the last
        b"\xff\xff\x7fx",
    ],
)
def test_a_bad_source_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        SourcePacket.from_bytes(data)
