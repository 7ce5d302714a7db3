"""Write .iwc files (layout: container.py)."""

import zlib
from collections.abc import Sequence
from pathlib import Path

from iwcodec.codec.bitstream.container import (
    AUDIO,
    FOOTER_MAGIC,
    INDEX,
    MAGIC,
    MAX_RECORD,
    MOTION,
    SOURCE,
    SOURCES,
    VERSION,
)
from iwcodec.codec.bitstream.header import Header
from iwcodec.codec.bitstream.index import INDEX_MOTION, INDEX_SOURCES, IndexEntry, pack_index
from iwcodec.codec.bitstream.packets import (
    AudioPacket,
    MotionPacket,
    SourcePacket,
    pack_sources,
    source_groups,
)
from iwcodec.codec.bitstream.varint import write_varint
from iwcodec.codec.errors import MediaError
from iwcodec.codec.partial_file import PartialFile


class ContainerWriter(PartialFile):
    """Write packets in order. The file appears when it is closed. Raises MediaError if it cannot be written."""

    def __init__(self, path: str | Path, header: Header) -> None:
        super().__init__(path)
        self.header = header
        self.bytes = {"sources": 0, "motion": 0, "audio": 0, "container": 0}
        """Payload bytes by kind; all other bytes count as "container", known after `close`."""
        self._index: list[IndexEntry] = []
        self._at = 0
        try:
            self._open()
        except OSError as error:
            raise MediaError(f"{path} cannot be written: {error.strerror}.") from error
        packed = header.to_bytes()
        head = MAGIC + VERSION.to_bytes(2, "little") + len(packed).to_bytes(4, "little") + packed
        self._put(head + zlib.crc32(head).to_bytes(4, "little"))

    def write_source(self, packet: SourcePacket) -> None:
        """Append a record of one source."""
        self.write_sources([packet])

    def write_sources(self, packets: Sequence[SourcePacket]) -> None:
        """Append sources in as few records as possible (see `source_groups`)."""
        for group in source_groups(packets):
            self._index.append(IndexEntry(INDEX_SOURCES, self._at, 0))
            kind, payload = (SOURCE, group[0].to_bytes()) if len(group) == 1 else (SOURCES, pack_sources(group))
            self._record(kind, payload, sum(len(packet.payload) for packet in group), "sources")

    def write_motion(self, packet: MotionPacket) -> None:
        """Append a record of motion."""
        self._index.append(IndexEntry(INDEX_MOTION, self._at, packet.first))
        self._record(MOTION, packet.to_bytes(), len(packet.payload), "motion")

    def write_audio(self, packet: AudioPacket) -> None:
        """Append a record of sound."""
        self._record(AUDIO, packet.to_bytes(), sum(map(len, packet.packets)), "audio")

    def close(self) -> None:
        """Write the index and footer and rename the file to `path`."""
        try:
            start = self._at
            # Many hours of records make too long an index. The file then has an empty one, and seeking walks it.
            index = pack_index(self._index)
            self._record(INDEX, index if len(index) <= MAX_RECORD else b"", 0, "container")
            self._put(start.to_bytes(8, "little") + FOOTER_MAGIC)
            self.bytes["container"] = self._at - sum(self.bytes[k] for k in self.bytes if k != "container")
            super().close()
        except OSError as error:
            self.abort()
            raise MediaError(f"{self.path} cannot be written: {error.strerror}.") from error

    def _record(self, kind: int, payload: bytes, counted: int, name: str) -> None:
        """Append a record and add `counted` bytes to those of `name`."""
        head = bytes([kind]) + write_varint(len(payload))
        head += bytes([zlib.crc32(head) & 0xFF])
        self._put(head + payload + zlib.crc32(payload, zlib.crc32(head)).to_bytes(4, "little"))
        self.bytes[name] += counted

    def _put(self, data: bytes) -> None:
        assert self._file is not None, "closed"
        try:
            self._file.write(data)
        except OSError as error:
            self.abort()
            raise MediaError(f"{self.path} cannot be written: {error.strerror}.") from error
        self._at += len(data)
