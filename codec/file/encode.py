"""Video -> .iwc: several streaming passes."""

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
from iwcodec.codec.file.clip import EncodeOptions, Footage, Progress, read_clip
from iwcodec.codec.file.closed_loop import best_stream, receiver_of
from iwcodec.codec.file.iwc_file import IwcFile, held_to_the_end
from iwcodec.codec.file.passes import choose_sources_and_motion, code_stream, part_of
from iwcodec.codec.file.rate_control import rate_for
from iwcodec.codec.file.shift_suppression import choose_suppression
from iwcodec.codec.file.source_plan import Coded, before, wanted
from iwcodec.codec.media.opus import OpusTrack, read_audio_opus
from iwcodec.codec.media.quality import psnr
from iwcodec.codec.media.types import AUDIO_RATE, Picture
from iwcodec.codec.media.writer import check_target
from iwcodec.codec.motion.transform_tables import load_transform_tables
from iwcodec.codec.motion.types import Quantiser
from iwcodec.codec.shipped_model import load_runtime_for
from iwcodec.codec.sources.library import CAPACITY
from iwcodec.models.runtime.types import ModelInfo, Runtime

AUDIO_RECORD_S = 1.0


@dataclass(frozen=True)
class EncodeReport:
    """What `iwcodec encode --json` prints. Bytes are of the file; `video` kbps counts sources, motion and container."""

    frames: int
    fps: float
    duration_s: float
    size: int
    sources: int
    bytes: dict[str, int]
    kbps: dict[str, float]
    seconds: float
    psnr_db: float | None = None
    copy_psnr_db: float | None = None


def encode(
    source: str | Path,
    target: str | Path,
    options: EncodeOptions | None = None,
    runtime: Runtime | None = None,
    progress: Progress | None = None,
) -> EncodeReport:
    """Encode a video file into an .iwc file.

    Raises MediaError when the input cannot be read or the output not be written, NoFaceError when there is nobody
    to code, CodecError for impossible options. The output appears only when it is complete.
    """
    options, tell = options or EncodeOptions(), progress or (lambda name, share: None)
    source, target = Path(source), Path(target)
    check_target(target, options.overwrite)
    started = time.monotonic()
    runtime = runtime or load_runtime_for(options.size)
    if options.quality_db is not None and (options.kbps is not None or options.sources is not None):
        raise CodecError("A quality, a bitrate and a number of sources cannot be asked for together.")
    if runtime.info.size != options.size:
        raise CodecError(
            f"The model {runtime.info.model_id} makes pictures of {runtime.info.size}, not {options.size}."
        )
    clip = read_clip(source, runtime, options, tell)
    video, survey = clip.video, clip.survey
    if options.quality_db is not None:
        length, budget = clip.message_frames, clip.bytes_at
        rate = rate_for(options.quality_db, survey, video.pictures, runtime, budget, length, tell)
        clip = replace(clip, options=replace(options, kbps=rate))
    choices = choose_sources_and_motion(clip, tell)
    streams = [code_stream(choice, clip, part_of(tell, number, len(choices))) for number, choice in enumerate(choices)]
    frames = len(survey.keypoints)
    stream = best_stream(streams, frames, video.pictures, runtime, partial(tell, "comparing"))
    coded, motion, receiver = stream.coded, stream.motion, receiver_of(stream, runtime)
    leaving_out = partial(tell, "leaving small shifts out")
    zone = choose_suppression(coded, motion, frames, video.pictures, runtime, receiver, leaving_out)
    header = make_header(runtime.info, video, frames, stream.active, zone)
    track = open_audio(video, options, frames)
    if track is not None:
        header = header.with_audio(track.pre_skip, track.packet_samples)
    with ContainerWriter(target, header) as writer:
        write_streams(writer, motion, coded, track)
    spent = writer.bytes
    report = summarise(spent, frames, float(video.info.fps), options.size, len(coded.packets))
    quality: dict[str, Any] = verify(target, video, coded.plan.frames, runtime, tell) if options.verify else {}
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
    writer: ContainerWriter, motion: Sequence[MotionPacket], coded: Coded, track: OpusTrack | None
) -> None:
    """Sources, motion and sound, interleaved by time: sources that are not sent upfront precede the motion that needs
    them."""
    sound = audio_records(track) if track is not None else iter(())
    heard, sent = 0.0, 0
    fps = float(writer.header.fps)

    for packet in motion:
        due = before(coded.packets, coded.plan, packet.first + packet.count)
        writer.write_sources(coded.packets[sent:due])
        sent = due
        while track is not None and heard <= packet.first / fps and (record := next(sound, None)):
            writer.write_audio(record)
            heard = (record.first + len(record.packets) * track.packet_samples) / AUDIO_RATE
        writer.write_motion(packet)
    for record in sound:
        writer.write_audio(record)


def audio_records(track: OpusTrack) -> Iterator[AudioPacket]:
    """The sound in records of about AUDIO_RECORD_S."""
    each = max(1, round(AUDIO_RECORD_S * AUDIO_RATE / track.packet_samples))
    first, waiting = 0, []
    for packet in track:
        waiting.append(packet)
        if len(waiting) == each:
            yield AudioPacket(first, tuple(waiting))
            first, waiting = first + each * track.packet_samples, []
    if waiting:
        yield AudioPacket(first, tuple(waiting))


def summarise(spent: dict[str, int], frames: int, fps: float, size: int, sources: int) -> dict[str, Any]:
    seconds = frames / fps
    total = sum(spent.values())
    rate = {
        "total": total,
        "video": total - spent["audio"],
        "sources": spent["sources"],
        "motion": spent["motion"],
    }
    return {
        "frames": frames,
        "fps": round(fps, 3),
        "duration_s": round(seconds, 3),
        "size": size,
        "sources": sources,
        "bytes": {"total": total, **spent},
        "kbps": {name: round(count * 8 / 1000 / seconds, 3) for name, count in rate.items()},
    }


def verify(target: Path, video: Footage, chosen: tuple[int, ...], runtime: Runtime, tell: Progress) -> dict[str, float]:
    """Decode the file and compare with the original. The copy is for each frame the best of the uncoded sources near
    it: all of them unless they are many."""
    ours, copies = [], []
    sources = Copies(video, chosen)
    with IwcFile(target, runtime) as file:
        for number, (shown, original) in enumerate(zip(held_to_the_end(file), video.pictures(), strict=False)):
            ours.append(psnr(shown, original))
            copies.append(max(psnr(source, original) for source in sources.near(number)))
            if number % 10 == 0:
                tell("verifying", number / len(video.crops))
    return {"psnr_db": round(float(np.mean(ours)), 3), "copy_psnr_db": round(float(np.mean(copies)), 3)}


class Copies:
    """The uncoded sources: all where they are few, else those within two of a frame, found as frames ascend."""

    def __init__(self, video: Footage, frames: tuple[int, ...]) -> None:
        self._ascending = sorted(frames)
        self._many = len(frames) > CAPACITY
        self._coming = wanted(self._ascending, video.pictures, hold=False)
        self._held: dict[int, Picture] = {}

    def near(self, number: int) -> list[Picture]:
        at = bisect_left(self._ascending, number)
        last = self._ascending[min(at + 2, len(self._ascending)) - 1] if self._many else self._ascending[-1]
        while max(self._held, default=-1) < last and (found := next(self._coming, None)) is not None:
            self._held[found[0]] = found[1]
            if self._many and len(self._held) > 4:
                del self._held[min(self._held)]
        return list(self._held.values())
