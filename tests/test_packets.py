import pytest
from hypothesis import given
from hypothesis import strategies as st
from iwcodec.errors import FormatError
from iwcodec.packets import (
    LARGEST_FRAME,
    LARGEST_OPUS,
    LARGEST_SLOT,
    MOST_BACK,
    MOST_FRAMES,
    AudioPacket,
    MotionPacket,
    SourcePacket,
)

payloads = st.binary(min_size=1, max_size=50)


@given(st.integers(0, LARGEST_SLOT), payloads, st.none() | st.integers(0, LARGEST_FRAME - 1))
def test_source_round_trip(slot: int, payload: bytes, frame: int | None):
    packet = SourcePacket(slot, payload, frame)
    assert SourcePacket.from_bytes(packet.to_bytes()) == packet


@given(
    st.integers(MOST_BACK, LARGEST_FRAME), st.integers(1, MOST_FRAMES), st.none() | st.integers(1, MOST_BACK), payloads
)
def test_motion_round_trip(first: int, count: int, back: int | None, payload: bytes):
    packet = MotionPacket(first, count, None if back is None else first - back, payload)
    assert MotionPacket.from_bytes(packet.to_bytes()) == packet


@given(st.integers(0, 2**40), st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=20))
def test_audio_round_trip(first: int, opus: list[bytes]):
    packet = AudioPacket(first, tuple(opus))
    assert AudioPacket.from_bytes(packet.to_bytes()) == packet


def test_overheads():
    """What each kind adds to its payload, in a typical place."""
    assert len(SourcePacket(3, b"x").to_bytes()) == 3
    assert len(SourcePacket(3, b"x", 1000).to_bytes()) == 4
    assert len(MotionPacket(100, 50, None, b"x").to_bytes()) == 4
    assert len(MotionPacket(100, 3, 97, b"x").to_bytes()) == 5


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",  # no first frame's count
        b"\x00\x00",
        b"\x00\x00\x00",  # no payload
        b"\x00\x00\x02x",  # an unknown flag
        b"\x05\x00\x01\x06x",  # refers to before the first frame
        b"\x05\x00\x01\x00x",  # refers to itself
        b"\x00\xff\x7fx",  # too many frames
        b"\x00\x00\x00" + bytes(1 << 19),
    ],
)
def test_bad_motion(data: bytes):
    with pytest.raises(FormatError):
        MotionPacket.from_bytes(data)


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"\x00\x01\x05abc", b"\x00\x01\x00abc", b"\x00\x00" + bytes(LARGEST_OPUS + 1)]
)
def test_bad_audio(data: bytes):
    with pytest.raises(FormatError):
        AudioPacket.from_bytes(data)


@pytest.mark.parametrize("data", [b"", b"\x01", b"\xff\xff\x7fx"])
def test_bad_source(data: bytes):
    with pytest.raises(FormatError):
        SourcePacket.from_bytes(data)
