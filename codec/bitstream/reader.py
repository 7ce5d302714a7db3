"""."""

import os
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Self

from iwcodec.codec.bitstream.container import (
    _FOOTER,
    _INDEX,
    _MOTION,
    _NAMES,
    _SOURCE,
    _SOURCES,
    _TAIL,
    MAGIC,
    MAX_RECORD,
    MIN_RECORD,
)
from iwcodec.codec.bitstream.header import MAX_HEADER, OLDEST, VERSION, Header
from iwcodec.codec.bitstream.packets import (
    MAX_FRAMES,
    AudioPacket,
    MotionPacket,
    Packet,
    SourcePacket,
    unpack_sources,
)
from iwcodec.codec.bitstream.varint import read_varint
from iwcodec.codec.errors import FormatError, MediaError, VersionError

_RESYNC_BUDGET = 1 << 26
"""Bytes of candidate records that may be checked while looking for the next sound one, over the whole file."""

MAX_DAMAGE = 1000
"""Damaged places named; a file with more is given up."""


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
        return self._size // MIN_RECORD * MAX_FRAMES

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
        if length > MAX_HEADER:
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
        if len(self.damage) >= MAX_DAMAGE:
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
        length, behind = read_varint(head, 1, MAX_RECORD)
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
