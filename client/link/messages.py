"""Format of the messages on a call's data channels, byte by byte.

Numbers are unsigned LEB128 varints (varint.py) unless a size is given. Times are whole milliseconds on the sender's own
clock, whose zero has no meaning to the receiver. There are three negotiated channels, with the same ids on both sides:

    id 1  motion   unordered, no retransmission   MotionMessage, Report
    id 2  sources  ordered, reliable              SourceChunk
    id 3  control  ordered, reliable              Hello, Status, SourceAck, Commitment, Nonce

Motion (first byte below 0x80). The frames may overlap with those of the message before: a repetition, against loss.

    flags          1 byte   bits 0-1: the quantiser steps are 1, 2, 4 or 8 times the usual ones
                            bit 2: frames are not evenly spaced; bit 3: an acknowledgement follows; others 0
    sequence       1 byte   counts messages, modulo 256
    stamp                   capture time of the first frame
    times                   without bit 2: from the first frame to the last, the others lie evenly between them;
                            with bit 2: how many follow, 1..15, then the time from each frame to the next
    acknowledged   1 byte   only with bit 3: number of the newest frame decoded of the other direction, modulo 256
    packet                  MotionPacket (packets.py): first, count - 1, flags, reference, sources, regions, payload

Source chunk. Units are sent one after the other, each from its first byte to its last.

    sequence                number of the AV1 sequence, new after every start
    index                   number of the unit in its sequence
    flags          1 byte   bit 0: a scene snapshot, which is shown unmodified and not kept; others 0
    length                  of the whole packet
    offset                  of this part in the packet
    part                    bytes of the SourcePacket (packets.py): slot, base, AV1 unit

A variant of a source, which lends its eyes and mouth to frames, is a unit like any other. Motion names only sources
that the receiver has acknowledged, so it never waits for one. A region that names a source which the receiver does not
have shows the reference source.

Report and control: a byte 0x80 + kind, then a msgpack array of all fields of the class below, in that order; absent
ones are nil.
"""

import dataclasses
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, ClassVar

import msgpack

from iwcodec.codec.bitstream.packets import MAX_FRAME, MotionPacket
from iwcodec.codec.bitstream.varint import read_varint, write_varint
from iwcodec.codec.errors import FormatError
from iwcodec.codec.motion.predictive_tables import load_tables
from iwcodec.codec.motion.transform_tables import load_transform_tables

PROTOCOL = 3
MOTION_CHANNEL, SOURCE_CHANNEL, CONTROL_CHANNEL = 1, 2, 3
MAX_MESSAGE = 1200
"""Maximum size of a message on any channel, bytes: what fits into one packet."""
MAX_MESSAGE_FRAMES = 16
"""Maximum number of frames in a motion message, including repeated ones."""
MAX_COARSENESS = 3
"""Largest number of doublings of the quantiser steps."""
MAX_SPAN_MS = 60_000
"""Longest time from the first frame of a motion message to the last, ms."""
MAX_STAMP = (1 << 40) - 1
"""Largest time stamp, ms."""
MAX_SEQUENCE = (1 << 32) - 1
"""Largest number of a sequence or stream, which are random."""
MAX_UNITS = 1 << 20
"""Units of a sequence."""
MAX_UNIT = 1 << 16
"""Bytes of a unit's packet."""
_IRREGULAR, _ACKNOWLEDGES = 4, 8
_SNAPSHOT = 1
_UNEVEN_MS = 10
"""Maximum deviation of a frame's time from even spacing at which the times are sent as even."""


@dataclass(frozen=True)
class MotionMessage:
    """Some frames of keypoints; see the module's docstring."""

    sequence: int
    """0..255"""
    stamps: tuple[int, ...]
    """Capture time of each frame, ms, not decreasing."""
    coarseness: int
    """The quantiser steps are 2 ** coarseness times the usual ones."""
    acknowledged: int | None
    """Number of the newest decoded frame of the other direction, modulo 256."""
    packet: MotionPacket

    def to_bytes(self) -> bytes:
        span = self.stamps[-1] - self.stamps[0]
        flags, times = self.coarseness, write_varint(span)
        even = _evenly(self.stamps[0], span, len(self.stamps))
        if any(abs(a - b) > _UNEVEN_MS for a, b in zip(self.stamps, even, strict=True)):
            gaps = [b - a for a, b in pairwise(self.stamps)]
            flags, times = flags | _IRREGULAR, b"".join(map(write_varint, [len(gaps), *gaps]))
        if self.acknowledged is not None:
            flags, times = flags | _ACKNOWLEDGES, times + bytes([self.acknowledged])
        return bytes([flags, self.sequence]) + write_varint(self.stamps[0]) + times + self.packet.to_bytes()

    @staticmethod
    def from_bytes(data: bytes) -> "MotionMessage":
        """Parse a message. Raises FormatError."""
        _check_size(data)
        flags, at = _read_byte(data, 0)
        if flags & ~(MAX_COARSENESS | _IRREGULAR | _ACKNOWLEDGES):
            raise FormatError(f"A motion message has unknown flags {flags:#04x}.")
        sequence, at = _read_byte(data, at)
        stamp, at = read_varint(data, at, MAX_STAMP)
        gaps, span = [], 0
        if flags & _IRREGULAR:
            count, at = read_varint(data, at, MAX_MESSAGE_FRAMES - 1)
            for _ in range(count):
                gap, at = read_varint(data, at, MAX_SPAN_MS)
                gaps.append(gap)
        else:
            span, at = read_varint(data, at, MAX_SPAN_MS)
        acknowledged = None
        if flags & _ACKNOWLEDGES:
            acknowledged, at = _read_byte(data, at)
        packet = MotionPacket.from_bytes(data[at:])
        if packet.count > MAX_MESSAGE_FRAMES:
            raise FormatError(f"A motion message holds {packet.count} frames, more than {MAX_MESSAGE_FRAMES}.")
        stamps = tuple(accumulate(gaps, initial=stamp)) if flags & _IRREGULAR else _evenly(stamp, span, packet.count)
        if len(stamps) != packet.count or (packet.count == 1 and span):
            raise FormatError("The times of a motion message do not match its frames.")
        return MotionMessage(sequence, stamps, flags & MAX_COARSENESS, acknowledged, packet)


@dataclass(frozen=True)
class SourceChunk:
    """Part of a source unit; see the module's docstring."""

    sequence: int
    index: int
    is_snapshot: bool
    length: int
    offset: int
    part: bytes

    def to_bytes(self) -> bytes:
        head = (self.sequence, self.index, _SNAPSHOT * self.is_snapshot, self.length, self.offset)
        return b"".join(map(write_varint, head)) + self.part

    @staticmethod
    def from_bytes(data: bytes) -> "SourceChunk":
        """Parse a message. Raises FormatError."""
        _check_size(data)
        sequence, at = read_varint(data, 0, MAX_SEQUENCE)
        index, at = read_varint(data, at, MAX_UNITS - 1)
        flags, at = read_varint(data, at, _SNAPSHOT)
        length, at = read_varint(data, at, MAX_UNIT)
        offset, at = read_varint(data, at, MAX_UNIT)
        part = data[at:]
        if not part or offset + len(part) > length:
            raise FormatError("A source chunk exceeds the length of its packet.")
        return SourceChunk(sequence, index, bool(flags), length, offset, part)


@dataclass(frozen=True)
class Report:
    """Reception statistics. Sent once or twice a second on the motion channel; a lost report does no harm."""

    KIND: ClassVar[int] = 0

    sent_ms: int
    """On the reporter's clock."""
    echo_ms: int | None
    """`sent_ms` of the last report from the other side."""
    held_ms: int
    """Time since that report arrived. With `echo_ms` it gives the other side the round trip and the clock offset."""
    messages: int
    """Motion messages received since the last report."""
    lost: int
    """Motion messages lost since the last report."""
    queued_ms: int
    """Queueing delay on the path (VideoJitterBuffer.queued_s)."""
    acknowledged: int | None
    """Number of the newest decoded frame."""
    shown: int
    """Frames shown since the last report."""

    @staticmethod
    def from_fields(fields: list[Any]) -> "Report":
        return Report(
            _integer(fields[0], MAX_STAMP),
            _optional(fields[1], MAX_STAMP),
            _integer(fields[2], MAX_STAMP),
            _integer(fields[3], MAX_STAMP),
            _integer(fields[4], MAX_STAMP),
            _integer(fields[5], MAX_STAMP),
            _optional(fields[6], MAX_FRAME),
            _integer(fields[7], MAX_STAMP),
        )


@dataclass(frozen=True)
class Hello:
    """Sent first on the control channel of every connection, and again to ask for a fresh sequence."""

    KIND: ClassVar[int] = 1

    protocol: int
    model: bytes
    """Digest of the network's weights, 8 bytes: both sides must use the same."""
    tables: int
    """Ids of both motion coders' tables (`tables_id`)."""
    stream: int
    """Random number of the sender's stream. If it changes, the receiver discards everything it has of the sender."""
    sequence: int | None
    """The sequence of the other side's sources that was being received. None asks for a fresh one."""
    index: int
    """Its first unit that has not been received."""

    @staticmethod
    def from_fields(fields: list[Any]) -> "Hello":
        if not isinstance(fields[1], bytes) or len(fields[1]) != 8:
            raise FormatError("A model's digest has 8 bytes.")
        return Hello(
            _integer(fields[0], MAX_SEQUENCE),
            fields[1],
            _integer(fields[2], MAX_SEQUENCE),
            _integer(fields[3], MAX_SEQUENCE),
            _optional(fields[4], MAX_SEQUENCE),
            _integer(fields[5], MAX_UNITS),
        )


@dataclass(frozen=True)
class Status:
    """Whether the receiver should expect motion. Sent after every hello and on every change."""

    KIND: ClassVar[int] = 2

    camera_off: bool
    face_lost: bool

    @staticmethod
    def from_fields(fields: list[Any]) -> "Status":
        if not all(isinstance(field, bool) for field in fields):
            raise FormatError("A status is true or false.")
        return Status(*fields)


@dataclass(frozen=True)
class SourceAck:
    """All units of the sequence before `index` have been decoded."""

    KIND: ClassVar[int] = 3

    sequence: int
    index: int

    @staticmethod
    def from_fields(fields: list[Any]) -> "SourceAck":
        return SourceAck(_integer(fields[0], MAX_SEQUENCE), _integer(fields[1], MAX_UNITS))


@dataclass(frozen=True)
class Commitment:
    """Begins an exchange of random numbers (verification.py)."""

    KIND: ClassVar[int] = 4

    digest: bytes
    """SHA-256 of the sender's random number."""

    @staticmethod
    def from_fields(fields: list[Any]) -> "Commitment":
        return Commitment(_bytes(fields[0], 32))


@dataclass(frozen=True)
class Nonce:
    """The answer to the other side's commitment."""

    KIND: ClassVar[int] = 5

    nonce: bytes

    @staticmethod
    def from_fields(fields: list[Any]) -> "Nonce":
        return Nonce(_bytes(fields[0], 16))


def tables_id() -> int:
    """Return the ids of the tables of both motion coders, combined. Both sides of a link must use the same tables."""
    return load_tables().id ^ load_transform_tables().id


Control = Report | Hello | Status | SourceAck | Commitment | Nonce
_CONTROLS: dict[int, type[Control]] = {
    kind.KIND: kind for kind in (Report, Hello, Status, SourceAck, Commitment, Nonce)
}
_CONTROL = 0x80


def is_control(data: bytes) -> bool:
    return bool(data) and data[0] >= _CONTROL


def control_to_bytes(control: Control) -> bytes:
    packed: bytes = msgpack.packb([getattr(control, field.name) for field in dataclasses.fields(control)])
    return bytes([_CONTROL + control.KIND]) + packed


def control_from_bytes(data: bytes) -> Control:
    """Parse a message. Raises FormatError."""
    _check_size(data)
    head, at = _read_byte(data, 0)
    kind = _CONTROLS.get(head - _CONTROL)
    if kind is None:
        raise FormatError(f"There is no control message {head:#04x}.")
    try:
        fields = msgpack.unpackb(data[at:], raw=False, max_array_len=16, max_bin_len=64, max_str_len=0, max_map_len=0)
    except (ValueError, msgpack.UnpackException) as error:  # all exceptions of msgpack derive from these
        raise FormatError("A control message is not msgpack.") from error
    if not isinstance(fields, list) or len(fields) != len(dataclasses.fields(kind)):
        raise FormatError("A control message has the wrong number of fields.")
    return kind.from_fields(fields)


def _evenly(first: int, span: int, count: int) -> tuple[int, ...]:
    return tuple(first + span * n // max(1, count - 1) for n in range(count))


def _check_size(data: bytes) -> None:
    if len(data) > MAX_MESSAGE:
        raise FormatError(f"A message of {len(data)} bytes is too large.")


def _read_byte(data: bytes, at: int) -> tuple[int, int]:
    if at >= len(data):
        raise FormatError("A message is cut off.")
    return data[at], at + 1


def _bytes(value: Any, length: int) -> bytes:
    if not isinstance(value, bytes) or len(value) != length:
        raise FormatError(f"A control message has no {length} bytes where it should.")
    return value


def _integer(value: Any, maximum: int) -> int:
    if type(value) is not int or not 0 <= value <= maximum:  # not isinstance: True is an int
        raise FormatError("A control message holds a number out of range.")
    return value


def _optional(value: Any, maximum: int) -> int | None:
    return None if value is None else _integer(value, maximum)
