"""Packets: what the encoder makes and the decoder takes, in files and on the wire alike.

Numbers are unsigned LEB128 varints (varint.py). The length of a packet is known from what carries it.

    source   slot                                   which place in the library the picture takes
             frame + 1                              number of the frame that it is, which is shown as it came; 0: none
             payload                                one AV1 unit (sources.py)

    motion   first                                  number of the first frame
             count - 1                              0..255
             flags                                  bit 0: coded against a reference frame; others must be 0
             first - reference                      only with bit 0: how many frames back, 1..4096
             payload                                range-coded levels (motion.py)

    audio    first                                  number of the first sample, at 48 kHz, pre-skip included; what
                                                    lies between the packets of a file is silence
             count - 1                              0..255
             length, ...                            of every Opus packet but the last, which has the rest
             payloads                               Opus packets (RFC 6716), one behind the other
"""

from dataclasses import dataclass

from .errors import FormatError
from .varint import read_varint, write_varint

LARGEST_SLOT = 65_535
LARGEST_FRAME = (1 << 40) - 1
MOST_FRAMES = 256
MOST_BACK = 4096
LARGEST_PAYLOAD = 1 << 18
"""Bytes: a source of 512x512 in the best quality has less."""
LARGEST_SAMPLE = (1 << 48) - 1
MOST_OPUS = 256
LARGEST_OPUS = 1275 * 3 + 7
"""Bytes of an Opus packet of up to 60 ms (RFC 6716, section 3.2)."""
_REFERENCE = 1


@dataclass(frozen=True)
class SourcePacket:
    slot: int
    payload: bytes
    frame: int | None = None

    def to_bytes(self) -> bytes:
        return write_varint(self.slot) + write_varint(0 if self.frame is None else self.frame + 1) + self.payload

    @staticmethod
    def from_bytes(data: bytes) -> "SourcePacket":
        """Raises FormatError."""
        slot, at = read_varint(data, 0, LARGEST_SLOT)
        frame, at = read_varint(data, at, LARGEST_FRAME)
        return SourcePacket(slot, _rest(data, at, LARGEST_PAYLOAD), frame - 1 if frame else None)


@dataclass(frozen=True)
class MotionPacket:
    first: int
    count: int
    reference: int | None
    """Number of the frame the first one is predicted from; None if the packet stands alone."""
    payload: bytes

    def to_bytes(self) -> bytes:
        head = write_varint(self.first) + write_varint(self.count - 1)
        if self.reference is None:
            return head + write_varint(0) + self.payload
        return head + write_varint(_REFERENCE) + write_varint(self.first - self.reference) + self.payload

    @staticmethod
    def from_bytes(data: bytes) -> "MotionPacket":
        """Raises FormatError."""
        first, at = read_varint(data, 0, LARGEST_FRAME)
        count, at = read_varint(data, at, MOST_FRAMES - 1)
        flags, at = read_varint(data, at, _REFERENCE)
        reference = None
        if flags & _REFERENCE:
            back, at = read_varint(data, at, MOST_BACK)
            if not 1 <= back <= first:
                raise FormatError(f"A motion packet refers to {back} frames before frame {first}.")
            reference = first - back
        return MotionPacket(first, count + 1, reference, _rest(data, at, LARGEST_PAYLOAD))


@dataclass(frozen=True)
class AudioPacket:
    first: int
    packets: tuple[bytes, ...]

    def to_bytes(self) -> bytes:
        lengths = b"".join(write_varint(len(p)) for p in self.packets[:-1])
        return write_varint(self.first) + write_varint(len(self.packets) - 1) + lengths + b"".join(self.packets)

    @staticmethod
    def from_bytes(data: bytes) -> "AudioPacket":
        """Raises FormatError."""
        first, at = read_varint(data, 0, LARGEST_SAMPLE)
        count, at = read_varint(data, at, MOST_OPUS - 1)
        lengths = []
        for _ in range(count):
            length, at = read_varint(data, at, LARGEST_OPUS)
            lengths.append(length)
        last = len(data) - at - sum(lengths)
        if not 0 < last <= LARGEST_OPUS or 0 in lengths:
            raise FormatError("The lengths in an audio packet do not add up.")
        packets = []
        for length in (*lengths, last):
            packets.append(data[at : at + length])
            at += length
        return AudioPacket(first, tuple(packets))


Packet = SourcePacket | MotionPacket | AudioPacket


def _rest(data: bytes, at: int, largest: int) -> bytes:
    payload = data[at:]
    if not payload:
        raise FormatError("A packet is empty.")
    if len(payload) > largest:
        raise FormatError(f"A packet is too large: {len(payload)} bytes.")
    return payload
