"""Encode a video file into an .iwc file, in several streaming passes."""

import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from iwcodec.codec.bitstream.header import Header
from iwcodec.codec.bitstream.packets import AudioPacket, MotionPacket
from iwcodec.codec.bitstream.writer import ContainerWriter
from iwcodec.codec.errors import CodecError
from iwcodec.codec.file.clip import Footage, read_clip
from iwcodec.codec.file.iwc_file import IwcFile, all_pictures
from iwcodec.codec.file.options import EncodeOptions, Progress
from iwcodec.codec.file.passes import choose_sources_and_motion, code_stream, part_of, reserve_for_variants
from iwcodec.codec.file.rate_control.closed_loop import best_stream, choose_suppression
from iwcodec.codec.file.rate_control.search import rate_for_quality
from iwcodec.codec.file.rate_control.source_plan import CodedSources, pictures_of, sources_due
from iwcodec.codec.file.rate_control.variant_selection import add_variants
from iwcodec.codec.media.opus_track import OpusTrack, read_audio_opus
from iwcodec.codec.media.quality import psnr
from iwcodec.codec.media.types import AUDIO_RATE, Picture
from iwcodec.codec.media.writer import check_target
from iwcodec.codec.motion.transform_tables import load_transform_tables
from iwcodec.codec.motion.types import Quantiser
from iwcodec.codec.shipped_model import load_runtime_for
from iwcodec.codec.sources.library import CAPACITY
from iwcodec.models.runtime.types import ModelInfo, Runtime

AUDIO_RECORD_S = 1.0
"""Seconds of sound in one record."""


@dataclass(frozen=True)
class EncodeReport:
    """What `iwcodec encode --json` prints."""

    frames: int
    fps: float
    duration_s: float
    size: int
    """Side of the pictures in pixels."""
    sources: int
    """Frames that are sources."""
    variants: int
    """Further source pictures, with other eyes and mouths."""
    bytes: dict[str, int]
    """Bytes of the file: `total`, and of that `sources`, `motion`, `audio` and `container`."""
    kbps: dict[str, float]
    """Bitrates: `total`, `video` (all but sound), `sources`, `motion`."""
    seconds: float
    """Time taken."""
    psnr_db: float | None = None
    """Mean PSNR of the decoded file; None unless verified."""
    copy_psnr_db: float | None = None
    """Mean PSNR of the best uncoded source instead of each frame; None unless verified."""


def encode(
    source: str | Path,
    target: str | Path,
    options: EncodeOptions | None = None,
    runtime: Runtime | None = None,
    progress: Progress | None = None,
) -> EncodeReport:
    """Encode a video file into an .iwc file. The output appears only when it is complete.

    Raises MediaError if the input cannot be read or the output not be written, NoFaceError if there is no speaker,
    CodecError for impossible options.
    """
    options, progress = options or EncodeOptions(), progress or (lambda name, share: None)
    source, target = Path(source), Path(target)
    check_target(target, options.overwrite)
    started = time.monotonic()
    runtime = runtime or load_runtime_for(options.size)
    if options.quality_db is not None and (options.kbps is not None or options.sources is not None):
        raise CodecError("A quality cannot be combined with a bitrate or a number of sources.")
    if runtime.info.size != options.size:
        raise CodecError(
            f"The model {runtime.info.model_id} makes pictures of {runtime.info.size}, not {options.size}."
        )
    clip = read_clip(source, runtime, options, progress)
    video, survey = clip.video, clip.survey
    if options.quality_db is not None:
        length, budget = clip.message_frames, clip.bytes_at
        rate = rate_for_quality(options.quality_db, survey, video.pictures, runtime, budget, length, progress)
        clip = replace(clip, options=replace(options, kbps=rate))
    clip, reserved = reserve_for_variants(clip)
    choices = choose_sources_and_motion(clip, progress)
    streams = [
        code_stream(choice, clip, part_of(progress, number, len(choices))) for number, choice in enumerate(choices)
    ]
    frames = len(survey.keypoints)
    stream = best_stream(streams, frames, video.pictures, runtime, survey.faces, partial(progress, "comparing"))
    suppression = choose_suppression(
        stream, frames, video.pictures, runtime, partial(progress, "suppressing small shifts")
    )
    if options.tune == "face":
        stream = add_variants(
            stream,
            frames,
            video.pictures,
            runtime,
            clip.presets,
            reserved,
            partial(progress, "choosing eyes and mouths"),
        )
    header = make_header(runtime.info, video, frames, stream.active, suppression)
    track = open_audio(video, options, frames)
    if track is not None:
        header = header.with_audio(track.pre_skip, track.packet_samples)
    with ContainerWriter(target, header) as writer:
        write_streams(writer, stream.motion, stream.coded, track)
    report = summarise(writer.bytes, frames, float(video.info.fps), options.size, stream.coded)
    quality: dict[str, Any] = {}
    if options.verify:
        quality = verify(target, video, stream.coded.plan.frames, runtime, progress)
    return EncodeReport(**report, seconds=round(time.monotonic() - started, 2), **quality)


def make_header(info: ModelInfo, video: Footage, frames: int, active: int, suppression: int) -> Header:
    return Header(
        model_id=info.model_id,
        model_digest=info.digest,
        keypoints=info.keypoints,
        step_xy=Quantiser.step_xy,
        step_strength=Quantiser.step_strength,
        tables=load_transform_tables().id,
        fps=video.info.fps,
        size=info.size,
        frames=frames,
        active=active,
        suppression=suppression,
    )


def open_audio(video: Footage, options: EncodeOptions, frames: int) -> OpusTrack | None:
    if not options.audio:
        return None
    return read_audio_opus(video.path, options.audio_bitrate, duration_s=float(frames / video.info.fps))


def write_streams(
    writer: ContainerWriter,
    motion: Sequence[MotionPacket],
    coded: CodedSources,
    track: OpusTrack | None,
) -> None:
    """Write sources, motion and sound, interleaved by time. Sources precede the motion that needs them."""
    sound = audio_records(track) if track is not None else iter(())
    audio_s, sent = 0.0, 0
    fps = float(writer.header.fps)

    for packet in motion:
        due = sources_due(coded.packets, coded.plan, packet.first + packet.count)
        writer.write_sources(coded.packets[sent:due])
        sent = due
        while track is not None and audio_s <= packet.first / fps and (record := next(sound, None)):
            writer.write_audio(record)
            audio_s = (record.first + len(record.packets) * track.packet_samples) / AUDIO_RATE
        writer.write_motion(packet)
    for record in sound:
        writer.write_audio(record)


def audio_records(track: OpusTrack) -> Iterator[AudioPacket]:
    """The sound in records of about AUDIO_RECORD_S."""
    length = max(1, round(AUDIO_RECORD_S * AUDIO_RATE / track.packet_samples))
    first, packets = 0, []
    for packet in track:
        packets.append(packet)
        if len(packets) == length:
            yield AudioPacket(first, tuple(packets))
            first, packets = first + length * track.packet_samples, []
    if packets:
        yield AudioPacket(first, tuple(packets))


def summarise(sizes: dict[str, int], frames: int, fps: float, size: int, coded: CodedSources) -> dict[str, Any]:
    """Fields of EncodeReport from the bytes of the file's contents."""
    seconds = frames / fps
    total = sum(sizes.values())
    rate = {
        "total": total,
        "video": total - sizes["audio"],
        "sources": sizes["sources"],
        "motion": sizes["motion"],
    }
    variants = sum(packet.base is not None for packet in coded.packets)
    return {
        "frames": frames,
        "fps": round(fps, 3),
        "duration_s": round(seconds, 3),
        "size": size,
        "sources": len(coded.packets) - variants,
        "variants": variants,
        "bytes": {"total": total, **sizes},
        "kbps": {name: round(count * 8 / 1000 / seconds, 3) for name, count in rate.items()},
    }


def verify(
    target: Path, video: Footage, source_frames: tuple[int, ...], runtime: Runtime, progress: Progress
) -> dict[str, float]:
    """Decode the file and compare it with the original: mean PSNR of the decoded frames, and of the best uncoded source
    near each frame (the best of all sources unless they are many)."""
    decoded_db, copied_db = [], []
    sources = UncodedSources(video, source_frames)
    with IwcFile(target, runtime) as file:
        for number, (decoded, original) in enumerate(zip(all_pictures(file), video.pictures(), strict=False)):
            decoded_db.append(psnr(decoded, original))
            copied_db.append(max(psnr(source, original) for source in sources.near(number)))
            if number % 10 == 0:
                progress("verifying", number / len(video.crops))
    return {"psnr_db": round(float(np.mean(decoded_db)), 3), "copy_psnr_db": round(float(np.mean(copied_db)), 3)}


class UncodedSources:
    """The original pictures of the sources: all if a library holds them, else those next to a frame."""

    def __init__(self, video: Footage, frames: tuple[int, ...]) -> None:
        self._ascending = sorted(frames)
        self._many = len(frames) > CAPACITY
        self._coming = pictures_of(self._ascending, video.pictures, hold=False)
        self._held: dict[int, Picture] = {}

    def near(self, number: int) -> list[Picture]:
        """Source pictures for a frame; of many the two before and the two after it. Numbers must ascend."""
        at = bisect_left(self._ascending, number)
        last = self._ascending[min(at + 2, len(self._ascending)) - 1] if self._many else self._ascending[-1]
        while max(self._held, default=-1) < last and (pair := next(self._coming, None)) is not None:
            self._held[pair[0]] = pair[1]
            if self._many and len(self._held) > 4:
                del self._held[min(self._held)]
        return list(self._held.values())
