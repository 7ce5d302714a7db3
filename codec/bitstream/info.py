"""What an .iwc file holds, without decoding a picture."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iwcodec.codec.bitstream.packets import MotionPacket, SourcePacket
from iwcodec.codec.bitstream.reader import ContainerReader
from iwcodec.codec.errors import MediaError


@dataclass(frozen=True)
class FileReport:
    """What `iwcodec info` prints. Bytes as in the encoder's report."""

    version: int
    model: str
    model_digest: str
    size: int
    fps: float
    frames: int
    duration_s: float
    sources: int
    keypoints: int
    audio: dict[str, Any] | None
    bytes: dict[str, int]
    kbps: dict[str, float]
    truncated: bool
    damage: list[str]


def inspect(path: Path) -> FileReport:
    """Read every record of a file. Raises MediaError, FormatError or VersionError."""
    if not path.is_file():
        raise MediaError(f"{path} does not exist." if not path.exists() else f"{path} is not a file.")
    reader = ContainerReader(path)
    try:
        header = reader.header
        sources = frames = 0
        spent = {"sources": 0, "motion": 0, "audio": 0}
        for packet in reader.records():
            if isinstance(packet, SourcePacket):
                sources += 1
                spent["sources"] += len(packet.payload)
            elif isinstance(packet, MotionPacket):
                frames += packet.count
                spent["motion"] += len(packet.payload)
            else:
                spent["audio"] += sum(map(len, packet.packets))
    finally:
        reader.close()
    total = path.stat().st_size
    spent["container"] = total - sum(spent.values())
    seconds = max(frames, 1) / float(header.fps)
    rate = {"total": total, "video": total - spent["audio"]}
    audio = header.audio
    return FileReport(
        version=header.version,
        model=header.model_id,
        model_digest=header.model_digest.hex(),
        size=header.size,
        fps=round(float(header.fps), 3),
        frames=frames,
        duration_s=round(seconds, 3),
        sources=sources,
        keypoints=header.keypoints,
        audio=None if audio is None else vars(audio),
        bytes={"total": total, **spent},
        kbps={name: round(count * 8 / 1000 / seconds, 3) for name, count in rate.items()},
        truncated=reader.truncated,
        damage=reader.damage,
    )
