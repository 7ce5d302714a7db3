"""Read the sound of a media file as mono samples at 48 kHz, aligned to its pictures."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import av
import numpy as np
from av.audio.resampler import AudioResampler

from iwcodec.codec.media.demux import BEST, audio_stream, decoded_frames, open_media, seek
from iwcodec.codec.media.timeline import StreamClock, read_timeline
from iwcodec.codec.media.types import AUDIO_RATE, Samples, Tally, Tracks

SYNC_TOLERANCE = AUDIO_RATE // 50
"""Samples, 20 ms: containers round timestamps, so smaller gaps and overlaps are ignored."""


def read_samples(
    path: str | Path,
    start: float = 0.0,
    duration_s: float | None = None,
    tracks: Tracks = BEST,
    tally: Tally | None = None,
) -> Iterator[Samples]:
    """Yield the sound of a file in blocks; nothing if it has none.

    The first sample belongs to the picture at `start` seconds: a later beginning and gaps are filled with silence,
    earlier sound is dropped. Ends after `duration_s` seconds. Damaged packets are skipped, and counted in `tally`.
    """
    with open_media(path) as container:
        stream = audio_stream(container, path, tracks)
        if stream is None:
            return
        timeline = read_timeline(path, tracks)
        sought = start > 0 and not timeline.leaps
        if sought:
            seek(container, start + timeline.origin_s)
        limit = None if duration_s is None else round(duration_s * AUDIO_RATE)
        end_s = 0.0 if duration_s is None else start + duration_s
        shifts = timeline.shifts_s if timeline.audio_agrees else timeline.shifts_s[:1]
        frames = _resampled(decoded_frames(container, stream, tally))
        yield from _limited(aligned(frames, StreamClock(shifts, sought, end_s), start), limit)


def _resampled(frames: Iterable[av.AudioFrame]) -> Iterator[av.AudioFrame]:
    """Yield mono int16 frames at 48 kHz, also if the stream's format changes."""
    resampler: AudioResampler | None = None
    current: tuple[str, str, int] | None = None
    for frame in frames:
        layout = (frame.format.name, frame.layout.name, frame.sample_rate)
        if resampler is None or layout != current:
            if resampler is not None:
                yield from resampler.resample(None)
            resampler, current = AudioResampler(format="s16", layout="mono", rate=AUDIO_RATE), layout
        yield from resampler.resample(frame)
    if resampler is not None:
        yield from resampler.resample(None)


def aligned(frames: Iterable[av.AudioFrame], clock: StreamClock, start: float) -> Iterator[Samples]:
    """Yield blocks without gaps or overlaps, the first sample at `start` seconds."""
    position = 0
    for frame in frames:
        samples = np.asarray(frame.to_ndarray().reshape(-1), np.int16)
        late = round((clock(frame.time, len(samples) / AUDIO_RATE) - start) * AUDIO_RATE) - position
        if late > (SYNC_TOLERANCE if position else 0):
            position += late
            yield from (np.zeros(min(late - at, AUDIO_RATE), np.int16) for at in range(0, late, AUDIO_RATE))
        elif late < (-SYNC_TOLERANCE if position else 0):
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
