"""The index of an .iwc file (layout: container.py)."""

from collections.abc import Sequence
from typing import NamedTuple

from iwcodec.codec.bitstream.varint import read_varint, write_varint

INDEX_SOURCES, INDEX_MOTION = 1, 2


class IndexEntry(NamedTuple):
    """One record of sources or motion."""

    kind: int
    """INDEX_SOURCES or INDEX_MOTION."""
    offset: int
    """Byte offset of the record in the file."""
    first: int
    """Number of the first frame of a motion record."""


def pack_index(entries: Sequence[IndexEntry]) -> bytes:
    """Serialise the entries, in file order."""
    out, offset, frame = [], 0, 0
    for kind, at, first in entries:
        step = max(0, first - frame) if kind == INDEX_MOTION else 0
        out.append(write_varint(kind) + write_varint(at - offset) + write_varint(step))
        offset, frame = at, frame + step
    return b"".join(out)


def unpack_index(data: bytes, file_size: int) -> list[IndexEntry]:
    """Parse an index. Raises FormatError."""
    entries, at, offset, frame = [], 0, 0, 0
    while at < len(data):
        kind, at = read_varint(data, at, INDEX_MOTION)
        step, at = read_varint(data, at, file_size)
        frames, at = read_varint(data, at, 1 << 40)
        offset, frame = offset + step, frame + frames
        entries.append(IndexEntry(kind, offset, frame))
    return entries
