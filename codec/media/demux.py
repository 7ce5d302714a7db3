"""Open media files with FFmpeg (PyAV): streams and packets."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.stream import VideoStream

from iwcodec.codec.errors import MediaError
from iwcodec.codec.media.types import AudioInfo, Tally, Tracks

Stream = TypeVar("Stream", VideoStream, AudioStream)
BEST: Final = Tracks()
"""The best streams of a file."""
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


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
        if _lacks_index(path):
            raise MediaError(f"{path} cannot be read: it ends before its index, as cut recordings do.") from error
        raise MediaError(f"{path} is not a video file that can be read ({error_reason(error)}).") from error
    with container:
        if container.format.name == "tty":  # FFmpeg renders any .txt file as a terminal
            raise MediaError(f"{path} is a text file, not a video.")
        yield container


def _lacks_index(path: Path) -> bool:
    """Return whether this is an MP4 or QuickTime file without its `moov` box, which recorders write last."""
    with suppress(OSError), open(path, "rb") as file:
        size, at, kinds = os.fstat(file.fileno()).st_size, 0, set[bytes]()
        while len(kinds) < 16 and at < size:
            file.seek(at)
            head = file.read(16)
            length = int.from_bytes(head[8:16] if head[:4] == bytes((0, 0, 0, 1)) else head[:4])
            kinds.add(head[4:8])
            if length < 8:
                break
            at += length
        return b"ftyp" in kinds and b"mdat" in kinds and b"moov" not in kinds
    return False


def video_stream(container: InputContainer, path: str | Path, tracks: Tracks = BEST) -> VideoStream:
    """Return the chosen video stream, or the best one that can be decoded; cover art does not count. Raises MediaError
    if there is none."""
    cover = av.stream.Disposition.attached_pic
    all_streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    streams = [stream for stream in all_streams if stream.codec_context is not None]
    if tracks.video is not None:
        return _numbered(all_streams, tracks.video, path, "video")
    if not streams:
        if all_streams:
            raise MediaError(f"The video of {path} has a format that cannot be decoded.")
        if container.streams.best("audio") is not None:
            raise MediaError(f"{path} holds only sound, no video.")
        raise MediaError(f"{path} holds no video that can be decoded.")
    best = container.streams.best("video")
    return best if isinstance(best, VideoStream) and best in streams else streams[0]


def audio_stream(container: InputContainer, path: str | Path, tracks: Tracks = BEST) -> AudioStream | None:
    """Return the chosen audio stream, or the best one that can be decoded, if any. Raises MediaError if the chosen one
    is missing."""
    if tracks.audio is not None:
        return _numbered(list(container.streams.audio), tracks.audio, path, "audio")
    best = container.streams.best("audio")
    if isinstance(best, AudioStream) and best.codec_context is not None:
        return best
    known = [stream for stream in container.streams.audio if stream.codec_context is not None]
    return max(known, key=lambda stream: stream.channels, default=None)


def _numbered(streams: list[Stream], number: int, path: str | Path, kind: str) -> Stream:
    if not 1 <= number <= len(streams):
        count = f"{len(streams)} {kind} track" + "s" * (len(streams) != 1)
        raise MediaError(f"{path} has {count}, so there is no {kind} track {number}.")
    if streams[number - 1].codec_context is None:
        raise MediaError(f"The {kind} track {number} of {path} cannot be decoded.")
    return streams[number - 1]


def decoded_frames(
    container: InputContainer, stream: VideoStream | AudioStream, tally: Tally | None = None
) -> Iterator[Any]:
    """Yield the PyAV frames of a stream. Damaged packets are skipped, and counted in `tally`; an unreadable rest ends
    the stream."""
    packets, decode = container.demux(stream), _decoder(stream)
    while True:
        try:
            packet = next(packets, None)
        except (av.FFmpegError, OSError):
            packet = None
        if packet is None:
            return
        try:
            yield from decode(packet)
        except av.FFmpegError:
            if tally is not None:
                tally.damaged += 1


def _decoder(stream: VideoStream | AudioStream) -> Callable[[Any], Sequence[Any]]:
    """FFmpeg's own decoders of VP8 and VP9 leave out the alpha plane."""
    name = _ALPHA_DECODERS.get(stream.codec_context.name) if stream.metadata.get("alpha_mode") == "1" else None
    if name is None or name not in av.codecs_available:
        return lambda packet: packet.decode()
    codec: Any = av.CodecContext.create(name, "r")
    return lambda packet: codec.decode(packet)


def start_time(stream: VideoStream | AudioStream) -> float:
    """Return the first timestamp of a stream in seconds; 0 if it is not stated."""
    start = stream.start_time
    return 0.0 if start is None or stream.time_base is None else float(start * stream.time_base)


def seek(container: InputContainer, time_s: float) -> None:
    """Seek to the last key frame at or before `time_s`; a file that cannot seek stays at its beginning."""
    with suppress(av.FFmpegError):
        container.seek(max(0, int(time_s * av.time_base)))


def audio_info(stream: AudioStream, origin: float) -> AudioInfo:
    """Describe an audio stream; `origin` is the start time of the video in seconds."""
    return AudioInfo(stream.codec_context.name, stream.rate, stream.channels, start_time(stream) - origin)


def error_reason(error: BaseException) -> str:
    """Return a short reason from an FFmpeg or OS error."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
