"""The .iwc file.

    offset       bytes   what
    0            4       magic 89 49 57 43 ("\\x89IWC")
    4            2       version, little-endian; this is 5; 4 had no dead zone, 3 no transformed motion
                         and each source by itself, 2 a map for a header
    6            4       length H of the header, little-endian, at most 65,536
    10           H       header: a msgpack array, see `Header`
    10 + H       4       CRC-32 of everything before, little-endian

then records until the footer, each

    0            1       A1 source, A2 motion, A3 audio, A4 index, A5 several sources
    1            1..3    length L of the payload, LEB128
    ..           1       check: the low byte of the CRC-32 of the bytes before (finds the next record after damage)
    ..           L       payload: a packet (packets.py), or the index
    ..           4       CRC-32 of the record so far, little-endian

The index, one before the footer, has for every record of sources or motion in file order: kind (1 or 2), offset less
that of the record before it, and the first frame (motion; 0 for sources) less that of the motion record before it,
all LEB128. The footer is the offset of the index record (8 bytes, little-endian) and "IWCX". A file without its footer
was cut: what is there plays, found by walking the records. A record whose checksum is wrong is left out and named.
"""

import os
import secrets
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import msgpack

from iwcodec.codec.bitstream.packets import (
    MOST_FRAMES,
    AudioPacket,
    MotionPacket,
    Packet,
    SourcePacket,
    pack_sources,
    source_groups,
    unpack_sources,
)
from iwcodec.codec.bitstream.varint import read_varint, write_varint
from iwcodec.codec.errors import FormatError, MediaError, VersionError
from iwcodec.models.runtime.runtime import MAX_ACTIVE

MAGIC = b"\x89IWC"
VERSION, OLDEST = 5, 2
HEADER_FIELDS = (
    "model_id",
    "model_digest",
    "keypoints",
    "step_xy",
    "step_strength",
    "tables",
    "fps",
    "size",
    "frames",
    "active",
    "audio",
    "pictures",
    "dead_zone",
)
FIELDS_OF_OLD = 12
"""Those of HEADER_FIELDS that versions 3 and 4 had."""
MOST_DEAD_ZONE = 100
LARGEST_HEADER = 65_536
LARGEST_RECORD = (1 << 18) + 64
SHORTEST_RECORD = 8
"""Bytes of the shortest motion there is, with kind, length and checksum, less a few."""
_SOURCE, _MOTION, _AUDIO, _INDEX, _SOURCES = 0xA1, 0xA2, 0xA3, 0xA4, 0xA5
_NAMES = {_SOURCE: "source", _MOTION: "motion", _AUDIO: "audio", _INDEX: "index", _SOURCES: "sources"}
_TAIL = b"IWCX"
_FOOTER = 12
_RESYNC_BUDGET = 1 << 26
"""Bytes of candidate records that may be checked while looking for the next sound one, over the whole file."""
MOST_DAMAGE = 1000
"""Damaged places named; a file with more is given up."""


@dataclass(frozen=True)
class AudioHeader:
    """Opus, mono, 48 kHz (RFC 6716)."""

    pre_skip: int
    """Samples to drop before the first frame's instant."""
    packet_samples: int
    """Of nearly all packets; in a recording of a call some may be of other lengths."""


@dataclass(frozen=True)
class Header:
    """What a decoder must know before the first packet."""

    model_id: str
    model_digest: bytes
    keypoints: int
    step_xy: float
    step_strength: float
    tables: int
    """Id of the motion coder's tables: transform_tables.py, or motion_tables.py where a call was recorded."""
    fps: Fraction
    size: int
    """Pixels a side."""
    frames: int
    """0 where it was not known."""
    active: int = 3
    """Sources that enter attention for one frame, at most: those nearest in pose."""
    audio: AudioHeader | None = None
    dead_zone: int = 0
    """Of the shifts that frames are rebuilt with, tenths of a pixel (models.runtime.Runtime.reconstruct)."""
    version: int = VERSION

    def with_audio(self, pre_skip: int, packet_samples: int) -> "Header":
        return replace(self, audio=AudioHeader(pre_skip, packet_samples))

    def to_bytes(self) -> bytes:
        """The msgpack array: the values in the order of HEADER_FIELDS, the frame rate as [numerator, denominator], the
        audio's as [pre_skip, packet_samples] or nil. "reconstructed" tells whoever finds the file that its pictures
        are made, not filmed."""
        audio = None if self.audio is None else [self.audio.pre_skip, self.audio.packet_samples]
        given = {"fps": [self.fps.numerator, self.fps.denominator], "audio": audio, "pictures": "reconstructed"}
        values = [given[name] if name in given else getattr(self, name) for name in HEADER_FIELDS]
        packed: bytes = msgpack.packb(values)
        return packed

    @staticmethod
    def from_bytes(data: bytes) -> "Header":
        """Raises FormatError where a value is missing, of another type or out of range."""
        try:
            values = msgpack.unpackb(data, max_map_len=64, max_array_len=64)
        except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
            raise FormatError("The file's header cannot be read.") from error
        raw = _named(values)
        audio, rate = raw.get("audio"), raw.get("fps")
        if not (isinstance(rate, list) and len(rate) == 2):
            raise FormatError("The file's frame rate cannot be read.")
        digest = raw.get("model_digest")
        if not (isinstance(digest, bytes) and len(digest) == 8):
            raise FormatError("The file's model digest cannot be read.")
        name = raw.get("model_id")
        if not (isinstance(name, str) and 0 < len(name) <= 64 and name.isprintable()):
            raise FormatError("The file's model name cannot be read.")
        return Header(
            model_id=name,
            model_digest=digest,
            keypoints=_whole(raw, "keypoints", 1, 64),
            step_xy=_real(raw, "step_xy", 1e-5, 1.0),
            step_strength=_real(raw, "step_strength", 1e-5, 1.0),
            tables=_whole(raw, "tables", 0, 2**32 - 1),
            fps=Fraction(_in_range(rate[0], "fps", 1, 10**9), _in_range(rate[1], "fps", 1, 10**7)),
            size=_whole(raw, "size", 64, 4096),
            frames=_whole(raw, "frames", 0, 2**40),
            active=_whole(raw, "active", 1, MAX_ACTIVE),
            audio=None if audio is None else _audio_header(audio),
            dead_zone=_in_range(raw.get("dead_zone", 0), "dead_zone", 0, MOST_DEAD_ZONE),
        )._checked()

    def _checked(self) -> "Header":
        if not Fraction(1, 10) <= self.fps <= 1000:
            raise FormatError(f"The file's frame rate is impossible: {self.fps}.")
        return self


def _named(values: Any) -> dict[Any, Any]:
    """A header's values by their names, which version 2 wrote out."""
    if isinstance(values, dict):
        return values
    if not isinstance(values, list) or len(values) not in (FIELDS_OF_OLD, len(HEADER_FIELDS)):
        raise FormatError(f"The file's header is not an array of {len(HEADER_FIELDS)} values.")
    return dict(zip(HEADER_FIELDS, values, strict=False))


def _audio_header(values: Any) -> AudioHeader:
    if isinstance(values, dict):
        values = [values.get("pre_skip"), values.get("packet_samples")]
    if not (isinstance(values, list) and len(values) == 2):
        raise FormatError("The file's audio header cannot be read.")
    return AudioHeader(_in_range(values[0], "pre_skip", 0, 48_000), _in_range(values[1], "packet_samples", 120, 5760))


def _whole(raw: dict[Any, Any], name: str, low: int, high: int) -> int:
    return _in_range(raw.get(name), name, low, high)


def _in_range(value: Any, name: str, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise FormatError(f"The file's {name} is not a number from {low} to {high}.")
    return value


def _real(raw: dict[Any, Any], name: str, low: float, high: float) -> float:
    value = raw.get(name)
    if not isinstance(value, float) or not low <= value <= high:
        raise FormatError(f"The file's {name} is not a number from {low} to {high}.")
    return value


# ---------------------------------------------------------------------------------------------- writing


class ContainerWriter:
    """Writes packets as they come; the file appears under its name only when `close` succeeds.

    A context manager: leaving it by an exception (Ctrl-C included) removes what was written. Raises MediaError where
    the file cannot be written.
    """

    def __init__(self, path: str | Path, header: Header) -> None:
        self.path, self.header = Path(path), header
        self.bytes = {"sources": 0, "motion": 0, "audio": 0, "container": 0}
        """Payload bytes by kind; everything else is the container's."""
        self._index: list[tuple[int, int, int]] = []
        self._partial = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}.partial")
        self._at = 0
        try:
            self._file: IO[bytes] = self._partial.open("wb")
        except OSError as error:
            raise MediaError(f"{path} cannot be written: {error.strerror}.") from error
        packed = header.to_bytes()
        head = MAGIC + VERSION.to_bytes(2, "little") + len(packed).to_bytes(4, "little") + packed
        self._put(head + zlib.crc32(head).to_bytes(4, "little"))

    def write_source(self, packet: SourcePacket) -> None:
        self.write_sources([packet])

    def write_sources(self, packets: Sequence[SourcePacket]) -> None:
        """In as few records as may be."""
        for group in source_groups(packets):
            self._index.append((1, self._at, 0))
            kind, payload = (_SOURCE, group[0].to_bytes()) if len(group) == 1 else (_SOURCES, pack_sources(group))
            self._record(kind, payload, sum(len(packet.payload) for packet in group), "sources")

    def write_motion(self, packet: MotionPacket) -> None:
        self._index.append((2, self._at, packet.first))
        self._record(_MOTION, packet.to_bytes(), len(packet.payload), "motion")

    def write_audio(self, packet: AudioPacket) -> None:
        self._record(_AUDIO, packet.to_bytes(), sum(map(len, packet.packets)), "audio")

    def close(self) -> None:
        """Write the index and give the file its name."""
        try:
            start = self._at
            index = _pack_index(self._index)  # a file of many hours does without: seeking walks through it
            self._record(_INDEX, index if len(index) <= LARGEST_RECORD else b"", 0, "container")
            self._put(start.to_bytes(8, "little") + _TAIL)
            self.bytes["container"] = self._at - sum(self.bytes[k] for k in ("sources", "motion", "audio"))
            self._file.close()
            os.replace(self._partial, self.path)
        except OSError as error:
            self.abort()
            raise MediaError(f"{self.path} cannot be written: {error.strerror}.") from error

    def abort(self) -> None:
        """Remove what was written."""
        with suppress(OSError):
            self._file.close()
        self._partial.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _record(self, kind: int, payload: bytes, counted: int, name: str) -> None:
        head = bytes([kind]) + write_varint(len(payload))
        head += bytes([zlib.crc32(head) & 0xFF])
        self._put(head + payload + zlib.crc32(payload, zlib.crc32(head)).to_bytes(4, "little"))
        self.bytes[name] += counted

    def _put(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            self.abort()
            raise MediaError(f"{self.path} cannot be written: {error.strerror}.") from error
        self._at += len(data)


def _pack_index(entries: list[tuple[int, int, int]]) -> bytes:
    out, offset, frame = [], 0, 0
    for kind, at, first in entries:
        step = max(0, first - frame) if kind == 2 else 0
        out.append(write_varint(kind) + write_varint(at - offset) + write_varint(step))
        offset, frame = at, frame + step
    return b"".join(out)


def _unpack_index(data: bytes, size: int) -> list[tuple[int, int, int]]:
    """Raises FormatError."""
    entries, at, offset, frame = [], 0, 0, 0
    while at < len(data):
        kind, at = read_varint(data, at, 2)
        step, at = read_varint(data, at, size)
        frames, at = read_varint(data, at, 1 << 40)
        offset, frame = offset + step, frame + frames
        entries.append((kind, offset, frame))
    return entries


# ---------------------------------------------------------------------------------------------- reading


class ContainerReader:
    """Reads a file, or a seekable binary file object, record by record: never the whole of it.

    Raises FormatError for what is no .iwc file, VersionError for another version of it. After reading, `damage` names
    the records that were left out and `truncated` says whether the end is missing.
    """

    def __init__(self, source: str | Path | IO[bytes]) -> None:
        self._owned = isinstance(source, str | Path)
        try:
            self._file: IO[bytes] = Path(source).open("rb") if isinstance(source, str | Path) else source  # noqa: SIM115
        except OSError as error:
            raise MediaError(f"{source} cannot be read: {error.strerror}.") from error
        self.damage: list[str] = []
        self._budget = _RESYNC_BUDGET
        try:
            self._size = self._file.seek(0, os.SEEK_END)
            self.header, self._start = self._read_header()
            self._end, self.truncated = self._find_end()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._owned:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def records(self) -> Iterator[Packet]:
        """Every packet that can be read, in file order."""
        return self._walk(self._start)

    def seek(self, frame: int) -> Iterator[Packet]:
        """All sources, then motion and sound from the record that holds `frame` on. By the index where it is sound,
        else by walking the whole file."""
        entries = self._index_entries()
        target = None
        for kind, offset, first in entries:
            if kind == 2 and first <= frame:
                target = offset
        if target is None:
            yield from self._from_frame(self._start, frame)
            return
        for kind, offset, _ in entries:
            if kind == 1 and offset < target:
                yield from (packet for packet in self._record_at(offset) if isinstance(packet, SourcePacket))
        yield from self._from_frame(target, frame)

    @property
    def most_frames(self) -> int:
        """That a file of this size can hold, were it nothing but the shortest records."""
        return self._size // SHORTEST_RECORD * MOST_FRAMES

    def frames(self) -> int:
        """How many there are: where the last motion record ends."""
        last = [offset for kind, offset, _ in self._index_entries() if kind == 2][-1:]
        packets = self._record_at(last[0]) if last else self.records()
        return max((p.first + p.count for p in packets if isinstance(p, MotionPacket)), default=0)

    def _from_frame(self, start: int, frame: int) -> Iterator[Packet]:
        for packet in self._walk(start):
            if isinstance(packet, MotionPacket) and packet.first + packet.count <= frame:
                continue
            yield packet

    def _read_header(self) -> tuple[Header, int]:
        head = self._read(0, 10)
        if len(head) < 10 or head[:4] != MAGIC:
            raise FormatError("This is not an .iwc file.")
        version = int.from_bytes(head[4:6], "little")
        if not OLDEST <= version <= VERSION:
            raise VersionError(
                f"This .iwc file has version {version}; this program reads versions {OLDEST} to {VERSION}."
            )
        length = int.from_bytes(head[6:10], "little")
        if length > LARGEST_HEADER:
            raise FormatError("The file's header is too large.")
        rest = self._read(10, length + 4)
        if len(rest) < length + 4:
            raise FormatError("The file ends inside its header.")
        if zlib.crc32(head + rest[:length]) != int.from_bytes(rest[length:], "little"):
            raise FormatError("The file's header is damaged: its checksum is wrong.")
        return replace(Header.from_bytes(rest[:length]), version=version), 10 + length + 4

    def _find_end(self) -> tuple[int, bool]:
        """(where records end, whether the footer is missing)."""
        footer = self._read(self._size - _FOOTER, _FOOTER) if self._size >= self._start + _FOOTER else b""
        if footer[8:] != _TAIL:
            return self._size, True
        return self._size - _FOOTER, False

    def _index_entries(self) -> list[tuple[int, int, int]]:
        """Empty where there is no sound index."""
        if self.truncated:
            return []
        offset = int.from_bytes(self._read(self._size - _FOOTER, 8), "little")
        try:
            kind, payload, _ = self._raw_record(offset) if self._start <= offset < self._end else (0, b"", 0)
            return _unpack_index(payload, self._size) if kind == _INDEX else []
        except FormatError:
            return []

    def _walk(self, at: int) -> Iterator[Packet]:
        counts = dict.fromkeys(_NAMES, 0)
        while at < self._end:
            try:
                kind, payload, behind = self._raw_record(at)
            except FormatError as error:
                found = self._resync(at + 1)
                if self.truncated and found >= self._end:
                    return  # the record that the cut went through
                self._note(self._describe(at, counts), str(error))
                at = found
                continue
            counts[kind] += 1
            if kind != _INDEX:
                try:
                    yield from _parse(kind, payload)
                except FormatError as error:
                    self._note(f"{_NAMES[kind]} record {counts[kind]} at byte {at}", str(error))
            at = behind

    def _note(self, what: str, why: str) -> None:
        line = f"{what}: {why}"
        if line in self.damage:  # read once more
            return
        if len(self.damage) >= MOST_DAMAGE:
            raise FormatError("The file is damaged in too many places.")
        self.damage.append(line)

    def _describe(self, at: int, counts: dict[int, int]) -> str:
        kind = self._read(at, 1)[0]
        if kind in _NAMES:
            counts[kind] += 1
            return f"{_NAMES[kind]} record {counts[kind]} at byte {at}"
        return f"unknown record at byte {at}"

    def _record_at(self, offset: int) -> list[Packet]:
        """Nothing where it is damaged."""
        try:
            kind, payload, _ = self._raw_record(offset)
            return _parse(kind, payload) if kind != _INDEX else []
        except FormatError:
            return []

    def _raw_record(self, at: int) -> tuple[int, bytes, int]:
        """(kind, payload, offset behind it). Raises FormatError."""
        kind, length, payload_at = self._record_head(at)
        behind = payload_at + length + 4
        if behind > self._end:
            raise FormatError("It ends before it should.")
        data = self._read(at, behind - at)
        if zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
            raise FormatError("CRC mismatch.")
        return kind, data[payload_at - at : -4], behind

    def _record_head(self, at: int) -> tuple[int, int, int]:
        head = self._read(at, 6)
        if not head or head[0] not in _NAMES:
            raise FormatError("No record starts here.")
        length, behind = read_varint(head, 1, LARGEST_RECORD)
        if head[behind : behind + 1] != bytes([zlib.crc32(head[:behind]) & 0xFF]):
            raise FormatError("Its length is damaged.")
        return head[0], length, at + behind + 1

    def _resync(self, at: int) -> int:
        """The offset of the next record whose checksum is right, or the end."""
        block = 1 << 16
        while at < self._end:
            data = self._read(at, min(block, self._end - at))
            for n, byte in enumerate(data):
                if byte in _NAMES and self._is_record(at + n):
                    return at + n
            at += len(data)
        return self._end

    def _is_record(self, at: int) -> bool:
        if self._budget <= 0:
            return False
        try:
            _, length, _ = self._record_head(at)
            self._budget -= length
            self._raw_record(at)
        except FormatError:
            self._budget -= 16
            return False
        return True

    def _read(self, at: int, count: int) -> bytes:
        self._file.seek(at)
        return self._file.read(max(0, count))


def _parse(kind: int, payload: bytes) -> list[Packet]:
    if kind == _SOURCE:
        return [SourcePacket.from_bytes(payload)]
    if kind == _SOURCES:
        return [*unpack_sources(payload)]
    if kind == _MOTION:
        return [MotionPacket.from_bytes(payload)]
    return [AudioPacket.from_bytes(payload)]
