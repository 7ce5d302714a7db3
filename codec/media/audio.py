"""."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import av
import numpy as np
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer

from iwcodec.codec.media.demux import (
    _audio_stream,
    _Clock,
    _decoded,
    _opened,
    _origin,
    _seek,
    _video_stream,
)
from iwcodec.codec.media.types import AUDIO_RATE, Samples

_SYNC_TOLERANCE = AUDIO_RATE // 50  # 20 ms: containers round timestamps; smaller differences are not gaps


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
