"""Decode an .iwc file into a video file."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from iwcodec.codec.arguments import check_callback, check_path
from iwcodec.codec.errors import FormatError
from iwcodec.codec.file.iwc_file import IwcFile, all_pictures
from iwcodec.codec.file.options import Progress
from iwcodec.codec.media.spool import local_input
from iwcodec.codec.media.types import AUDIO_RATE
from iwcodec.codec.media.writer import VideoWriter, check_target, check_writable
from iwcodec.models.runtime.types import Runtime


@dataclass(frozen=True)
class DecodeReport:
    """What `iwcodec decode --json` prints."""

    frames: int
    fps: float
    duration_s: float
    size: int
    """Side of the pictures in pixels."""
    audio: bool
    """Whether the output has sound."""
    truncated: bool
    """Whether the end of the file is missing."""
    damage: list[str]
    """Damaged records, one line each."""
    seconds: float
    """Time taken."""


def decode(
    source: str | Path,
    target: str | Path,
    overwrite: bool = False,
    runtime: Runtime | None = None,
    progress: Progress | None = None,
) -> DecodeReport:
    """Decode an .iwc file into .mp4, .mov, .webm, .mkv or .y4m, depending on the suffix.

        iwcodec.decode("talk.iwc", "talk.mp4")

    `source`: a path, also of a pipe, "-" for standard input, or a URL. `overwrite`: replace an existing target.
    `runtime`: the network; by default the shipped one that the file needs. `progress`: called with the name of the
    pass and the share of it that is done (0..1).

    The output appears only when it is complete. A truncated or damaged file is decoded as far as possible; missing
    frames repeat the previous one, so that the sound stays in sync. Raises MediaError, FormatError or
    VersionError, all of which are CodecErrors.
    """
    check_callback("progress", progress)
    check_path("source", source)
    target = check_path("target", target)
    check_target(target, overwrite)
    check_writable(target)
    with local_input(source) as path:
        return _decode(path, target, runtime, progress or (lambda name, share: None))


def _decode(source: Path, target: Path, runtime: Runtime | None, progress: Progress) -> DecodeReport:
    started = time.monotonic()
    with IwcFile(source, runtime) as file:
        header = file.header
        sound = header.audio is not None and target.suffix.lower() != ".y4m"
        frames = 0
        with VideoWriter(target, (header.size, header.size), header.fps, sound) as writer:
            samples = file.samples() if sound else iter(())
            buffered, written = np.zeros(0, np.int16), 0
            for picture in all_pictures(file):
                writer.write(picture)
                frames += 1
                due = int(frames * AUDIO_RATE / header.fps) - written
                while sound and len(buffered) < due:
                    buffered = np.concatenate([buffered, next(samples, np.zeros(due, np.int16))])
                writer.write_audio(buffered[:due])
                buffered, written = buffered[due:], written + due
                progress("decoding", min(1.0, frames / max(1, header.frames)))
            if not frames:
                raise FormatError(f"{source} holds no frame that can be decoded{reasons(file)}.")
        return DecodeReport(
            frames,
            round(float(header.fps), 3),
            round(frames / float(header.fps), 3),
            header.size,
            sound,
            file.reader.truncated,
            file.damage,
            round(time.monotonic() - started, 2),
        )


def reasons(file: IwcFile) -> str:
    """Why nothing could be decoded, in parentheses for the end of a sentence; empty if nothing is known."""
    known = ["it is truncated"] * file.reader.truncated + [line.rstrip(".") for line in file.damage[:1]]
    return f" ({'; '.join(known)})" if known else ""
