"""Read video files through FFmpeg's libraries (PyAV), a few pictures at a time.

Times are seconds on the file's own timeline, whose zero is the start of its video stream. Sound uses the same timeline:
sample `n` of `read_samples` belongs to the picture at `start + n / 48000`.
"""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

from iwcodec.codec.errors import MediaError
from iwcodec.codec.media.conversion import RgbConverter, clockwise_degrees, display_transform, square_pixel_size
from iwcodec.codec.media.demux import (
    StreamClock,
    audio_info,
    audio_stream,
    decoded_frames,
    duration,
    frame_rate,
    open_media,
    seek,
    start_time,
    video_stream,
)
from iwcodec.codec.media.types import MediaInfo, Picture, VideoFrame


def sample_clip() -> Path:
    """Return the path of the bundled clip (credits: `codec/data/SAMPLE.md`)."""
    return Path(__file__).parents[1] / "data" / "sample.mp4"


def probe(path: str | Path) -> MediaInfo:
    """Describe a video file, decoding its first picture. Raises MediaError as `read_video` does."""
    with open_media(path) as container:
        video = video_stream(container, path)
        audio = audio_stream(container)
        frame = next(decoded_frames(container, video), None)
        if frame is None:
            raise MediaError(f"{path} holds no picture that can be decoded.")
        width, height = square_pixel_size(video, frame)
        transform = display_transform(frame)
        if transform[0] == 0:
            width, height = height, width
        fps = frame_rate(video)
        length = duration(container, video)
        return MediaInfo(
            width=width,
            height=height,
            fps=fps,
            duration_s=length,
            frames=None if length is None else max(1, round(length * fps)),
            rotation=clockwise_degrees(transform),
            audio=None if audio is None else audio_info(audio, start_time(video)),
        )


def read_video(path: str | Path, start: float = 0.0) -> Iterator[VideoFrame]:
    """Yield the pictures of a video file in display order, from `start` seconds on.

    Reads whatever FFmpeg decodes. Applies the rotation and mirroring of the metadata and makes pixels square; if the
    size changes midway, later pictures are scaled to the size of the first. Skips damaged parts. Raises MediaError (on
    the first `next`) for a path that is missing, a folder, empty, not a video, or only sound.
    """
    with open_media(path) as container:
        stream = video_stream(container, path)
        stream.thread_type = "AUTO"
        origin = start_time(stream)
        rate = frame_rate(stream)
        if start > 0:
            seek(container, start + origin)
        clock = StreamClock(origin, free_start=start > 0)
        convert: RgbConverter | None = None
        for frame in decoded_frames(container, stream):
            time_s = clock(frame.time, float(1 / rate))
            convert = convert or RgbConverter(*square_pixel_size(stream, frame))
            if time_s >= start - 0.5 / rate:
                yield VideoFrame(time_s, convert(frame))
        if convert is None:
            raise MediaError(f"{path} holds no picture that can be decoded.")


def at_constant_rate(frames: Iterable[VideoFrame], fps: Fraction, start: float = 0.0) -> Iterator[Picture]:
    """Resample frames of any timing to the grid `start + n / fps`: yield the picture nearest in time to each instant.

    A repeated picture is the same object, so `is` detects repeats.
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
    # The duration of the last picture is unknown: assume that of the one before, at least a period, at most a second.
    end = held.time_s + min(max(gap, period), 1.0) - period / 2
    while count == 0 or start + count * period < end:
        yield held.picture
        count += 1
