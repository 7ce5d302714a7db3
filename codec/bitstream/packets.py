"""Packets: what the encoder makes and the decoder takes, in files and on the wire alike.

Numbers are unsigned LEB128 varints (varint.py). The length of a packet is known from what carries it.

    source   slot                                   which place in the library the picture takes
             frame + 1                              number of the frame that it is, which is shown as it came; 0: none
             payload                                one AV1 unit (sources.py)

    sources  slot                                   of the first; each other takes the next one
             count - 2                              0..6
             frame, ...                             of the first; then of each how many frames after the one before,
                                                    twice, or twice as many before it, less 1
             length, ...                            of every payload but the last, which has the rest
             payloads                               AV1 units, one behind the other

    motion   first                                  number of the first frame
             count - 1                              0..255
             flags                                  bit 0: coded against a reference frame; bit 1: the source that
                                                    leads is named; bit 2: not every frame is coded; bit 3: transformed
                                                    over time, with bit 1 alone; others must be 0
             first - reference                      only with bit 0: how many frames back, 1..4096
             runs - 1, slot, (frames, slot), ...    only with bit 1: which source leads, for how many frames; the last
                                                    run has the rest. Without it, the nearest in pose leads
             stride - 2                             only with bit 2: of so many frames one is coded, from the first on,
                                                    and the last; those between lie between them (motion.py)
             scale                                  only with bit 3: 0..255, of the levels (motion_transform.py)
             payload                                range-coded levels (motion.py, or motion_transform.py with bit 3)

    audio    first                                  number of the first sample, at 48 kHz, pre-skip included; what
                                                    lies between the packets of a file is silence
             count - 1                              0..255
             length, ...                            of every Opus packet but the last, which has the rest
             payloads                               Opus packets (RFC 6716), one behind the other
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from iwcodec.codec.bitstream.varint import read_varint, write_varint
from iwcodec.codec.errors import FormatError

MAX_SLOT = 65_535
MAX_FRAME = (1 << 40) - 1
MAX_FRAMES = 256
MAX_BACK = 4096
MAX_PAYLOAD = 1 << 18
"""Bytes: a source of 512x512 in the best quality has less."""
MAX_SAMPLE = (1 << 48) - 1
MOST_OPUS = 256
LARGEST_OPUS = 1275 * 3 + 7
"""Bytes of an Opus packet of up to 60 ms (RFC 6716, section 3.2)."""
_REFERENCE, _LED, _STRIDED, _TRANSFORMED = 1, 2, 4, 8
MAX_SCALE = 255
MAX_STRIDE = 32


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
        slot, at = read_varint(data, 0, MAX_SLOT)
        frame, at = read_varint(data, at, MAX_FRAME)
        return SourcePacket(slot, _rest(data, at, MAX_PAYLOAD), frame - 1 if frame else None)


MAX_TOGETHER = 8
"""Sources in one packet of several: as many are lost together."""


def source_groups(packets: Sequence[SourcePacket]) -> Iterator[list[SourcePacket]]:
    """Sources, in order, that can share a packet. The first one stands alone, for the others build on it."""
    group: list[SourcePacket] = []
    for packet in packets:
        if group and not _joins(group, packet):
            yield group
            group = []
        group.append(packet)
    if group:
        yield group


def _joins(group: list[SourcePacket], packet: SourcePacket) -> bool:
    follows = group[0].slot > 0 and packet.slot == group[-1].slot + 1 < MAX_SLOT - MAX_TOGETHER
    known = packet.frame is not None and group[-1].frame is not None
    size = sum(len(one.payload) for one in group) + len(packet.payload)
    return follows and known and len(group) < MAX_TOGETHER and size <= MAX_PAYLOAD


def pack_sources(group: Sequence[SourcePacket]) -> bytes:
    """Two or more of a group -> bytes."""
    frames = [packet.frame or 0 for packet in group]
    steps = [after - before for before, after in itertools.pairwise(frames)]
    numbers = [group[0].slot, len(group) - 2, frames[0], *(2 * step if step >= 0 else -2 * step - 1 for step in steps)]
    numbers += [len(packet.payload) for packet in group[:-1]]
    return b"".join([*map(write_varint, numbers), *(packet.payload for packet in group)])


def unpack_sources(data: bytes) -> list[SourcePacket]:
    """Inverse of `pack_sources`. Raises FormatError."""
    slot, at = read_varint(data, 0, MAX_SLOT - MAX_TOGETHER)
    more, at = read_varint(data, at, MAX_TOGETHER - 2)
    frame, at = read_varint(data, at, MAX_FRAME)
    frames = [frame]
    for _ in range(more + 1):
        twice, at = read_varint(data, at, 2 * MAX_FRAME)
        frames.append(frames[-1] + (-(twice + 1) // 2 if twice % 2 else twice // 2))
    if not 0 <= min(frames) <= max(frames) <= MAX_FRAME:
        raise FormatError("A source is a frame of an impossible number.")
    return [
        SourcePacket(slot + n, payload, number)
        for n, (number, payload) in enumerate(zip(frames, _payloads(data, at, more + 1, MAX_PAYLOAD), strict=True))
    ]


def _payloads(data: bytes, at: int, counted: int, largest: int) -> list[bytes]:
    """So many payloads whose lengths come first, and one that has the rest. Raises FormatError."""
    lengths = []
    for _ in range(counted):
        length, at = read_varint(data, at, largest)
        lengths.append(length)
    lengths.append(len(data) - at - sum(lengths))
    if not 0 < lengths[-1] <= largest or 0 in lengths:
        raise FormatError("The lengths in a packet do not add up.")
    starts = itertools.accumulate(lengths, initial=at)
    return [data[start : start + length] for start, length in zip(starts, lengths, strict=False)]


@dataclass(frozen=True)
class Run:
    """Consecutive frames in which the same source leads: it is the first in attention, and the keypoints carry it."""

    slot: int
    frames: int


@dataclass(frozen=True)
class MotionPacket:
    first: int
    count: int
    reference: int | None
    """Number of the frame the first one is predicted from; None if the packet stands alone."""
    payload: bytes
    runs: tuple[Run, ...] = ()
    """Which sources lead, one run behind the other; together as many frames as there are. Empty: they are not named."""

    stride: int = 1
    """Of so many frames one is coded, from the first on, and the last."""

    scale: int | None = None
    """Of transformed motion, which stands alone, names the sources that lead, and codes every frame."""

    def to_bytes(self) -> bytes:
        flags = (0 if self.reference is None else _REFERENCE) | (_LED if self.runs else 0)
        flags |= (_STRIDED if self.stride > 1 else 0) | (0 if self.scale is None else _TRANSFORMED)
        head = write_varint(self.first) + write_varint(self.count - 1) + write_varint(flags)
        if self.reference is not None:
            head += write_varint(self.first - self.reference)
        if self.runs:
            head += write_varint(len(self.runs) - 1) + write_varint(self.runs[0].slot)
            for run, following in itertools.pairwise(self.runs):
                head += write_varint(run.frames) + write_varint(following.slot)
        if self.stride > 1:
            head += write_varint(self.stride - 2)
        if self.scale is not None:
            head += write_varint(self.scale)
        return head + self.payload

    def reference_sources(self) -> list[int | None]:
        """The slot of the source that leads in each frame; None: the nearest."""
        return [run.slot for run in self.runs for _ in range(run.frames)] if self.runs else [None] * self.count

    @staticmethod
    def from_bytes(data: bytes) -> "MotionPacket":
        """Raises FormatError."""
        first, at = read_varint(data, 0, MAX_FRAME)
        count, at = read_varint(data, at, MAX_FRAMES - 1)
        flags, at = read_varint(data, at, _REFERENCE | _LED | _STRIDED | _TRANSFORMED)
        if flags & _TRANSFORMED and flags != _TRANSFORMED | _LED:
            raise FormatError("A motion packet is transformed and coded otherwise at once.")
        reference = None
        if flags & _REFERENCE:
            back, at = read_varint(data, at, MAX_BACK)
            if not 1 <= back <= first:
                raise FormatError(f"A motion packet refers to {back} frames before frame {first}.")
            reference = first - back
        runs: tuple[Run, ...] = ()
        if flags & _LED:
            runs, at = _read_runs(data, at, count + 1)
        stride = 1
        if flags & _STRIDED:
            more, at = read_varint(data, at, MAX_STRIDE - 2)
            stride = more + 2
        scale = None
        if flags & _TRANSFORMED:
            scale, at = read_varint(data, at, MAX_SCALE)
        return MotionPacket(first, count + 1, reference, _rest(data, at, MAX_PAYLOAD), runs, stride, scale)


def runs_of(slots: Sequence[int | None]) -> tuple[Run, ...]:
    """The slots of frames, one by one -> runs; none where one of them is not known."""
    if any(slot is None for slot in slots):
        return ()
    return tuple(Run(slot, len(list(same))) for slot, same in itertools.groupby(slots) if slot is not None)


def _read_runs(data: bytes, at: int, count: int) -> tuple[tuple[Run, ...], int]:
    more, at = read_varint(data, at, count - 1)
    slot, at = read_varint(data, at, MAX_SLOT)
    runs, left = [], count
    for _ in range(more):
        frames, at = read_varint(data, at, left - 1)
        if not frames:
            raise FormatError("A motion packet names a source that leads for no frame.")
        runs.append(Run(slot, frames))
        left -= frames
        slot, at = read_varint(data, at, MAX_SLOT)
    return (*runs, Run(slot, left)), at


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
        first, at = read_varint(data, 0, MAX_SAMPLE)
        count, at = read_varint(data, at, MOST_OPUS - 1)
        return AudioPacket(first, tuple(_payloads(data, at, count, LARGEST_OPUS)))


Packet = SourcePacket | MotionPacket | AudioPacket


def _rest(data: bytes, at: int, largest: int) -> bytes:
    payload = data[at:]
    if not payload:
        raise FormatError("A packet is empty.")
    if len(payload) > largest:
        raise FormatError(f"A packet is too large: {len(payload)} bytes.")
    return payload
