"""."""

from __future__ import annotations

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

_RATES = tuple(Fraction(n) for n in (10, 12, 15, 20, 24, 25, 30, 48, 50, 60, 90, 100, 120)) + tuple(
    Fraction(n * 1000, 1001) for n in (15, 24, 30, 48, 60, 120)
)

_FALLBACK_RATE = Fraction(25)

_MAX_GAP_S = 60.0  # a longer silence of the timestamps is a fault of the file's clock, not a pause


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
        if self._expected is not None and abs(time_s - expected) > _MAX_GAP_S and not pause:
            self._shift += expected - time_s
            time_s = expected
        self._expected = time_s + duration
        return time_s


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
