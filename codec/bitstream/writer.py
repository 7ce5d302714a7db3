"""."""

import os
import secrets
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from iwcodec.codec.bitstream.container import _AUDIO, _INDEX, _MOTION, _SOURCE, _SOURCES, _TAIL, MAGIC, MAX_RECORD
from iwcodec.codec.bitstream.header import VERSION, Header
from iwcodec.codec.bitstream.packets import (
    AudioPacket,
    MotionPacket,
    SourcePacket,
    pack_sources,
    source_groups,
)
from iwcodec.codec.bitstream.varint import write_varint
from iwcodec.codec.errors import MediaError


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
            self._record(_INDEX, index if len(index) <= MAX_RECORD else b"", 0, "container")
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
