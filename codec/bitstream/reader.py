"""Read .iwc files, also truncated or damaged ones (layout: container.py)."""

import os
import zlib
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Self

from iwcodec.codec.bitstream.container import (
    FOOTER_BYTES,
    FOOTER_MAGIC,
    INDEX,
    MAGIC,
    MAX_HEADER,
    MAX_RECORD,
    MIN_RECORD,
    MOTION,
    RECORD_NAMES,
    SOURCE,
    SOURCES,
    VERSION,
)
from iwcodec.codec.bitstream.header import Header
from iwcodec.codec.bitstream.index import INDEX_MOTION, INDEX_SOURCES, IndexEntry, unpack_index
from iwcodec.codec.bitstream.packets import (
    MAX_PACKET_FRAMES,
    AudioPacket,
    MotionPacket,
    Packet,
    SourcePacket,
    unpack_sources,
)
from iwcodec.codec.bitstream.varint import read_varint
from iwcodec.codec.errors import FormatError, MediaError, VersionError, naming

RESYNC_BUDGET = 1 << 26
"""Bytes of candidate records that are checked in total while searching for the next valid one in a file."""
MAX_DAMAGE = 1000
"""Damaged places that are reported; a file with more is refused."""


class ContainerReader:
    """Read a file, or a seekable binary file object, record by record; a context manager.

    Raises FormatError if it is not an .iwc file, VersionError for another version of the format. `truncated` says
    whether the footer is missing; after reading, `damage` describes the records that were skipped.
    """

    def __init__(self, source: str | Path | IO[bytes]) -> None:
        self._owned = isinstance(source, str | Path)
        try:
            self._file: IO[bytes] = Path(source).open("rb") if isinstance(source, str | Path) else source  # noqa: SIM115
        except OSError as error:
            raise MediaError(f"{source} cannot be read: {error.strerror}.") from error
        self.damage: list[str] = []
        self._budget = RESYNC_BUDGET
        try:
            self._size = self._file.seek(0, os.SEEK_END)
            with naming(source) if isinstance(source, str | Path) else nullcontext():
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
        """Yield every packet that can be read, in file order."""
        return self._walk(self._start)

    def seek(self, frame: int) -> Iterator[Packet]:
        """Yield all sources stored before the record with the motion of `frame`, then all packets from that
        record on. Uses the index if it is valid, else walks the file."""
        entries = self.index()
        target = None
        for kind, offset, first in entries:
            if kind == INDEX_MOTION and first <= frame:
                target = offset
        if target is None:
            yield from self._from_frame(self._start, frame)
            return
        for kind, offset, _ in entries:
            if kind == INDEX_SOURCES and offset < target:
                yield from (packet for packet in self._record_at(offset) if isinstance(packet, SourcePacket))
        yield from self._from_frame(target, frame)

    @property
    def max_frames(self) -> int:
        """Upper bound on the number of frames in a file of this size."""
        return self._size // MIN_RECORD * MAX_PACKET_FRAMES

    def count_frames(self) -> int:
        """Return the number of frames: where the last motion record ends."""
        last = [offset for kind, offset, _ in self.index() if kind == INDEX_MOTION][-1:]
        packets = self._record_at(last[0]) if last else self.records()
        return max((p.first + p.count for p in packets if isinstance(p, MotionPacket)), default=0)

    def index(self) -> list[IndexEntry]:
        """Return the index; empty if there is no valid one."""
        if self.truncated:
            return []
        offset = int.from_bytes(self._read(self._size - FOOTER_BYTES, 8), "little")
        try:
            kind, payload, _ = self._raw_record(offset) if self._start <= offset < self._end else (0, b"", 0)
            return unpack_index(payload, self._size) if kind == INDEX else []
        except FormatError:
            return []

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
        if version != VERSION:
            raise VersionError(f"This .iwc file has version {version}; this program reads version {VERSION}.")
        length = int.from_bytes(head[6:10], "little")
        if length > MAX_HEADER:
            raise FormatError("The file's header is too large.")
        rest = self._read(10, length + 4)
        if len(rest) < length + 4:
            raise FormatError("The file ends inside its header.")
        if zlib.crc32(head + rest[:length]) != int.from_bytes(rest[length:], "little"):
            raise FormatError("The file's header is damaged: its checksum is wrong.")
        return Header.from_bytes(rest[:length]), 10 + length + 4

    def _find_end(self) -> tuple[int, bool]:
        """Return (offset where the records end, whether the footer is missing)."""
        at = self._size - FOOTER_BYTES
        if at < self._start or self._read(at, FOOTER_BYTES)[8:] != FOOTER_MAGIC:
            return self._size, True
        return at, False

    def _walk(self, at: int) -> Iterator[Packet]:
        counts = dict.fromkeys(RECORD_NAMES, 0)
        while at < self._end:
            try:
                kind, payload, behind = self._raw_record(at)
            except FormatError as error:
                following = self._resync(at + 1)
                if self.truncated and following >= self._end:
                    return  # the record that was cut
                self._report(self._describe(at, counts), str(error))
                at = following
                continue
            counts[kind] += 1
            if kind != INDEX:
                try:
                    yield from _parse(kind, payload)
                except FormatError as error:
                    self._report(f"{RECORD_NAMES[kind]} record {counts[kind]} at byte {at}", str(error))
            at = behind

    def _report(self, record: str, reason: str) -> None:
        line = f"{record}: {reason}"
        if line in self.damage:  # read a second time
            return
        if len(self.damage) >= MAX_DAMAGE:
            raise FormatError("The file is damaged in too many places.")
        self.damage.append(line)

    def _describe(self, at: int, counts: dict[int, int]) -> str:
        kind = self._read(at, 1)[0]
        if kind in RECORD_NAMES:
            counts[kind] += 1
            return f"{RECORD_NAMES[kind]} record {counts[kind]} at byte {at}"
        return f"unknown record at byte {at}"

    def _record_at(self, offset: int) -> list[Packet]:
        """Return the packets of a record; none if it is damaged."""
        try:
            kind, payload, _ = self._raw_record(offset)
            return _parse(kind, payload) if kind != INDEX else []
        except FormatError:
            return []

    def _raw_record(self, at: int) -> tuple[int, bytes, int]:
        """Return (kind, payload, offset behind the record). Raises FormatError."""
        kind, length, payload_at = self._record_head(at)
        behind = payload_at + length + 4
        if behind > self._end:
            raise FormatError("The record is cut off.")
        data = self._read(at, behind - at)
        if zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
            raise FormatError("CRC mismatch.")
        return kind, data[payload_at - at : -4], behind

    def _record_head(self, at: int) -> tuple[int, int, int]:
        """Return (kind, length of the payload, offset of the payload). Raises FormatError."""
        head = self._read(at, 6)
        if not head or head[0] not in RECORD_NAMES:
            raise FormatError("No record starts here.")
        length, behind = read_varint(head, 1, MAX_RECORD)
        if head[behind : behind + 1] != bytes([zlib.crc32(head[:behind]) & 0xFF]):
            raise FormatError("The length is damaged.")
        return head[0], length, at + behind + 1

    def _resync(self, at: int) -> int:
        """Return the offset of the next record with a valid checksum, or of the end."""
        block = 1 << 16
        while at < self._end:
            data = self._read(at, min(block, self._end - at))
            for n, byte in enumerate(data):
                if byte in RECORD_NAMES and self._is_record(at + n):
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
    if kind == SOURCE:
        return [SourcePacket.from_bytes(payload)]
    if kind == SOURCES:
        return [*unpack_sources(payload)]
    if kind == MOTION:
        return [MotionPacket.from_bytes(payload)]
    return [AudioPacket.from_bytes(payload)]
