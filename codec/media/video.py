"""Video and sound files in and out, through FFmpeg's libraries (PyAV).

Everything streams: at no time is more than a few pictures of a file in memory. Times are seconds on the
file's own timeline, whose zero is the start of its video stream; sound is put on the same timeline, so that
sample ``n`` of :func:`read_samples` belongs to the instant ``start + n / 48000`` of the pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

from iwcodec.codec.errors import MediaError
from iwcodec.codec.media.colour import _clockwise, _display_matrix, _square_pixels, _ToRgb
from iwcodec.codec.media.demux import (
    _audio_info,
    _audio_stream,
    _Clock,
    _decoded,
    _duration,
    _frame_rate,
    _opened,
    _origin,
    _seek,
    _video_stream,
)
from iwcodec.codec.media.types import MediaInfo, Picture, VideoFrame


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


# ------------------------------------------------------------------------------------------------ sound


# ---------------------------------------------------------------------------------------------- writing
