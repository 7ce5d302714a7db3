"""Packets of sources, motion and sound, the same in files and in calls (layout: container.py)."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from iwcodec.codec.bitstream.varint import read_varint, write_varint
from iwcodec.codec.errors import FormatError

MAX_SLOT = 65_535
"""Largest slot of the library of sources."""
MAX_FRAME = (1 << 40) - 1
"""Largest frame number."""
MAX_PACKET_FRAMES = 256
"""Frames in one motion packet."""
MAX_BACK = 4096
"""Frames from the first frame of a motion packet back to its reference frame."""
MAX_PAYLOAD = 1 << 18
"""Bytes of a payload; a source of 512 x 512 pixels in the best quality takes fewer."""
MAX_GROUP = 8
"""Sources in one packet, which are lost together."""
MAX_SCALE = 255
"""Largest quantisation scale of transform-coded motion."""
MAX_SAMPLE = (1 << 48) - 1
"""Largest sample number."""
MAX_OPUS_PACKETS = 256
"""Opus packets in one audio packet."""
MAX_OPUS_BYTES = 1275 * 3 + 7
"""Bytes of an Opus packet of up to 60 ms (RFC 6716, section 3.2)."""
MAX_REGIONS = 4
"""Regions of a face that may each show another source."""
_REFERENCE, _RUNS, _REGIONS, _TRANSFORMED, _ALIKE = 1, 2, 4, 8, 16


@dataclass(frozen=True)
class SourcePacket:
    """A source picture."""

    slot: int
    """Where the library of sources stores it."""
    payload: bytes
    """One AV1 temporal unit."""
    frame: int | None = None
    """Number of the frame that it is, which is shown unmodified."""
    base: int | None = None
    """Slot of the source of which it is a variant: the same picture with other eyes or another mouth. It has the
    keypoints of its base and is no frame."""

    def to_bytes(self) -> bytes:
        """Serialise."""
        kind = 0 if self.frame is None else 2 * self.frame + 1
        return write_varint(self.slot) + write_varint(kind if self.base is None else 2 * self.base + 2) + self.payload

    @staticmethod
    def from_bytes(data: bytes) -> "SourcePacket":
        """Parse. Raises FormatError."""
        slot, at = read_varint(data, 0, MAX_SLOT)
        kind, at = read_varint(data, at, 2 * MAX_FRAME + 1)
        payload = _rest(data, at, MAX_PAYLOAD)
        if kind % 2 or not kind:
            return SourcePacket(slot, payload, kind // 2 if kind else None)
        if kind // 2 - 1 > MAX_SLOT:
            raise FormatError("The base of a source is out of range.")
        return SourcePacket(slot, payload, base=kind // 2 - 1)


def source_groups(packets: Sequence[SourcePacket]) -> Iterator[list[SourcePacket]]:
    """Split sources, in order, into groups that share a packet: consecutive slots, known frames or one base, at most
    MAX_GROUP. The source in slot 0 is alone, because all others are predicted from it."""
    group: list[SourcePacket] = []
    for packet in packets:
        if group and not _joins(group, packet):
            yield group
            group = []
        group.append(packet)
    if group:
        yield group


def _joins(group: list[SourcePacket], packet: SourcePacket) -> bool:
    follows = group[0].slot > 0 and packet.slot == group[-1].slot + 1 < MAX_SLOT - MAX_GROUP
    known = packet.frame is not None and group[-1].frame is not None
    alike = known if packet.base is None else packet.base == group[-1].base
    size = sum(len(one.payload) for one in group) + len(packet.payload)
    return follows and alike and len(group) < MAX_GROUP and size <= MAX_PAYLOAD


def pack_sources(group: Sequence[SourcePacket]) -> bytes:
    """Serialise a group of two or more sources (see `source_groups`)."""
    base = group[0].base
    frames = [packet.frame or 0 for packet in group]
    steps = [after - before for before, after in itertools.pairwise(frames)]
    numbers = [group[0].slot, len(group) - 2]
    if base is None:
        numbers += [2 * frames[0], *(2 * step if step >= 0 else -2 * step - 1 for step in steps)]
    else:
        numbers += [2 * base + 1]
    numbers += [len(packet.payload) for packet in group[:-1]]
    return b"".join([*map(write_varint, numbers), *(packet.payload for packet in group)])


def unpack_sources(data: bytes) -> list[SourcePacket]:
    """Parse a group. Raises FormatError."""
    slot, at = read_varint(data, 0, MAX_SLOT - MAX_GROUP)
    more, at = read_varint(data, at, MAX_GROUP - 2)
    first, at = read_varint(data, at, 2 * MAX_FRAME + 1)
    number, of_base = divmod(first, 2)
    if of_base:
        if number > MAX_SLOT:
            raise FormatError("The base of a source is out of range.")
        payloads = _payloads(data, at, more + 1, MAX_PAYLOAD)
        return [SourcePacket(slot + n, payload, base=number) for n, payload in enumerate(payloads)]
    frames = [number]
    for _ in range(more + 1):
        step, at = read_varint(data, at, 2 * MAX_FRAME)
        frames.append(frames[-1] + (-(step + 1) // 2 if step % 2 else step // 2))
    if not 0 <= min(frames) <= max(frames) <= MAX_FRAME:
        raise FormatError("The frame number of a source is out of range.")
    payloads = _payloads(data, at, more + 1, MAX_PAYLOAD)
    return [
        SourcePacket(slot + n, payload, number)
        for n, (number, payload) in enumerate(zip(frames, payloads, strict=True))
    ]


def _payloads(data: bytes, at: int, counted: int, largest: int) -> list[bytes]:
    """Parse `counted` lengths, then that many payloads and one that takes the remaining bytes. Raises FormatError."""
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
    """Consecutive frames with the same reference source, which is in `slot`: it comes first in attention, and the
    motion is coded relative to it. In runs of a region, the frames show there the source in slot `slot` - 1; 0: the
    reference source."""

    slot: int
    frames: int


@dataclass(frozen=True)
class MotionPacket:
    """The motion of consecutive frames."""

    first: int
    """Number of the first frame."""
    count: int
    reference: int | None
    """Number of the frame that the first one is predicted from; None: the packet stands alone."""
    payload: bytes
    runs: tuple[Run, ...] = ()
    """Reference sources, `count` frames together; empty: the source nearest in pose."""
    scale: int | None = None
    """Quantisation scale of transform-coded motion, which has runs; None: predictive coding."""
    regions: tuple[tuple[Run, ...], ...] = ()
    """For each region, runs over the packet's frames; empty: all regions show the reference source."""
    alike: bool = False
    """All frames have the reference source and the regions of the reference frame; runs and regions are empty. Only
    transform-coded motion with a reference frame."""

    def to_bytes(self) -> bytes:
        """Serialise."""
        flags = (0 if self.reference is None else _REFERENCE) | (_RUNS if self.runs else 0)
        flags |= (0 if self.scale is None else _TRANSFORMED) | (_REGIONS if self.regions else 0) | _ALIKE * self.alike
        head = write_varint(self.first) + write_varint(self.count - 1) + write_varint(flags)
        if self.reference is not None:
            head += write_varint(self.first - self.reference)
        if self.runs:
            head += _write_runs(self.runs)
        if self.regions:
            head += write_varint(len(self.regions) - 1) + b"".join(map(_write_runs, self.regions))
        if self.scale is not None:
            head += write_varint(self.scale)
        return head + self.payload

    def reference_sources(self) -> list[int | None]:
        """Return the slot of each frame's reference source; None: the source nearest in pose."""
        return [run.slot for run in self.runs for _ in range(run.frames)] if self.runs else [None] * self.count

    @staticmethod
    def from_bytes(data: bytes) -> "MotionPacket":
        """Parse. Raises FormatError."""
        first, at = read_varint(data, 0, MAX_FRAME)
        count, at = read_varint(data, at, MAX_PACKET_FRAMES - 1)
        flags, at = read_varint(data, at, _REFERENCE | _RUNS | _REGIONS | _TRANSFORMED | _ALIKE)
        alike = bool(flags & _ALIKE)
        if alike and flags != _ALIKE | _TRANSFORMED | _REFERENCE:
            raise FormatError("A motion packet cannot be like its reference frame.")
        if flags & _TRANSFORMED and not flags & (_RUNS | _ALIKE):
            raise FormatError("A transform-coded motion packet lacks reference sources.")
        reference = None
        if flags & _REFERENCE:
            back, at = read_varint(data, at, MAX_BACK)
            if not 1 <= back <= first:
                raise FormatError(f"A motion packet refers to {back} frames before frame {first}.")
            reference = first - back
        runs: tuple[Run, ...] = ()
        if flags & _RUNS:
            runs, at = _read_runs(data, at, count + 1)
        regions = []
        if flags & _REGIONS:
            more, at = read_varint(data, at, MAX_REGIONS - 1)
            for _ in range(more + 1):
                of_region, at = _read_runs(data, at, count + 1, MAX_SLOT + 1)
                regions.append(of_region)
        scale = None
        if flags & _TRANSFORMED:
            scale, at = read_varint(data, at, MAX_SCALE)
        payload = _rest(data, at, MAX_PAYLOAD)
        return MotionPacket(first, count + 1, reference, payload, runs, scale, tuple(regions), alike)

    def regions_of(self, frame: int) -> tuple[int | None, ...]:
        """Return the slot of the source that each region of the packet's frame `frame` (0 is its first) shows; None:
        the reference source."""
        found = []
        for runs in self.regions:
            ends = itertools.accumulate(run.frames for run in runs)
            slot = next(run.slot for run, end in zip(runs, ends, strict=True) if frame < end)
            found.append(slot - 1 if slot else None)
        return tuple(found)


def runs_of(slots: Sequence[int | None]) -> tuple[Run, ...]:
    """Group the slots of consecutive frames' reference sources into runs; empty if any is None."""
    if any(slot is None for slot in slots):
        return ()
    return tuple(Run(slot, len(list(same))) for slot, same in itertools.groupby(slots) if slot is not None)


def region_runs(frames: Sequence[Sequence[int | None]]) -> tuple[tuple[Run, ...], ...]:
    """Group the slots of the sources that the regions of consecutive frames show (MotionPacket.regions); None, and
    regions without an entry: the reference source. Empty if no region shows another source."""
    count = max(map(len, frames), default=0)
    slots = [[0 if n >= len(f) or (slot := f[n]) is None else slot + 1 for f in frames] for n in range(count)]
    return tuple(map(runs_of, slots)) if any(map(any, slots)) else ()


def _write_runs(runs: Sequence[Run]) -> bytes:
    head = write_varint(len(runs) - 1) + write_varint(runs[0].slot)
    for run, following in itertools.pairwise(runs):
        head += write_varint(run.frames) + write_varint(following.slot)
    return head


def _read_runs(data: bytes, at: int, count: int, max_slot: int = MAX_SLOT) -> tuple[tuple[Run, ...], int]:
    more, at = read_varint(data, at, count - 1)
    slot, at = read_varint(data, at, max_slot)
    runs, left = [], count
    for _ in range(more):
        frames, at = read_varint(data, at, left - 1)
        if not frames:
            raise FormatError("A motion packet has a run of no frames.")
        runs.append(Run(slot, frames))
        left -= frames
        slot, at = read_varint(data, at, max_slot)
    return (*runs, Run(slot, left)), at


@dataclass(frozen=True)
class AudioPacket:
    """Consecutive Opus packets."""

    first: int
    """Number of the first sample at 48 kHz, counting the pre-skip."""
    packets: tuple[bytes, ...]

    def to_bytes(self) -> bytes:
        """Serialise."""
        lengths = b"".join(write_varint(len(p)) for p in self.packets[:-1])
        return write_varint(self.first) + write_varint(len(self.packets) - 1) + lengths + b"".join(self.packets)

    @staticmethod
    def from_bytes(data: bytes) -> "AudioPacket":
        """Parse. Raises FormatError."""
        first, at = read_varint(data, 0, MAX_SAMPLE)
        count, at = read_varint(data, at, MAX_OPUS_PACKETS - 1)
        return AudioPacket(first, tuple(_payloads(data, at, count, MAX_OPUS_BYTES)))


Packet = SourcePacket | MotionPacket | AudioPacket


def _rest(data: bytes, at: int, largest: int) -> bytes:
    payload = data[at:]
    if not payload:
        raise FormatError("A packet is empty.")
    if len(payload) > largest:
        raise FormatError(f"A packet is too large: {len(payload)} bytes.")
    return payload
