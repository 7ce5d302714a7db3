"""A sequence of sources as one AV1 stream, with the units that links may still have to send."""

import secrets
from dataclasses import dataclass

from iwcodec.codec.bitstream.packets import MAX_SLOT, SourcePacket
from iwcodec.codec.media.types import Picture
from iwcodec.codec.motion.space import MotionSpace
from iwcodec.codec.sources.av1 import SourceEncoder, smaller_side

SOURCE_CRF, SOURCE_PRESET = 55, 4
"""AV1 settings of the usual sources. A first picture takes 1.7 KB: 0.6 s at 24 kbps. A CRF of 50 costs 35 % more."""
SMALL_CRF = 58
"""CRF of small sequences, whose pictures are also smaller: half the bytes, 2 dB lower PSNR."""
KEPT_UNITS = 64
"""Number of the newest units that are kept for links that are behind."""


@dataclass(frozen=True)
class SourceUnit:
    packet: bytes
    """A SourcePacket (packets.py)."""
    is_snapshot: bool


class SourceSequence:
    """One AV1 sequence and its newest units."""

    def __init__(self, size: int, small: bool = False) -> None:
        """`size`: side of the pictures, pixels. `small`: lower resolution and quality, for a narrow link; neither can
        change within an AV1 sequence."""
        self.small = small
        self.number = secrets.randbits(32)
        self.units: dict[int, SourceUnit] = {}
        """By index in the sequence."""
        self.numbers: dict[int, int] = {}
        """Number of each source (as the VideoSender counts them) -> index of its unit."""
        self.spaces: dict[int, MotionSpace] = {}
        """Coordinates of motion of the sources as this sequence shows them, by number, as far as they are known."""
        self.pending: dict[int, Picture] = {}
        """Decoded pictures of sources whose coordinates are still to be computed, by number."""
        self.next = 0
        """Index of the next unit."""
        crf, side = (SMALL_CRF, smaller_side(size)) if small else (SOURCE_CRF, size)
        self._encoder = SourceEncoder(size, crf, SOURCE_PRESET, side)

    def add(self, picture: Picture, number: int | None = None, base: int | None = None) -> Picture:
        """Encode a picture as the next unit (slow). Returns it as receivers decode it. `number`: the source's number;
        None for a scene snapshot. `base`: of a variant, the number of its base, which must be in the sequence."""
        base_slot = None if base is None else slot_of(self.numbers[base])
        packet = SourcePacket(slot_of(self.next), self._encoder.add(picture), base=base_slot)
        self.units[self.next] = SourceUnit(packet.to_bytes(), number is None)
        if number is not None:
            self.numbers[number] = self.next
            if base is None:
                self.pending[number] = self._encoder.reconstructed
        self.units.pop(self.next - KEPT_UNITS, None)
        self.next += 1
        return self._encoder.reconstructed

    def keep_spaces(self, numbers: set[int]) -> None:
        """Forget the coordinates of sources that have left the library, whose `numbers` these are. Newer sources are
        about to enter it."""
        newest = max(numbers, default=-1)
        self.spaces = {number: space for number, space in self.spaces.items() if number in numbers}
        self.pending = {number: of for number, of in self.pending.items() if number in numbers or number > newest}


def slot_of(index: int) -> int:
    """Slot in the receiver's library of the unit with this index."""
    return index % (MAX_SLOT + 1)
