"""Whole files: video -> .iwc -> video. Several streaming passes, never a whole video in memory."""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from . import framing, media
from .clip_motion import FINEST_SCALE, USUAL_SCALE, fitted_motion, from_sources, motion_size, quantised_motion, together
from .container import MOST_DAMAGE, ContainerReader, ContainerWriter, Header
from .dead_zone import choose_dead_zone
from .decoder import Decoder, Frame
from .errors import CodecError, FormatError, MediaError, NoFaceError, VersionError
from .finals import Stream, best_stream, receiver_of
from .media import Picture
from .models.runtime import ModelInfo, Runtime, load_runtime
from .motion import MOST_FRAMES as MOST_TOGETHER
from .motion import Quantiser
from .motion_tables import load_tables
from .packets import LARGEST_SLOT, AudioPacket, MotionPacket, Packet, SourcePacket
from .plans import CLOSE, PRESETS, Coded, Presets, before, code, fitted, sparse_plan, wanted
from .quality import psnr
from .ratecontrol import USUAL_MOTION, Choice, Stretch, best_active, choose, rate_for
from .refinement import KeypointFit, quick_fit
from .selection import Survey, thumbnail
from .transform_tables import load_transform_tables

AUTO_GAIN_DB = 0.12
"""`--sources auto` stops where one more source brings less than this on average."""
AUTO_SOURCES_KBPS = 1.5
"""`--sources auto` stops where the sources would cost more than this over the clip."""
SOURCE_BYTES = 450
"""What a further source costs, roughly; measured in benchmarks."""
MOST_SOURCE_BYTES = 1550
"""On average, at 256x256; sources that would take more, full of detail and unlike each other, are coded more coarsely.
Three then leave room for motion in 5 kbps from ten seconds on."""
MOST_SOURCES = 32
LOOKS = (0, 0, 1, 3)
"""For each effort, how often a frame is rebuilt and its keypoints corrected."""
EFFORT_PRESETS: tuple[Presets, ...] = ((4, 8), PRESETS, PRESETS, (0, 2))
"""For each effort, SVT-AV1's: where sources are few 0.1 s each, 0.5 s for 8 % fewer bytes, and 1.4 s for 11 %; where
they are many 6 ms, 18 ms for 0.9 dB more, and 50 ms for 1.2 dB."""
MOTION_KBPS, VIDEO_KBPS = 2.0, 4.9
"""Lively motion is quantised more coarsely where it would take more, or all would take more with the sources (of
256x256), unless a bitrate is asked for."""
LEAST_MOTION_KBPS = 1.0
"""Where the sources take nearly all of it by themselves."""
CHUNK_S = 2.0
"""Seconds of motion in one record: what seeking starts from, and what a damaged record loses."""
AUDIO_RECORD_S = 1.0
ENOUGH = 0.96
"""Share of what motion leaves to sources: where they take less, or more than there is, they are coded once more."""
HEADER_BYTES = 110
"""Of the container: header and footer, roughly."""
OPUS_PREROLL = media.AUDIO_RATE * 80 // 1000
"""Samples after which a decoder that begins anywhere has settled (RFC 7845, section 4.6)."""
LONGEST_SILENCE = 3600 * media.AUDIO_RATE
"""Samples of silence that a gap in the sound may be filled with."""
RECORDED_SOURCES = 128
"""Kept of a recorded call, which may go on for hours: which of them it kept itself, what was used says, and who begins
in the middle does not know that. 2 MB each."""
MOST_FRAMES = 10_000_000
"""Bound where the header does not say how many frames there are."""

Progress = Callable[[str, float], None]
"""Called with the name of the pass and the share of it that is done, 0..1."""


@dataclass(frozen=True)
class EncodeOptions:
    size: int = 256
    sources: int | None = None
    """None chooses."""
    kbps: float | None = None
    """Bound on the video's bitrate, kept by the number and the quality of the sources, and how finely motion is coded;
    where the number is given, by the others."""
    quality_db: float | None = None
    """Mean PSNR to be had at the least bitrate."""
    crop: str = "face"
    audio: bool = True
    audio_bitrate: int = 12_000
    effort: int = 1
    """0 fits the keypoints to the real motion as calls do; 1 tries several sources, and takes its time; 2 and 3 look at
    what will be rebuilt, and correct it: see LOOKS."""
    verify: bool = False
    overwrite: bool = False


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


@dataclass(frozen=True)
class Footage:
    """A video on a regular grid, with the crop of every frame."""

    path: Path
    info: media.MediaInfo
    crops: list[framing.Crop]
    size: int

    def pictures(self) -> Iterator[Picture]:
        frames = media.at_constant_rate(media.read_video(self.path), self.info.fps)
        # The first pass counted the frames, and a file may have changed since: the shorter wins.
        for picture, crop in zip(frames, self.crops, strict=False):
            yield framing.crop_resize(picture, crop, self.size)


@dataclass(frozen=True)
class Clip:
    """What the passes over a video have in common: what it shows, and what is to become of it."""

    video: Footage
    survey: Survey
    runtime: Runtime
    options: EncodeOptions

    @property
    def message_frames(self) -> int:
        """Frames whose motion is one record."""
        return min(MOST_TOGETHER, max(1, round(CHUNK_S * self.video.info.fps)))

    @property
    def seconds(self) -> float:
        return len(self.survey.keypoints) / float(self.video.info.fps)

    @property
    def presets(self) -> Presets:
        return EFFORT_PRESETS[self.options.effort]

    @property
    def budget(self) -> float | None:
        """Bytes that sources and motion may take; None where no bitrate is given."""
        return None if self.options.kbps is None else self.bytes_at(self.options.kbps)

    def bytes_at(self, kbps: float) -> float:
        """Bytes of sources and motion at a bitrate."""
        return max(1.0, kbps * 125 * len(self.survey.keypoints) / float(self.video.info.fps) - HEADER_BYTES)


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
    zone = choose_dead_zone(coded, motion, frames, video.pictures, runtime, receiver, leaving_out)
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


def load_runtime_for(size: int, threads: int | None = None) -> Runtime:
    """The shipped model of that size. Raises CodecError where there is none."""
    try:
        return load_runtime(f"lite-{size}", threads=threads)
    except FileNotFoundError as error:
        raise CodecError(f"There is no model for pictures of {size} pixels: {error}.") from error


def check_target(target: Path, overwrite: bool) -> None:
    """Raises MediaError, naming the flag that helps."""
    if target.is_dir():
        raise MediaError(f"{target} is a folder; give a file name.")
    if target.exists() and not overwrite:
        raise MediaError(f"{target} exists; use -f to overwrite it.")
    if not target.absolute().parent.is_dir():
        raise MediaError(f"The folder {target.absolute().parent} does not exist.")


def read_clip(path: Path, runtime: Runtime, options: EncodeOptions, tell: Progress) -> Clip:
    """The first two passes. Raises MediaError, NoFaceError, CodecError."""
    video = frame_input(path, options, tell)
    return Clip(video, survey_clip(video, runtime, tell), runtime, options)


def frame_input(path: Path, options: EncodeOptions, tell: Progress) -> Footage:
    """First pass: how long the video is and where the face is."""
    info = media.probe(path)
    fixed = framing.parse_crop(options.crop, info.width, info.height)
    look = options.crop == "face"
    detector = framing.FaceDetector() if look else None
    faces: list[list[framing.Face] | None] = []
    expected = info.frames or 1
    for number, picture in enumerate(media.at_constant_rate(media.read_video(path), info.fps)):
        seen = detector.detect(picture) if detector and number % framing.DETECT_EVERY == 0 else None
        faces.append(seen)
        if seen and fixed is not None:
            detector = None  # a square picture is taken whole: that there is somebody is all that matters
        if number % 25 == 0:
            tell("looking for the speaker" if look else "reading", min(1.0, number / expected))
    if not faces:
        raise MediaError(f"{path} holds no frames.")
    if look and not any(faces):
        raise NoFaceError(f"No face was found in {path.name}; use --crop none or --crop X,Y,SIDE to code it anyway.")
    if fixed is not None:
        crops = [fixed] * len(faces)
    else:
        crops = framing.plan_crops(faces, info.width, info.height, float(info.fps))
    return Footage(path, info, crops, options.size)


def survey_clip(video: Footage, runtime: Runtime, tell: Progress) -> Survey:
    """Second pass: keypoints and thumbnails of every frame."""
    thumbnails, keypoints = [], []
    for number, picture in enumerate(video.pictures()):
        keypoints.append(runtime.detect(picture))
        thumbnails.append(thumbnail(picture))
        if number % 25 == 0:
            tell("finding keypoints", number / len(video.crops))
    return Survey(np.stack(thumbnails), np.stack(keypoints))


def choose_sources_and_motion(clip: Clip, tell: Progress) -> list[Choice]:
    """Further passes: choose the frames that become sources, and encode them. Several where only the whole clip can
    tell which is best."""
    survey, pictures, runtime, length = clip.survey, clip.video.pictures, clip.runtime, clip.message_frames
    kbps = clip.options.kbps
    if kbps is not None and clip.options.sources is None:
        return choose(survey, pictures, runtime, clip.bytes_at(kbps), kbps, length, tell, clip.presets)
    coded = code_sources(clip, tell)
    if len(coded.packets) == 1:
        return [Choice(coded, 1)]
    tell("choosing sources", 1.0)
    return [Choice(coded, best_active(coded, Stretch(survey, pictures, runtime, length)))]


def part_of(tell: Progress, number: int, count: int) -> Progress:
    """Tells of one of so many passes of the same name."""
    return lambda name, share: tell(name, (number + share) / count)


def code_stream(choice: Choice, clip: Clip, tell: Progress) -> Stream:
    """The motion that goes with the sources; they are coded anew where it takes less, or more, than was thought."""
    motion = code_motion(choice, clip, tell)
    if clip.budget is not None:
        left = max(1.0, clip.budget - motion_size(motion))
        if not ENOUGH * left <= choice.coded.size <= left * (1 + CLOSE):
            anew = fitted(choice.coded.plan, clip.video.pictures, clip.options.size, left, clip.presets)
            choice = replace(choice, coded=anew)
            motion = code_motion(choice, clip, tell)
    return Stream(choice.coded, motion, choice.active)


def code_motion(choice: Choice, clip: Clip, tell: Progress) -> list[MotionPacket]:
    """Another pass: fit the motion to the sources as they are coded, and quantise it. Sources that are coded anew need
    it anew: other keypoints are found in them."""
    decoder = Decoder(clip.runtime, capacity=MOST_SOURCES, active=choice.active)
    length = together(choice.coded.plan, clip.message_frames)
    found = fitted_motion(
        clip.video.pictures(),
        clip.survey.keypoints,
        choice.coded,
        length,
        decoder,
        fit_for(clip.options.effort),
        partial(tell, "fitting the motion"),
    )
    most = motion_budget(choice.coded, clip)
    finest = USUAL_SCALE if clip.budget is None else FINEST_SCALE
    return quantised_motion(from_sources(found, decoder), length, most, choice.scale, finest)


def code_sources(clip: Clip, tell: Progress) -> Coded:
    """As many sources as were asked for, or as pay, at the usual quality, or at what the bitrate leaves beside motion
    until that is known."""
    tell("coding sources", 0.0)
    options, pictures, presets = clip.options, clip.video.pictures, clip.presets
    if options.sources is not None:
        plan = sparse_plan(clip.survey, options.sources)
        if clip.budget is not None:
            left = max(1.0, clip.budget * (1 - USUAL_MOTION))
            return fitted(plan, pictures, options.size, left, presets)
    else:
        most = 1 + int(max(0.0, AUTO_SOURCES_KBPS * 125 * clip.seconds - 3 * SOURCE_BYTES) / SOURCE_BYTES)
        plan = sparse_plan(clip.survey, min(MOST_SOURCES, most), least_gain_db=AUTO_GAIN_DB)
    coded = code(plan, wanted(plan.frames, pictures, hold=True), options.size, presets)
    held = MOST_SOURCE_BYTES * larger(options.size) * len(coded.packets)
    if coded.size <= held:
        return coded
    return fitted(plan, pictures, options.size, held, presets)


def fit_for(effort: int) -> KeypointFit:
    return KeypointFit(LOOKS[effort]) if effort else quick_fit()


def larger(size: int) -> float:
    """How many times the bits pictures of that size take, at most, where those of 256x256 are held to some."""
    return max(1.0, size / 256)


def motion_budget(coded: Coded, clip: Clip) -> float:
    """Bytes that motion may take."""
    if clip.budget is not None:
        return max(1.0, clip.budget - coded.size)
    kbps = 125 * len(clip.survey.keypoints) / float(clip.video.info.fps)
    left = VIDEO_KBPS * larger(clip.options.size) * kbps - coded.size - HEADER_BYTES
    return min(max(left, LEAST_MOTION_KBPS * kbps), MOTION_KBPS * kbps)


def make_header(info: ModelInfo, video: Footage, frames: int, active: int, dead_zone: int) -> Header:
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
        dead_zone=dead_zone,
    )


def open_audio(video: Footage, options: EncodeOptions, frames: int) -> media.OpusTrack | None:
    if not options.audio:
        return None
    return media.read_audio_opus(video.path, options.audio_bitrate, duration_s=float(frames / video.info.fps))


def write_streams(
    writer: ContainerWriter, motion: Sequence[MotionPacket], coded: Coded, track: media.OpusTrack | None
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
            heard = (record.first + len(record.packets) * track.packet_samples) / media.AUDIO_RATE
        writer.write_motion(packet)
    for record in sound:
        writer.write_audio(record)


def audio_records(track: media.OpusTrack) -> Iterator[AudioPacket]:
    """The sound in records of about AUDIO_RECORD_S."""
    each = max(1, round(AUDIO_RECORD_S * media.AUDIO_RATE / track.packet_samples))
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
        self._many = len(frames) > MOST_SOURCES
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


class IwcFile:
    """An .iwc file opened for decoding; a context manager.

    Raises FormatError for a file that is none, VersionError for one that needs another version or model.
    """

    def __init__(self, path: str | Path, runtime: Runtime | None = None) -> None:
        path = Path(path)
        if not path.is_file():
            raise MediaError(f"{path} does not exist." if not path.exists() else f"{path} is not a file.")
        self.reader = ContainerReader(path)
        try:
            self.header = self.reader.header
            self._check_tables()
            self.runtime = runtime or load_runtime_of(self.header)
            check_model(self.header, self.runtime.info)
        except BaseException:
            self.reader.close()
            raise
        self.bad: list[str] = []
        """What could not be decoded although its checksum was right: each place once, however often it is read, and
        MOST_DAMAGE of them at most."""

    def __enter__(self) -> "IwcFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.reader.close()

    def _check_tables(self) -> None:
        here = (load_transform_tables().id, load_tables().id)  # of encoded files, and of recorded calls
        if self.header.tables not in here:
            raise VersionError(
                f"This file was coded with motion tables {self.header.tables:08x}; "
                f"this version has {here[0]:08x} and {here[1]:08x}."
            )

    def decoder(self) -> Decoder:
        quantiser = Quantiser(self.header.step_xy, self.header.step_strength)
        recorded = self.header.tables == load_tables().id
        capacity = RECORDED_SOURCES if recorded else MOST_SOURCES
        zone = self.header.dead_zone / 10
        return Decoder(self.runtime, quantiser, capacity=capacity, active=self.header.active, dead_zone=zone)

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """Rebuilt frames from number `start` on. Frames whose record is damaged are missing; `damage` names them."""
        decoder, due = self.decoder(), 0
        for packet in self.reader.seek(start) if start else self.reader.records():
            if isinstance(packet, SourcePacket):
                if packet.slot != due:  # where a recorded call began anew it goes on with a key picture
                    decoder.miss_sources()
                due = (packet.slot + 1) % (LARGEST_SLOT + 1)
            if isinstance(packet, SourcePacket | MotionPacket):
                try:
                    yield from (frame for frame in decoder.push(packet) if frame.number >= start)
                except FormatError as error:
                    kind, number = (
                        ("source", packet.slot) if isinstance(packet, SourcePacket) else ("motion", packet.first)
                    )
                    self._note(kind, number, error)

    def samples(self, start: int = 0) -> Iterator[media.Samples]:
        """The sound from sample `start` on as mono int16 blocks at 48 kHz; what is missing or damaged is silent."""
        audio = self.header.audio
        if audio is None:
            return
        wanted = start + audio.pre_skip
        for at, block in self._decoded(media.OpusReader(pre_skip=0), max(0, wanted - OPUS_PREROLL)):
            if at + len(block) > wanted:
                yield block[max(0, wanted - at) :]

    def _decoded(self, opus: media.OpusReader, begin: int) -> Iterator[tuple[int, media.Samples]]:
        """Blocks, and which sample their first is, from a sample on; both counted with the pre-skip."""
        at = None
        for packet in from_sample(self.reader.records(), begin):
            if at is None:
                at = min(begin, packet.first)
            if packet.first < at:
                continue
            for block in silence(min(packet.first - at, LONGEST_SILENCE)):
                yield at, block
                at += len(block)
            at = packet.first
            for piece in packet.packets:
                try:
                    block = opus.decode(piece)
                except FormatError as error:
                    self._note("sound", at, error)
                    block = opus.decode(None)
                yield at, block
                at += len(block)

    def _note(self, kind: str, number: int, error: FormatError) -> None:
        line = f"{kind} {number}: {error}"
        if line not in self.bad and len(self.bad) < MOST_DAMAGE:
            self.bad.append(line)

    @property
    def damage(self) -> list[str]:
        return [*self.reader.damage, *self.bad]


def from_sample(packets: Iterable[Packet], begin: int) -> Iterator[AudioPacket]:
    """The sound of a file from the last packet on that begins no later than this sample."""
    held: AudioPacket | None = None
    for packet in packets:
        if not isinstance(packet, AudioPacket):
            continue
        if held is not None and packet.first > begin:
            yield held
        held = packet
    if held is not None:
        yield held


def silence(count: int) -> Iterator[media.Samples]:
    """So many samples, a second at a time."""
    for begin in range(0, count, media.AUDIO_RATE):
        yield np.zeros(min(media.AUDIO_RATE, count - begin), np.int16)


def load_runtime_of(header: Header) -> Runtime:
    """The shipped model of the file's size. Raises VersionError, naming the one that is needed, where there is none."""
    try:
        return load_runtime_for(header.size)
    except CodecError as error:
        raise VersionError(
            f"This file needs the model {header.model_id} ({header.model_digest.hex()}), which is not installed."
        ) from error


def check_model(header: Header, info: ModelInfo) -> None:
    """Raises VersionError, naming what is needed."""
    if (header.model_id, header.model_digest) != (info.model_id, info.digest):
        raise VersionError(
            f"This file needs the model {header.model_id} ({header.model_digest.hex()}); "
            f"this installation has {info.model_id} ({info.digest.hex()})."
        )


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
    media.check_writable(target)
    tell, started = progress or (lambda name, share: None), time.monotonic()
    with IwcFile(source, runtime) as file:
        header = file.header
        sound = header.audio is not None and target.suffix.lower() != ".y4m"
        written = 0
        with media.VideoWriter(target, (header.size, header.size), header.fps, sound) as writer:
            samples = file.samples() if sound else iter(())
            waiting, heard = np.zeros(0, np.int16), 0
            for picture in held_to_the_end(file):
                writer.write(picture)
                written += 1
                due = int(written * media.AUDIO_RATE / header.fps) - heard
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


def held_to_the_end(file: IwcFile) -> Iterator[Picture]:
    """A file's pictures. Where records are damaged the last picture stands for what they held at the end, at most a
    message for each: a forged number of frames must not fill the disk, nor one that is forged alike in the header and
    in a record."""
    written, held = 0, None
    for held in filled(file.frames(), min(file.header.frames or MOST_FRAMES, file.reader.most_frames)):
        written += 1
        yield held
    if held is not None and not file.reader.truncated:
        for _ in range(min(file.header.frames - written, len(file.damage) * MOST_TOGETHER)):
            yield held


def filled(frames: Iterator[Frame], limit: int) -> Iterator[Picture]:
    """Pictures on the regular grid: a missing frame repeats the one before it (the first ones, the one after).

    Frames that claim to lie beyond `limit` are left out: a forged number must not fill the disk.
    """
    written, held = 0, None
    for frame in frames:
        if not written <= frame.number < limit:
            continue
        while written < frame.number:
            yield frame.picture if held is None else held
            written += 1
        yield frame.picture
        written, held = frame.number + 1, frame.picture
