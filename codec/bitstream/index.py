"""The index of an .iwc file (layout: container.py)."""

from collections.abc import Sequence
from typing import NamedTuple

from iwcodec.codec.bitstream.varint import read_varint, write_varint

INDEX_QUALITY, INDEX_SOURCES, INDEX_MOTION = 0, 1, 2
MAX_PSNR_DB = 100.0
"""Identical pictures have no PSNR; they count as this."""


class IndexEntry(NamedTuple):
    """One record of sources or motion."""

    kind: int
    """INDEX_SOURCES, INDEX_MOTION or INDEX_QUALITY."""
    offset: int
    """Byte offset of the record in the file."""
    first: int
    """Number of the first frame of a motion record; of INDEX_QUALITY a value of Quality."""


class Quality(NamedTuple):
    """What was measured when a file was verified."""

    psnr_db: float
    """Mean PSNR of all frames."""
    worst_psnr_db: float
    """Mean PSNR of the worst second."""
    worst_frame: int
    """Number of the first frame of that second."""


def pack_index(entries: Sequence[IndexEntry], quality: Quality | None = None) -> bytes:
    """Serialise the entries, in file order."""
    out, offset, frame = [], 0, 0
    for kind, at, first in entries:
        if kind == INDEX_QUALITY:
            continue
        step = max(0, first - frame) if kind == INDEX_MOTION else 0
        out.append(write_varint(kind) + write_varint(at - offset) + write_varint(step))
        offset, frame = at, frame + step
    if quality is not None:
        values = (_hundredths(quality.psnr_db), _hundredths(quality.worst_psnr_db), quality.worst_frame)
        out += [bytes([INDEX_QUALITY, 0]) + write_varint(value) for value in values]
    return b"".join(out)


def _hundredths(psnr_db: float) -> int:
    return round(100 * min(max(psnr_db, 0.0), MAX_PSNR_DB))


def unpack_index(data: bytes, file_size: int) -> list[IndexEntry]:
    """Parse an index. Raises FormatError."""
    entries, at, offset, frame = [], 0, 0, 0
    while at < len(data):
        kind, at = read_varint(data, at, INDEX_MOTION)
        step, at = read_varint(data, at, file_size)
        frames, at = read_varint(data, at, 1 << 40)
        if kind == INDEX_QUALITY:
            entries.append(IndexEntry(kind, offset, frames))
            continue
        offset, frame = offset + step, frame + frames
        entries.append(IndexEntry(kind, offset, frame))
    return entries


def quality_of(entries: Sequence[IndexEntry], frames: int) -> Quality | None:
    """The quality in the index of a file of so many frames; None if there is none, or an impossible one."""
    values = [entry.first for entry in entries if entry.kind == INDEX_QUALITY]
    if len(values) != 3:
        return None
    quality = Quality(values[0] / 100, values[1] / 100, values[2])
    # The worst whole second of a short clip may be better than the mean, to which its ends count more.
    possible = max(quality.psnr_db, quality.worst_psnr_db) <= MAX_PSNR_DB and quality.worst_frame < frames
    return quality if possible else None
