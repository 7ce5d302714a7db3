"""Video and sound files in and out, through FFmpeg's libraries (PyAV).

Everything streams: at no time is more than a few pictures of a file in memory. Times are seconds on the
file's own timeline, whose zero is the start of its video stream; sound is put on the same timeline, so that
sample ``n`` of :func:`read_samples` belongs to the instant ``start + n / 48000`` of the pictures.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self

import av
import numpy as np
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from iwcodec.codec.errors import FormatError, MediaError

Picture = NDArray[np.uint8]
Samples = NDArray[np.int16]

AUDIO_RATE = 48_000  # Hz: Opus knows no other clock (RFC 7845, section 4)
WRITABLE = (".mp4", ".mkv", ".y4m")

_RATES = tuple(Fraction(n) for n in (10, 12, 15, 20, 24, 25, 30, 48, 50, 60, 90, 100, 120)) + tuple(
    Fraction(n * 1000, 1001) for n in (15, 24, 30, 48, 60, 120)
)
_FALLBACK_RATE = Fraction(25)
_LONGEST_GAP_S = 60.0  # a longer silence of the timestamps is a fault of the file's clock, not a pause
_SYNC_TOLERANCE = AUDIO_RATE // 50  # 20 ms: containers round timestamps; smaller differences are not gaps


@dataclass(frozen=True)
class AudioInfo:
    """The sound of a file: its codec's name, sampling rate in Hz, channels, and start in seconds after the
    first picture (negative: before it)."""

    codec: str
    rate: int
    channels: int
    start_s: float


@dataclass(frozen=True)
class MediaInfo:
    """A video file as :func:`read_video` will deliver it.

    ``width`` and ``height`` hold after rotation and with square pixels. ``fps`` is the mean rate, between 1
    and 120, close to a usual rate rounded to it. ``duration_s`` is None for a file that does not say;
    ``frames`` estimates how many pictures that makes at ``fps``. ``rotation`` is what the file's metadata
    asks for, in degrees clockwise: 0, 90, 180 or 270 (before any mirroring from left to right).
    """

    width: int
    height: int
    fps: Fraction
    duration_s: float | None
    frames: int | None
    rotation: int
    audio: AudioInfo | None


@dataclass(frozen=True)
class VideoFrame:
    """One decoded picture, uint8 RGB (H, W, 3), and its time in seconds."""

    time_s: float
    picture: Picture


def sample_clip() -> Path:
    """The short clip that comes with the package (its credits: ``data/SAMPLE.md``)."""
    return Path(__file__).parents[1] / "data" / "sample.mp4"


# ---------------------------------------------------------------------------------------------- reading


def probe(path: str | Path) -> MediaInfo:
    """Describes a video file, decoding its first picture. Raises MediaError as :func:`read_video` does."""
    with _opened(path) as container:
        video = _video_stream(container, path)
        audio = _audio_stream(container)
        frame = next(_decoded(container, video), None)
        if frame is None:
            raise MediaError(f"{path} holds no picture that can be decoded.")
        width, height = _square_pixels(video, frame)
        turn = _display_matrix(frame)
        if turn[0] == 0:
            width, height = height, width
        fps = _frame_rate(video)
        duration = _duration(container, video)
        return MediaInfo(
            width=width,
            height=height,
            fps=fps,
            duration_s=duration,
            frames=None if duration is None else max(1, round(duration * fps)),
            rotation=_clockwise(turn),
            audio=None if audio is None else _audio_info(audio, _origin(video)),
        )


def read_video(path: str | Path, start: float = 0.0) -> Iterator[VideoFrame]:
    """The pictures of a video file in the order they are shown, from ``start`` seconds on.

    Handles whatever FFmpeg decodes. Rotation and mirroring of the metadata are applied, pixels made square,
    and if the size changes on the way later pictures are scaled to the first one's. Damaged stretches are
    left out. Raises MediaError (on the first ``next``) for a path that is missing, a folder, empty, not a
    video, or holds sound only.
    """
    with _opened(path) as container:
        stream = _video_stream(container, path)
        stream.thread_type = "AUTO"
        origin = _origin(stream)
        rate = _frame_rate(stream)
        if start > 0:
            _seek(container, start + origin)
        clock = _Clock(origin, free_start=start > 0)
        convert: _ToRgb | None = None
        for frame in _decoded(container, stream):
            time_s = clock(frame.time, float(1 / rate))
            convert = convert or _ToRgb(*_square_pixels(stream, frame))
            if time_s >= start - 0.5 / rate:
                yield VideoFrame(time_s, convert(frame))
        if convert is None:
            raise MediaError(f"{path} holds no picture that can be decoded.")


def at_constant_rate(frames: Iterable[VideoFrame], fps: Fraction, start: float = 0.0) -> Iterator[Picture]:
    """Puts frames of any timing on the regular grid ``start + n / fps``: for each instant the picture nearest
    in time. A repeated picture is the same object again, so ``is`` tells that nothing changed.
    """
    period = float(1 / fps)
    count, gap = 0, period
    held: VideoFrame | None = None
    for frame in frames:
        if held is not None:
            gap = frame.time_s - held.time_s
            while start + count * period < held.time_s + gap / 2:
                yield held.picture
                count += 1
        held = frame
    if held is None:
        return
    # Nothing says how long the last picture stays: as long as the one before, within reason.
    end = held.time_s + min(max(gap, period), 1.0) - period / 2
    while count == 0 or start + count * period < end:
        yield held.picture
        count += 1


@contextmanager
def _opened(path: str | Path) -> Iterator[InputContainer]:
    path = Path(path)
    try:
        if path.is_dir():
            raise MediaError(f"{path} is a folder, not a video file.")
        if not path.exists():
            raise MediaError(f"{path} does not exist.")
        if path.is_file() and path.stat().st_size == 0:
            raise MediaError(f"{path} is empty.")
        # An absolute path cannot be taken for a URL; tags in an unknown encoding are no reason to give up.
        container = av.open(str(path.resolve()), metadata_errors="ignore")
    except PermissionError as error:
        raise MediaError(f"{path} may not be read: permission denied.") from error
    except (av.FFmpegError, OSError, ValueError) as error:
        raise MediaError(f"{path} is not a video file that can be read ({_reason(error)}).") from error
    with container:
        if container.format.name == "tty":  # FFmpeg draws any .txt file as a terminal
            raise MediaError(f"{path} is a text file, not a video.")
        yield container


def _video_stream(container: InputContainer, path: str | Path) -> VideoStream:
    cover = av.stream.Disposition.attached_pic
    streams = [s for s in container.streams.video if not s.disposition & cover and s.codec_context is not None]
    if not streams:
        if _audio_stream(container) is not None:
            raise MediaError(f"{path} holds only sound, no video.")
        raise MediaError(f"{path} holds no video that can be decoded.")
    best = container.streams.best("video")
    return best if isinstance(best, VideoStream) and best in streams else streams[0]


def _audio_stream(container: InputContainer) -> AudioStream | None:
    best = container.streams.best("audio")
    return best if isinstance(best, AudioStream) and best.codec_context is not None else None


def _decoded(container: InputContainer, stream: VideoStream | AudioStream) -> Iterator[Any]:
    """The frames of a stream; damaged packets are skipped and an unreadable rest is dropped, as players do."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except (av.FFmpegError, OSError):
            packet = None
        if packet is None:
            return
        with suppress(av.FFmpegError):
            yield from packet.decode()


def _origin(stream: VideoStream | AudioStream) -> float:
    start = stream.start_time
    return 0.0 if start is None or stream.time_base is None else float(start * stream.time_base)


def _seek(container: InputContainer, time_s: float) -> None:
    with suppress(av.FFmpegError):  # what cannot seek is read from its beginning
        container.seek(max(0, int(time_s * av.time_base)))


def _duration(container: InputContainer, stream: VideoStream) -> float | None:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return None if container.duration is None else container.duration / av.time_base


def _frame_rate(stream: VideoStream) -> Fraction:
    for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if rate is not None and 1 <= rate <= 120:
            usual = min(_RATES, key=lambda r: abs(r - rate))
            # 0.04 %: less than half of what lies between 29.97 and 30.
            return usual if abs(rate / usual - 1) < Fraction(4, 10_000) else rate.limit_denominator(1001)
    return _FALLBACK_RATE


def _audio_info(stream: AudioStream, origin: float) -> AudioInfo:
    return AudioInfo(stream.codec_context.name, stream.rate, stream.channels, _origin(stream) - origin)


def _square_pixels(stream: VideoStream, frame: av.VideoFrame) -> tuple[int, int]:
    """Width and height, in the stored orientation, that show a frame undistorted without losing detail."""
    shape = stream.sample_aspect_ratio
    if shape is None or not Fraction(1, 4) <= shape <= 4:
        return frame.width, frame.height
    if shape >= 1:
        return round(frame.width * shape), frame.height
    return frame.width, round(frame.height / shape)


def _display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """The signs of (a, b, c, d) of the display matrix: the stored point (x, y) is shown at
    (a x + c y, b x + d y). The identity if there is none or it is no quarter turn."""
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return 1, 0, 0, 1
    a, b, _, c, d = np.sign(np.frombuffer(bytes(data), np.int32)[:5]).tolist()
    return (a, b, c, d) if (a, d).count(0) + (b, c).count(0) == 2 and a * d - b * c else (1, 0, 0, 1)


def _clockwise(turn: tuple[int, int, int, int]) -> int:
    a, b, c, d = turn
    if a * d - b * c < 0:  # mirrored left to right in the end: what was the turn before that?
        a = -a
    return {(1, 0): 0, (0, 1): 90, (-1, 0): 180, (0, -1): 270}[a, b]


class _ToRgb:
    """Decoded frames to RGB pictures of one size, upright."""

    def __init__(self, width: int, height: int) -> None:
        self._width, self._height = width, height
        self._reformatter = VideoReformatter()
        self._rotation: int | None = None
        self._turn = (1, 0, 0, 1)

    def __call__(self, frame: av.VideoFrame) -> Picture:
        planar = not frame.format.is_rgb and len(frame.format.components) >= 3
        full = frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")
        rgb = self._reformatter.reformat(
            frame,
            self._width,
            self._height,
            "rgb24",
            src_colorspace=_matrix(frame) if planar else None,
            src_color_range=(ColorRange.JPEG if full else ColorRange.MPEG) if planar else None,
        ).to_ndarray()
        if frame.rotation != self._rotation:
            # Asking for side data makes a reference cycle, which keeps a frame until the collector comes by, and that
            # is seldom: a file that is looped in a call would take a megabyte with every turn. A small frame has them
            # as well.
            self._rotation, self._turn = frame.rotation, _display_matrix(VideoReformatter().reformat(frame, 16, 16))
        return _turned(np.asarray(rgb, np.uint8), self._turn)


def _turned(picture: Picture, turn: tuple[int, int, int, int]) -> Picture:
    a, b, c, d = turn
    if a == 0:
        picture, right, down = picture.transpose(1, 0, 2), c, b
    else:
        right, down = a, d
    return np.ascontiguousarray(picture[::down, ::right])


def _matrix(frame: av.VideoFrame) -> Colorspace:
    """How the frame's YUV was made from RGB; where it does not say, what its height suggests."""
    named = {1: Colorspace.ITU709, 5: Colorspace.ITU601, 6: Colorspace.ITU601, 9: Colorspace.BT2020}
    return named.get(int(frame.colorspace), _usual_matrix(frame.height))  # keys: ITU-T H.273, table 4


def _usual_matrix(height: int) -> Colorspace:
    return Colorspace.ITU709 if height >= 720 else Colorspace.ITU601


class _Clock:
    """Timestamps to seconds after ``origin``: missing ones are guessed, leaps of the clock are taken out."""

    def __init__(self, origin: float, free_start: bool = False, end_s: float = 0.0) -> None:
        """``end_s``: no leap leads to before it, for the pictures go on until then."""
        self._shift = -origin
        self._expected = None if free_start else 0.0
        self._end_s = end_s

    def __call__(self, stamp: float | None, duration: float) -> float:
        expected = self._expected or 0.0
        time_s = expected if stamp is None else stamp + self._shift
        pause = expected <= time_s <= self._end_s
        if self._expected is not None and abs(time_s - expected) > _LONGEST_GAP_S and not pause:
            self._shift += expected - time_s
            time_s = expected
        self._expected = time_s + duration
        return time_s


# ------------------------------------------------------------------------------------------------ sound


def read_samples(path: str | Path, start: float = 0.0, duration_s: float | None = None) -> Iterator[Samples]:
    """The sound of a file as blocks of mono int16 samples at 48 kHz; nothing if it has none.

    The first sample belongs to the instant ``start`` of the pictures: sound that begins later is preceded by
    silence, gaps are filled with it, and what lies before is dropped. Ends after ``duration_s`` seconds.
    """
    with _opened(path) as container:
        stream = _audio_stream(container)
        if stream is None:
            return
        origin = _origin(_video_stream(container, path))
        if start > 0:
            _seek(container, start + origin)
        limit = None if duration_s is None else round(duration_s * AUDIO_RATE)
        end_s = 0.0 if duration_s is None else start + duration_s
        yield from _limited(_in_place(_resampled(container, stream), origin, start, end_s), limit)


def _resampled(container: InputContainer, stream: AudioStream) -> Iterator[av.AudioFrame]:
    """Mono int16 frames at 48 kHz from whatever the stream holds, even if that changes on the way."""
    resampler: AudioResampler | None = None
    current: tuple[str, str, int] | None = None
    for frame in _decoded(container, stream):
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if resampler is None or kind != current:
            if resampler is not None:
                yield from resampler.resample(None)
            resampler, current = AudioResampler(format="s16", layout="mono", rate=AUDIO_RATE), kind
        yield from resampler.resample(frame)
    if resampler is not None:
        yield from resampler.resample(None)


def _in_place(frames: Iterable[av.AudioFrame], origin: float, start: float, end_s: float = 0.0) -> Iterator[Samples]:
    """Blocks of samples without gaps or overlaps, the first sample at ``start`` seconds after ``origin``; the pictures
    are known to last until ``end_s``."""
    clock = _Clock(origin, start > 0, end_s)
    position = 0
    for frame in frames:
        samples = np.asarray(frame.to_ndarray().reshape(-1), np.int16)
        late = round((clock(frame.time, len(samples) / AUDIO_RATE) - start) * AUDIO_RATE) - position
        if late > (_SYNC_TOLERANCE if position else 0):
            position += late
            yield from (np.zeros(min(late - at, AUDIO_RATE), np.int16) for at in range(0, late, AUDIO_RATE))
        elif late < (-_SYNC_TOLERANCE if position else 0):
            samples = samples[-late:]
        position += len(samples)
        if len(samples):
            yield samples


def _limited(blocks: Iterable[Samples], limit: int | None) -> Iterator[Samples]:
    for block in blocks:
        if limit is not None:
            if limit <= 0:
                return
            block = block[:limit]
            limit -= len(block)
        yield block


class OpusWriter:
    """Mono int16 samples at 48 kHz to Opus packets (RFC 6716) of ``packet_ms`` (20, 40 or 60) milliseconds.

    A decoder must drop the first ``pre_skip`` samples it makes (RFC 7845, section 4.2). ``bitrate`` is in
    bits a second, from 6000 up, variable.
    """

    def __init__(self, bitrate: int = 12_000, packet_ms: int = 60) -> None:
        context = av.AudioCodecContext.create("libopus", "w")
        context.sample_rate, context.layout, context.format = AUDIO_RATE, "mono", "s16"
        context.bit_rate = bitrate
        context.options = {"application": "voip", "frame_duration": str(packet_ms)}
        context.open()
        self._context = context
        self._waiting = np.zeros(0, np.int16)
        self._position = 0
        self.packet_samples = packet_ms * AUDIO_RATE // 1000
        self.pre_skip = int.from_bytes(bytes(context.extradata or b"")[10:12], "little")

    def encode(self, samples: Samples) -> list[bytes]:
        """Takes any number of samples; returns the packets they complete."""
        self._waiting = np.concatenate([self._waiting, samples])
        packets: list[bytes] = []
        while len(self._waiting) >= self.packet_samples:
            block, self._waiting = np.split(self._waiting, [self.packet_samples])
            packets += [bytes(p) for p in self._context.encode(_audio_frame(block, self._position))]
            self._position += self.packet_samples
        return packets

    def flush(self) -> list[bytes]:
        """The last packets, padded with silence so that every sample comes out behind the pre-skip."""
        if self._position + len(self._waiting) == 0:
            return []
        missing = -(len(self._waiting) + self.pre_skip) % self.packet_samples
        packets = self.encode(np.zeros(self.pre_skip + missing, np.int16))
        return packets + [bytes(p) for p in self._context.encode(None)]


class OpusReader:
    """Opus packets back to mono int16 samples at 48 kHz; drops the first ``pre_skip`` of them."""

    def __init__(self, pre_skip: int) -> None:
        # Channel count from an identification header (RFC 7845, section 5.1). It says "no pre-skip", because
        # FFmpeg's versions differ in whether they drop it themselves.
        self._context = av.AudioCodecContext.create("libopus", "r")
        self._context.extradata = b"OpusHead\x01\x01\0\0" + AUDIO_RATE.to_bytes(4, "little") + b"\0\0\0"
        self._context.sample_rate = AUDIO_RATE
        self._skip = pre_skip
        self._last = AUDIO_RATE * 60 // 1000

    def decode(self, packet: bytes | None) -> Samples:
        """The samples of the next packet; None stands for a lost one and gives as much silence as the last.
        Raises FormatError for bytes that are no Opus packet."""
        if packet is None:
            samples = np.zeros(self._last, np.int16)
        else:
            samples = self._decoded(packet)
            self._last = len(samples)
        drop = min(self._skip, len(samples))
        self._skip -= drop
        return samples[drop:]

    def _decoded(self, packet: bytes) -> Samples:
        if not packet:
            raise FormatError("An Opus packet is empty.")
        try:
            frames = self._context.decode(av.Packet(packet))
        except av.FFmpegError as error:
            raise FormatError("An Opus packet cannot be decoded.") from error
        if not frames:
            raise FormatError("An Opus packet cannot be decoded.")
        return np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames])


class OpusTrack:
    """The sound of a file as Opus packets: iterate once. ``pre_skip`` is known before the first packet."""

    def __init__(self, blocks: Iterator[Samples], writer: OpusWriter) -> None:
        self._blocks, self._writer = blocks, writer
        self.pre_skip = writer.pre_skip
        self.packet_samples = writer.packet_samples

    def __iter__(self) -> Iterator[bytes]:
        for block in self._blocks:
            yield from self._writer.encode(block)
        yield from self._writer.flush()


def read_audio_opus(
    path: str | Path,
    bitrate: int = 12_000,
    packet_ms: int = 60,
    start: float = 0.0,
    duration_s: float | None = None,
) -> OpusTrack | None:
    """The sound of a file, re-encoded as Opus while it is read; None if the file has none.

    The first sample behind the pre-skip belongs to the instant ``start`` of the pictures (see
    :func:`read_samples`). 60 ms packets cost 3 % less than 20 ms ones and nothing in sound; a call, where
    the wait matters, takes 20. Raises MediaError for a file that is no video.
    """
    if probe(path).audio is None:
        return None
    return OpusTrack(read_samples(path, start, duration_s), OpusWriter(bitrate, packet_ms))


def _audio_frame(samples: Samples, position: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
    frame.sample_rate = AUDIO_RATE
    frame.pts = position
    frame.time_base = Fraction(1, AUDIO_RATE)
    return frame


# ---------------------------------------------------------------------------------------------- writing


class _Sink(Protocol):
    def picture(self, picture: Picture) -> None: ...
    def samples(self, samples: Samples) -> None: ...
    def finish(self) -> None: ...


class VideoWriter:
    """Writes pictures, and sound if wanted, to a file whose suffix says how:

    ``.mp4``  H.264 at crf 11 (visually transparent), BT.709, AAC; plays everywhere. Even sizes only.
    ``.mkv``  FFV1 and FLAC: every bit of picture and sound is kept.
    ``.y4m``  raw YUV 4:4:4 for other tools (BT.601 below 720 lines, else BT.709); holds no sound.

    ``size`` is (width, height). The file appears under its name only when :meth:`close` succeeds; until then
    its bytes are in a temporary file beside it, which :meth:`abort` (or leaving a ``with`` block by an
    exception, Ctrl-C included) removes. Raises MediaError for an unknown suffix, a folder that is missing or
    not writable, or a full disk.
    """

    def __init__(self, path: str | Path, size: tuple[int, int], fps: Fraction, audio: bool = False) -> None:
        self.path = Path(path)
        suffix = check_writable(self.path)
        self.has_audio = audio and suffix != ".y4m"
        self._size = size
        self._part = _sibling(self.path)
        self._file: IO[bytes] | None = None
        with self._guarded():
            self._file = open(self._part, "w+b")  # noqa: SIM115 (closed by close or abort)
            if suffix == ".y4m":
                self._sink: _Sink = _Y4m(self._file, size, fps)
            else:
                self._sink = _Muxer(self._file, self._part, suffix, size, fps, self.has_audio)

    def write(self, picture: Picture) -> None:
        """Appends a uint8 RGB picture of the writer's size."""
        width, height = self._size
        if picture.shape != (height, width, 3) or picture.dtype != np.uint8:
            raise ValueError(f"expected a uint8 picture of {height} x {width} x 3, not {picture.shape}")
        with self._guarded():
            self._sink.picture(np.ascontiguousarray(picture))

    def write_audio(self, samples: Samples) -> None:
        """Appends mono int16 samples at 48 kHz; the first belongs to the first picture. Ignored where the
        file holds no sound (``has_audio``). Best interleaved with the pictures, second by second."""
        if self.has_audio and len(samples):
            with self._guarded():
                self._sink.samples(np.ascontiguousarray(samples, np.int16))

    def close(self) -> None:
        """Completes the file and gives it its name. Does nothing after an earlier close or abort."""
        if self._file is None:
            return
        with self._guarded():
            self._sink.finish()
            self._file.close()
            os.replace(self._part, self.path)
            self._file = None

    def abort(self) -> None:
        """Drops everything written; the file of that name, if there was one, stays as it was."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None
        with suppress(OSError):
            self._part.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Whatever goes wrong leaves no half-written file behind."""
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            self.abort()
            if getattr(error, "errno", None) == errno.ENOSPC:
                raise MediaError(f"The disk is full: {self.path} could not be written.") from error
            raise MediaError(f"{self.path} could not be written ({_reason(error)}).") from error
        except BaseException:
            self.abort()
            raise


def check_writable(path: str | Path) -> str:
    """The suffix, in lower case, of a path that :class:`VideoWriter` can write to; MediaError if it cannot."""
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in WRITABLE:
        known = ", ".join(WRITABLE[:-1]) + " and " + WRITABLE[-1]
        raise MediaError(f"{path} cannot be written: {suffix or 'no suffix'} is not one of {known}.")
    _check_place(path)
    return suffix


def check_target(target: Path, overwrite: bool) -> None:
    """Raises MediaError, naming the flag that helps."""
    _check_place(target)
    if target.exists() and not overwrite:
        raise MediaError(f"{target} exists; use -f to overwrite it.")


def _check_place(path: Path) -> None:
    if path.is_dir():
        raise MediaError(f"{path} is a folder; give a file name.")
    if not path.absolute().parent.is_dir():
        raise MediaError(f"{path} cannot be written: the folder {path.absolute().parent} does not exist.")


def _sibling(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


class _Muxer:
    """H.264 + AAC in MP4, or FFV1 + FLAC in Matroska, through FFmpeg."""

    def __init__(
        self, file: IO[bytes], path: Path, suffix: str, size: tuple[int, int], fps: Fraction, audio: bool
    ) -> None:
        mp4 = suffix == ".mp4"
        if mp4 and (size[0] % 2 or size[1] % 2):
            raise MediaError(f"An .mp4 needs an even width and height, not {size[0]}x{size[1]}; try .mkv.")
        # Writing through a Python file makes a full disk an OSError at the write that failed. For
        # "faststart" the muxer reopens what it wrote, and asks us for it.
        self._container = av.open(
            file,
            "w",
            format="mp4" if mp4 else "matroska",
            container_options={"movflags": "+faststart"} if mp4 else {},
            io_open=_reopener(path),
        )
        self._video = self._container.add_stream("libx264" if mp4 else "ffv1", rate=fps)
        self._video.width, self._video.height = size
        self._video.pix_fmt = "yuv420p" if mp4 else "bgr0"
        self._video.options = {"crf": "11"} if mp4 else {"level": "3", "slicecrc": "1"}
        if mp4:  # 1 is BT.709 in all three tables of ITU-T H.273
            context = self._video.codec_context
            context.colorspace = context.color_primaries = context.color_trc = 1
            context.color_range = ColorRange.MPEG
        self._mp4 = mp4
        self._tick = 1 / fps
        self._pictures = self._samples = 0
        self._audio: AudioStream | None = None
        if audio:
            self._audio = self._container.add_stream("aac" if mp4 else "flac", rate=AUDIO_RATE)
            self._audio.layout = "mono"
            self._audio.format = "fltp" if mp4 else "s16"
            if mp4:
                self._audio.bit_rate = 96_000

    def picture(self, picture: Picture) -> None:
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        if self._mp4:
            frame = _to_yuv(frame, "yuv420p", Colorspace.ITU709)
        frame.pts, frame.time_base = self._pictures, self._tick
        self._pictures += 1
        self._container.mux(self._video.encode(frame))

    def samples(self, samples: Samples) -> None:
        if self._audio is not None:
            self._container.mux(self._audio.encode(_audio_frame(samples, self._samples)))
            self._samples += len(samples)

    def finish(self) -> None:
        self._container.mux(self._video.encode(None))
        if self._audio is not None:
            self._container.mux(self._audio.encode(None))
        self._container.close()


def _reopener(path: Path) -> Callable[..., IO[bytes]]:
    return lambda *_: open(path, "rb")


class _Y4m:
    """YUV4MPEG2: one line of header, then for each frame the line FRAME and the planes Y, U, V."""

    def __init__(self, file: IO[bytes], size: tuple[int, int], fps: Fraction) -> None:
        self._file = file
        self._matrix = _usual_matrix(size[1])
        rate = f"F{fps.numerator}:{fps.denominator}"
        file.write(f"YUV4MPEG2 W{size[0]} H{size[1]} {rate} Ip A1:1 C444\n".encode())

    def picture(self, picture: Picture) -> None:
        frame = _to_yuv(av.VideoFrame.from_ndarray(picture, format="rgb24"), "yuv444p", self._matrix)
        self._file.write(b"FRAME\n" + frame.to_ndarray().tobytes())

    def samples(self, samples: Samples) -> None:
        raise AssertionError("a .y4m holds no sound")

    def finish(self) -> None:
        self._file.flush()


def _to_yuv(frame: av.VideoFrame, pixels: str, matrix: Colorspace) -> av.VideoFrame:
    return frame.reformat(
        format=pixels,
        dst_colorspace=matrix,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.MPEG,
    )


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
