""".iwc -> video."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from iwcodec.codec.errors import FormatError
from iwcodec.codec.file.clip import Progress
from iwcodec.codec.file.iwc_file import IwcFile, held_to_the_end
from iwcodec.codec.media.types import AUDIO_RATE
from iwcodec.codec.media.writer import VideoWriter, check_target, check_writable
from iwcodec.models.runtime.types import Runtime


@dataclass(frozen=True)
class DecodeReport:
    frames: int
    fps: float
    duration_s: float
    size: int
    audio: bool
    truncated: bool
    damage: list[str]
    seconds: float


def decode(
    source: str | Path,
    target: str | Path,
    overwrite: bool = False,
    runtime: Runtime | None = None,
    progress: Progress | None = None,
) -> DecodeReport:
    """Decode an .iwc file into .mp4, .mkv or .y4m, by the suffix.

    A truncated or damaged file is decoded as far as it goes: missing frames repeat the last one, so that sound stays
    in sync. Raises MediaError, FormatError or VersionError; the output appears only when it is complete.
    """
    source, target = Path(source), Path(target)
    check_target(target, overwrite)
    check_writable(target)
    tell, started = progress or (lambda name, share: None), time.monotonic()
    with IwcFile(source, runtime) as file:
        header = file.header
        sound = header.audio is not None and target.suffix.lower() != ".y4m"
        written = 0
        with VideoWriter(target, (header.size, header.size), header.fps, sound) as writer:
            samples = file.samples() if sound else iter(())
            waiting, heard = np.zeros(0, np.int16), 0
            for picture in held_to_the_end(file):
                writer.write(picture)
                written += 1
                due = int(written * AUDIO_RATE / header.fps) - heard
                while sound and len(waiting) < due:
                    waiting = np.concatenate([waiting, next(samples, np.zeros(due, np.int16))])
                writer.write_audio(waiting[:due])
                waiting, heard = waiting[due:], heard + due
                tell("decoding", min(1.0, written / max(1, header.frames)))
            if not written:
                raise FormatError(f"{source} holds no frame that can be decoded{reasons(file)}.")
        return DecodeReport(
            written,
            round(float(header.fps), 3),
            round(written / float(header.fps), 3),
            header.size,
            sound,
            file.reader.truncated,
            file.damage,
            round(time.monotonic() - started, 2),
        )


def reasons(file: IwcFile) -> str:
    """What goes behind a sentence that says that nothing could be decoded; empty where nothing is known to be wrong."""
    found = ["it is truncated"] * file.reader.truncated + [line.rstrip(".") for line in file.damage[:1]]
    return f" ({'; '.join(found)})" if found else ""
