"""Encode a video file into an .iwc file, in several streaming passes."""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.arguments import check_callback, check_path, check_runtime
from iwcodec.codec.bitstream.header import Header
from iwcodec.codec.bitstream.index import Quality
from iwcodec.codec.bitstream.packets import AudioPacket, MotionPacket
from iwcodec.codec.bitstream.writer import ContainerWriter, add_quality
from iwcodec.codec.errors import MediaError, OptionError
from iwcodec.codec.file.clip import Clip, Footage, read_clip
from iwcodec.codec.file.encode_progress import whole_progress
from iwcodec.codec.file.iwc_file import IwcFile, all_pictures
from iwcodec.codec.file.options import EncodeKeywords, EncodeOptions, Progress
from iwcodec.codec.file.passes import (
    choose_sources_and_motion,
    code_finer,
    code_stream,
    part_of,
    reserve_for_variants,
    with_usual_rate,
)
from iwcodec.codec.file.rate_control.closed_loop import (
    Stream,
    best_stream,
    choose_suppression,
    evaluated_frames,
    stream_quality,
)
from iwcodec.codec.file.rate_control.face_check import misleading_sources
from iwcodec.codec.file.rate_control.quick_trials import QuickTrials
from iwcodec.codec.file.rate_control.search import lowest_rate
from iwcodec.codec.file.rate_control.source_plan import CodedSources, pictures_of, sources_due
from iwcodec.codec.file.rate_control.variant_selection import add_variants, stream_size
from iwcodec.codec.media.audio.opus_track import OpusTrack, read_audio_opus
from iwcodec.codec.media.quality import psnr
from iwcodec.codec.media.spool import local_input
from iwcodec.codec.media.types import AUDIO_RATE, Picture
from iwcodec.codec.media.video import probe
from iwcodec.codec.media.writer import check_target
from iwcodec.codec.motion.transform_tables import load_transform_tables
from iwcodec.codec.motion.types import Quantiser
from iwcodec.codec.parallel import in_order, one_thread_each
from iwcodec.codec.shipped_model import load_runtime_for
from iwcodec.codec.sources.library import CAPACITY
from iwcodec.models.runtime.types import ModelInfo, Runtime

USUAL_FRAMES = 1000
"""Frames of a clip of unknown length, for the progress report."""
AUDIO_RECORD_S = 1.0
"""Seconds of sound in one record."""
MAX_UNSPENT, SPENT_AGAIN = 0.05, 0.8
"""Share of all bytes that variants may leave. On a calm face few are worth their bytes: then sources are coded again,
once, and get the second share of what is left."""
MAX_CODINGS, MEASURED_FRAMES = 3, 32
"""Bitrates at most at which a clip is coded to reach a quality, and the frames whose PSNR is measured."""
MAX_DAMAGED_SOUND = 2
"""Packets of sound that may be damaged without a warning: the first of an MP3 refer to others that may be cut off."""


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
    worst_psnr_db: float | None = None
    """Mean PSNR of the worst second of the decoded file; None unless verified."""
    worst_at_s: float | None = None
    """Where that second begins."""
    warnings: tuple[str, ...] = ()
    """What of the input could not be read or is not coded, one sentence each."""


def encode(
    source: str | Path,
    target: str | Path,
    options: EncodeOptions | None = None,
    runtime: Runtime | None = None,
    progress: Progress | None = None,
    **keywords: Unpack[EncodeKeywords],
) -> EncodeReport:
    """Encode a video file into an .iwc file. The output appears only when it is complete.

        iwcodec.encode("talk.mp4", "talk.iwc", kbps=4, effort=0)

    `source`: any video that FFmpeg reads: a path, also of a pipe, "-" for standard input, or an http, https or file
    URL. `target`: a path that ends in .iwc. `runtime`: the network, from
    `load_runtime`; by default the shipped one for the size. `progress`: called with the name of the current pass and
    the share of the whole encode that is done (0..1).

    The options may be given as keywords, as one `EncodeOptions`, or both (keywords win):

    size           side of the coded square in pixels, 256 (default) or 512
    kbps           upper bound on the video's bitrate in kbit/s, without sound; default: 4 at 256 x 256, and less where
                   that suffices
    quality_db     mean PSNR to reach, 15 to 50 dB, instead of a bitrate
    sources        number of source pictures, 1 to 32; default: chosen
    crop           "face" (default) follows the speaker, "none" is the centre square, "X,Y,SIDE" in pixels
    face           "largest" (default), the number of a face from the left ("2"), or "X,Y" in pixels near it
    tune           "face" (default), which spends bits on eyes and mouths, or "psnr"
    effort         0 (fastest) to 3, default 2
    audio          whether to code the sound, default True
    audio_bitrate  bit/s of the sound, default 12000
    start_s, duration_s        part of the input to code, in seconds
    video_track, audio_track   which tracks of the input, from 1; default: the best ones
    verify         decode the result, report its PSNR and note it in the file, default False
    overwrite      replace an existing target, default False

    Raises OptionError for impossible options, MediaError if the input cannot be read or the output not be written,
    NoFaceError if there is no speaker; all are CodecErrors.
    """
    if not isinstance(options, EncodeOptions | None):
        raise OptionError(f"options must be EncodeOptions, not {type(options).__name__}; or give them as keywords.")
    check_callback("progress", progress)
    options, progress = (options or EncodeOptions()).with_keywords(keywords), progress or (lambda name, share: None)
    options.check_target()
    check_path("source", source)
    target = check_path("target", target)
    check_target(target, options.overwrite)
    if target.suffix.lower() != ".iwc":
        raise MediaError(f"The output must end in .iwc, not {target.suffix or target.name!r}.")
    started = time.monotonic()
    # Passes work on two frames at once, so each of them has one thread.
    given = None if runtime is None else check_runtime(runtime)
    runtime = given or load_runtime_for(options.size, threads=1)
    if runtime.info.size != options.size:
        raise OptionError(
            f"The model {runtime.info.model_id} makes pictures of {runtime.info.size}, not {options.size}."
        )
    with local_input(source) as path, one_thread_each():
        return _encode(path, target, options, runtime, progress, started)


def _encode(
    source: Path, target: Path, options: EncodeOptions, runtime: Runtime, progress: Progress, started: float
) -> EncodeReport:
    progress = whole_progress(progress, options, expected_frames(source, options))
    clip = read_clip(source, runtime, options, progress)
    estimated = options.tune == "face" or clip.effort.single_pass
    if estimated and clip.survey.regions is None:  # its keypoints miss the face
        options = replace(options, tune="psnr")
        clip = replace(clip, options=options)
    video, quick = clip.video, None
    rated = options.sources is None and options.kbps is None
    if rated or (estimated and options.sources is None):
        progress("choosing sources", 0.0)
        presets, single_pass = clip.effort.presets, clip.effort.single_pass
        quick = QuickTrials(clip.survey, video.pictures, runtime, clip.message_frames, presets, single_pass)
        clip = with_usual_rate(clip, quick, progress) if rated else clip
    code = partial(code_clip, quick=quick, binding=options.kbps is not None, progress=progress)
    stream, suppression = code(clip) if options.quality_db is None else code_to_quality(clip, options.quality_db, code)
    frames = len(clip.survey.keypoints)
    header = make_header(runtime.info, video, frames, stream.active, suppression)
    track = open_audio(video, options, frames)
    if track is not None:
        header = header.with_audio(track.pre_skip, track.packet_samples)
    with ContainerWriter(target, header) as writer:
        write_streams(writer, stream.motion, stream.coded, track)
    sizes, quality, fps = dict(writer.bytes), dict[str, Any](), float(video.info.fps)
    if options.verify:
        quality = verify(target, video, stream.coded.plan.frames, runtime, progress)
        measured = Quality(quality["psnr_db"], quality["worst_psnr_db"], round(quality["worst_at_s"] * fps))
        sizes["container"] += add_quality(target, measured)
    report = summarise(sizes, frames, fps, options.size, stream.coded)
    warnings = (*video.warnings, *sound_warnings(source, track))
    return EncodeReport(**report, seconds=round(time.monotonic() - started, 2), **quality, warnings=warnings)


def code_to_quality(clip: Clip, quality_db: float, code: Callable[[Clip], tuple[Stream, int]]) -> tuple[Stream, int]:
    """Code a clip at its bitrate and, where the PSNR of the result differs from that asked for, at others. `code`: as
    `code_clip`."""
    numbers = sorted(evaluated_frames(len(clip.survey.keypoints), MEASURED_FRAMES))
    originals, start = dict(pictures_of(numbers, clip.video.pictures, hold=False)), clip.options.kbps
    coded: dict[float, tuple[Stream, int]] = {}
    assert start is not None

    def quality(kbps: float) -> float:
        coded[kbps] = code(replace(clip, options=replace(clip.options, kbps=kbps)))
        return stream_quality(coded[kbps][0], originals, clip.runtime)

    return coded[lowest_rate(quality_db, quality, start=start, attempts=MAX_CODINGS)]


def code_clip(clip: Clip, quick: QuickTrials | None, binding: bool, progress: Progress) -> tuple[Stream, int]:
    """Choose and code sources, motion and variants, and choose the small-shift suppression, in tenths of a pixel.
    `binding`: whether what variants leave of the bitrate goes to sources."""
    survey, pictures, runtime = clip.survey, clip.video.pictures, clip.runtime
    shared, reserved = reserve_for_variants(clip)
    choices = choose_sources_and_motion(shared, progress, quick)
    if choices[0].coded.plan.upfront:
        clip = shared
    else:  # many frames are sources themselves: there are no variants
        reserved = 0.0
    streams = [
        code_stream(choice, clip, part_of(progress, number, len(choices))) for number, choice in enumerate(choices)
    ]
    frames, faces = len(survey.keypoints), survey.faces
    stream = best_stream(streams, frames, pictures, runtime, faces, partial(progress, "comparing"))
    with ThreadPoolExecutor(1) as pool:
        # Independent of each other, and both in part on one core.
        suppression = None
        if not clip.effort.single_pass:
            suppression = pool.submit(choose_suppression, stream, frames, pictures, runtime)
        if faces is not None:
            most = stream_size(stream) + reserved
            tuned = add_face(stream, clip, faces, reserved, progress)
            unspent = most - stream_size(tuned)
            if binding and unspent > MAX_UNSPENT * most:
                stream = code_finer(stream, SPENT_AGAIN * unspent, clip, progress)
                tuned = add_face(stream, clip, faces, most - stream_size(stream), progress)
            stream = tuned
        return stream, 0 if suppression is None else suppression.result()


def add_face(stream: Stream, clip: Clip, faces: NDArray[np.float32], budget: float, progress: Progress) -> Stream:
    """Add variants and the sources that eyes and mouths show, in about `budget` bytes. `faces`: keypoints (n, K, 3) of
    all frames."""
    misleading = misleading_sources(stream, faces, clip.runtime)
    report = partial(progress, "choosing eyes and mouths")
    pictures, expressive = clip.video.pictures, not clip.effort.single_pass
    return add_variants(stream, len(faces), pictures, clip.runtime, budget, report, misleading, expressive)


def expected_frames(source: Path, options: EncodeOptions) -> int:
    """Frames of the part of the input to code, as its container states; a guess if it does not. Raises MediaError."""
    info = probe(source, options.tracks)
    frames = (info.frames or USUAL_FRAMES) - round(options.start_s * info.fps)
    return max(1, frames if options.duration_s is None else min(frames, round(options.duration_s * info.fps)))


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
    duration_s = float(frames / video.info.fps)
    return read_audio_opus(
        video.path, options.audio_bitrate, start=video.start_s, duration_s=duration_s, tracks=video.tracks
    )


def sound_warnings(path: Path, track: OpusTrack | None) -> list[str]:
    """What of the sound could not be read, once it has been."""
    damaged = 0 if track is None else track.tally.damaged
    if damaged <= MAX_DAMAGED_SOUND:
        return []
    return [f"{damaged} packets of the sound of {path.name} cannot be decoded; they are silent."]


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
    near each frame (the best of all sources unless they are many); and the worst second."""
    decoded_db, copied_db = [], []
    sources = UncodedSources(video, source_frames)
    with IwcFile(target, runtime) as file:
        pairs = enumerate(zip(all_pictures(file), video.pictures(), strict=False))
        shown = ((decoded, original, sources.near(number)) for number, (decoded, original) in pairs)
        for number, (decoded, copied) in enumerate(in_order(_compared, shown)):
            decoded_db.append(decoded)
            copied_db.append(copied)
            if number % 10 == 0:
                progress("verifying", number / len(video.crops))
    at, worst_db = worst_stretch(decoded_db, max(1, round(video.info.fps)))
    return {
        "psnr_db": round(float(np.mean(decoded_db)), 3),
        "copy_psnr_db": round(float(np.mean(copied_db)), 3),
        "worst_psnr_db": round(worst_db, 3),
        "worst_at_s": round(at / float(video.info.fps), 3),
    }


def _compared(shown: tuple[Picture, Picture, Sequence[Picture]]) -> tuple[float, float]:
    """PSNR of a decoded picture, and of the best source, with the original: (decoded, original, sources)."""
    decoded, original, sources = shown
    return psnr(decoded, original), max(psnr(source, original) for source in sources)


def worst_stretch(values: Sequence[float], length: int) -> tuple[int, float]:
    """Return the beginning and the mean of the `length` consecutive values (or all) with the lowest mean."""
    length = min(length, len(values))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    means = (sums[length:] - sums[:-length]) / length
    at = int(means.argmin())
    return at, float(means[at])


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
