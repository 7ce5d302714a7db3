"""Open media files with FFmpeg (PyAV): streams, packets, timestamps and rates."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.stream import VideoStream

from iwcodec.codec.errors import MediaError
from iwcodec.codec.media.types import AudioInfo

STANDARD_RATES = (
    *(Fraction(n) for n in (10, 12, 15, 20, 24, 25, 30, 48, 50, 60, 90, 100, 120)),
    *(Fraction(n * 1000, 1001) for n in (15, 24, 30, 48, 60, 120)),
)
"""Frames a second."""
FALLBACK_RATE = Fraction(25)
"""Frames a second of a file that states no rate from 1 to 120."""
MAX_GAP_S = 60.0
"""Seconds without frames; a larger step of the timestamps is a fault of the file's clock, not a pause."""


@contextmanager
def open_media(path: str | Path) -> Iterator[InputContainer]:
    """Open a file for reading. Raises MediaError if it is missing, a folder, empty, unreadable or no media file."""
    path = Path(path)
    try:
        if path.is_dir():
            raise MediaError(f"{path} is a folder, not a video file.")
        if not path.exists():
            raise MediaError(f"{path} does not exist.")
        if path.is_file() and path.stat().st_size == 0:
            raise MediaError(f"{path} is empty.")
        # FFmpeg cannot take an absolute path for a URL. Tags in an unknown encoding are ignored.
        container = av.open(str(path.resolve()), metadata_errors="ignore")
    except PermissionError as error:
        raise MediaError(f"{path} may not be read: permission denied.") from error
    except (av.FFmpegError, OSError, ValueError) as error:
        raise MediaError(f"{path} is not a video file that can be read ({error_reason(error)}).") from error
    with container:
        if container.format.name == "tty":  # FFmpeg renders any .txt file as a terminal
            raise MediaError(f"{path} is a text file, not a video.")
        yield container


def video_stream(container: InputContainer, path: str | Path) -> VideoStream:
    """Return the best decodable video stream that is not cover art. Raises MediaError if there is none."""
    cover = av.stream.Disposition.attached_pic
    streams = [s for s in container.streams.video if not s.disposition & cover and s.codec_context is not None]
    if not streams:
        if audio_stream(container) is not None:
            raise MediaError(f"{path} holds only sound, no video.")
        raise MediaError(f"{path} holds no video that can be decoded.")
    best = container.streams.best("video")
    return best if isinstance(best, VideoStream) and best in streams else streams[0]


def audio_stream(container: InputContainer) -> AudioStream | None:
    """Return the best decodable audio stream, if any."""
    best = container.streams.best("audio")
    return best if isinstance(best, AudioStream) and best.codec_context is not None else None


def decoded_frames(container: InputContainer, stream: VideoStream | AudioStream) -> Iterator[Any]:
    """Yield the PyAV frames of a stream. Damaged packets are skipped; an unreadable rest ends the stream."""
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


def start_time(stream: VideoStream | AudioStream) -> float:
    """Return the first timestamp of a stream in seconds; 0 if it is not stated."""
    start = stream.start_time
    return 0.0 if start is None or stream.time_base is None else float(start * stream.time_base)


def seek(container: InputContainer, time_s: float) -> None:
    """Seek to the last key frame at or before `time_s`; a file that cannot seek stays at its beginning."""
    with suppress(av.FFmpegError):
        container.seek(max(0, int(time_s * av.time_base)))


def duration(container: InputContainer, stream: VideoStream) -> float | None:
    """Return the duration in seconds, if stated."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return None if container.duration is None else container.duration / av.time_base


def frame_rate(stream: VideoStream) -> Fraction:
    """Return the mean frame rate, 1 to 120; within 0.04 % of a standard rate, that rate."""
    for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if rate is not None and 1 <= rate <= 120:
            standard = min(STANDARD_RATES, key=lambda r: abs(r - rate))
            # 0.04 % is less than half the distance between 29.97 and 30.
            return standard if abs(rate / standard - 1) < Fraction(4, 10_000) else rate.limit_denominator(1001)
    return FALLBACK_RATE


def audio_info(stream: AudioStream, origin: float) -> AudioInfo:
    """Describe an audio stream; `origin` is the start time of the video in seconds."""
    return AudioInfo(stream.codec_context.name, stream.rate, stream.channels, start_time(stream) - origin)


class StreamClock:
    """Convert timestamps to seconds after `origin`: fill in missing ones and remove jumps of over MAX_GAP_S."""

    def __init__(self, origin: float, free_start: bool = False, end_s: float = 0.0) -> None:
        """`free_start`: the first timestamp may be anything. `end_s`: a jump to before this time is a pause that is
        kept, because the pictures continue until then."""
        self._shift = -origin
        self._expected = None if free_start else 0.0
        self._end_s = end_s

    def __call__(self, stamp: float | None, duration: float) -> float:
        """Return the time of a frame with timestamp `stamp` and length `duration`, both in seconds."""
        expected = self._expected or 0.0
        time_s = expected if stamp is None else stamp + self._shift
        pause = expected <= time_s <= self._end_s
        if self._expected is not None and abs(time_s - expected) > MAX_GAP_S and not pause:
            self._shift += expected - time_s
            time_s = expected
        self._expected = time_s + duration
        return time_s


def error_reason(error: BaseException) -> str:
    """Return a short reason from an FFmpeg or OS error."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
