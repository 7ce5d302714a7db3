"""Read video files through FFmpeg's libraries (PyAV), a few pictures at a time.

Times are seconds on the file's own timeline, whose zero is the start of its video stream. Sound uses the same timeline:
sample `n` of `read_samples` belongs to the picture at `start + n / 48000`.
"""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from math import floor
from pathlib import Path

from iwcodec.codec.errors import MediaError
from iwcodec.codec.media.conversion import RgbConverter, clockwise_degrees, display_transform, square_pixel_size
from iwcodec.codec.media.deinterlace import deinterlaced
from iwcodec.codec.media.demux import (
    BEST,
    audio_info,
    audio_stream,
    decoded_frames,
    open_media,
    seek,
    start_time,
    video_stream,
)
from iwcodec.codec.media.timeline import StreamClock, in_display_order, read_timeline, shown_s
from iwcodec.codec.media.types import MediaInfo, Picture, Tally, Tracks, VideoFrame

SLACK = 0.75
"""Periods by which a picture may be off the grid of a constant rate and still follow the one before it: inaccurate
timestamps neither drop nor repeat pictures."""
DENSER = 0.55
"""Periods between pictures below which they come faster than the grid, and some are dropped."""


def sample_clip() -> Path:
    """Return the path of the bundled clip (credits: `codec/data/SAMPLE.md`)."""
    return Path(__file__).parents[1] / "data" / "sample.mp4"


def probe(path: str | Path, tracks: Tracks = BEST) -> MediaInfo:
    """Describe a video file, reading all its packets and decoding its first picture. Raises MediaError as `read_video`
    does."""
    with open_media(path) as container:
        video, audio = video_stream(container, path, tracks), audio_stream(container, path, tracks)
        frame = next(decoded_frames(container, video), None)
        if frame is None:
            raise MediaError(_no_picture(path))
        width, height = square_pixel_size(video, frame)
        transform = display_transform(frame)
        if transform[0] == 0:
            width, height = height, width
        timeline = read_timeline(path, tracks)
        fps, length = timeline.fps, timeline.duration_s or timeline.stated_s
        return MediaInfo(
            width=width,
            height=height,
            fps=fps,
            duration_s=length,
            frames=None if length is None else max(1, round(length * fps)),
            rotation=clockwise_degrees(transform),
            audio=None if audio is None else audio_info(audio, start_time(video)),
            stated_s=timeline.stated_s,
            leaps=timeline.leaps,
            sound_end_s=timeline.sound_end_s,
            sound_is_unknown=audio is None and bool(container.streams.audio),
        )


def read_video(
    path: str | Path, start: float = 0.0, tracks: Tracks = BEST, tally: Tally | None = None
) -> Iterator[VideoFrame]:
    """Yield the pictures of a video file in display order, from `start` seconds on.

    Reads whatever FFmpeg decodes. Applies the rotation and mirroring of the metadata, makes pixels square,
    deinterlaces, maps high dynamic range to BT.709 and puts transparent pictures on black; if the size changes midway,
    later pictures are scaled to the size of the first. Skips damaged parts, and counts them in `tally`. Raises
    MediaError (on the first `next`) for a path that is missing, a folder, empty, not a video, or only sound.
    """
    with open_media(path) as container:
        stream = video_stream(container, path, tracks)
        stream.thread_type = "AUTO"
        timeline = read_timeline(path, tracks)
        period = float(1 / timeline.fps)
        sought = start > 0 and not timeline.leaps
        if sought:
            seek(container, start + timeline.origin_s)
        clock = StreamClock(timeline.shifts_s, free_start=sought)
        convert: RgbConverter | None = None
        frames = decoded_frames(container, stream, tally)
        if timeline.decode_lead is not None:
            frames = in_display_order(frames, timeline.decode_lead)
        for frame in deinterlaced(frames):
            time_s, length_s = clock(frame.time, period), float((frame.duration or 0) * (frame.time_base or 0))
            if tally is not None:
                tally.pictures, tally.end_s = tally.pictures + 1, time_s + shown_s(length_s, period)
                tally.damaged += frame.is_corrupt
            convert = convert or RgbConverter(*square_pixel_size(stream, frame))
            if time_s >= start - 0.5 * period:
                yield VideoFrame(time_s, convert(frame), length_s)
        if convert is None:
            raise MediaError(_no_picture(path))


def _no_picture(path: str | Path) -> str:
    """Why there is none, in a sentence."""
    with open(path, "rb") as file:
        head = file.read(21)
    if head[8:16] == b"WEBPVP8X" and head[20:] and head[20] & 2:
        return f"{path} is an animated WebP, which FFmpeg cannot decode; convert it to another format."
    return f"{path} holds no picture that can be decoded."


def at_constant_rate(frames: Iterable[VideoFrame], fps: Fraction, start: float = 0.0) -> Iterator[Picture]:
    """Resample frames of any timing to the grid `start + n / fps`: each picture is shown from the instant nearest to
    its time until the next picture. Pictures that come at about the rate are all kept, also if their times are
    inaccurate (SLACK).

    A repeated picture is the same object, so `is` detects repeats.
    """
    period = float(1 / fps)
    count, slot, gap = 0, -1, period
    held: VideoFrame | None = None
    for frame in frames:
        ideal = (frame.time_s - start) / period
        following = floor(ideal + 0.5)
        if held is not None:
            gap = frame.time_s - held.time_s
            if gap < DENSER * period:
                following = max(slot, floor(ideal + 0.1))  # no tie at a half or a whole period
            elif abs(ideal - slot - 1) < SLACK:
                following = slot + 1
            while count < following:
                yield held.picture
                count += 1
        held, slot = frame, following
    if held is None:
        return
    # If the length of the last picture is unknown, that of the one before is assumed, at most a second.
    end = slot + max(1, round(shown_s(held.duration_s or min(gap, 1.0), period) / period))
    while count == 0 or count < end:
        yield held.picture
        count += 1
