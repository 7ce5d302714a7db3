"""Describe an .iwc file without decoding it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iwcodec.codec.bitstream.container import VERSION
from iwcodec.codec.bitstream.index import quality_of
from iwcodec.codec.bitstream.packets import MotionPacket, SourcePacket
from iwcodec.codec.bitstream.reader import ContainerReader
from iwcodec.codec.errors import FormatError, MediaError


@dataclass(frozen=True)
class FileReport:
    """What `iwcodec info` prints."""

    version: int
    model: str
    model_digest: str
    """Hexadecimal."""
    size: int
    """Width and height in pixels."""
    fps: float
    frames: int
    duration_s: float
    sources: int
    variants: int
    """Further source pictures, with other eyes and mouths."""
    keypoints: int
    audio: dict[str, Any] | None
    quality: dict[str, float] | None
    """Measured when the file was verified, else None: `psnr_db`, the mean of all frames; `worst_psnr_db`, that of the
    worst second, and `worst_at_s`, where it begins."""
    bytes: dict[str, int]
    """Payload bytes of "sources", "motion" and "audio"; all others are "container"; and "total"."""
    kbps: dict[str, float]
    """Of the "total" and of the "video": all but audio sizes."""
    truncated: bool
    """Whether the end of the file is missing."""
    damage: list[str]
    """Records that were skipped, and why."""


def inspect(path: Path) -> FileReport:
    """Read every record of a file. Raises MediaError if it is not a readable file, VersionError for another version of
    the format, and FormatError if it is not an .iwc file or no frame of it is left."""
    if not path.is_file():
        raise MediaError(f"{path} does not exist." if not path.exists() else f"{path} is not a file.")
    with ContainerReader(path) as reader:
        header = reader.header
        sources = variants = frames = 0
        sizes = {"sources": 0, "motion": 0, "audio": 0}
        for packet in reader.records():
            if isinstance(packet, SourcePacket):
                sources += packet.base is None
                variants += packet.base is not None
                sizes["sources"] += len(packet.payload)
            elif isinstance(packet, MotionPacket):
                frames += packet.count
                sizes["motion"] += len(packet.payload)
            else:
                sizes["audio"] += sum(map(len, packet.packets))
        measured = quality_of(reader.index(), frames)
    if not frames:
        reason = "it ends before the first" if reader.truncated else (reader.damage or ["it is empty"])[0].rstrip(".")
        raise FormatError(f"{path} holds no frames: {reason}.")
    total = path.stat().st_size
    sizes["container"] = total - sum(sizes.values())
    seconds = frames / float(header.fps)
    rate = {"total": total, "video": total - sizes["audio"]}
    audio, quality = header.audio, None
    if measured is not None:
        quality = {
            "psnr_db": measured.psnr_db,
            "worst_psnr_db": measured.worst_psnr_db,
            "worst_at_s": round(measured.worst_frame / float(header.fps), 3),
        }
    return FileReport(
        version=VERSION,
        model=header.model_id,
        model_digest=header.model_digest.hex(),
        size=header.size,
        fps=round(float(header.fps), 3),
        frames=frames,
        duration_s=round(seconds, 3),
        sources=sources,
        variants=variants,
        keypoints=header.keypoints,
        audio=None if audio is None else vars(audio),
        quality=quality,
        bytes={"total": total, **sizes},
        kbps={name: round(count * 8 / 1000 / seconds, 3) for name, count in rate.items()},
        truncated=reader.truncated,
        damage=reader.damage,
    )
