"""The clock of a media file: where its timestamps leap, how long it is, and its frame rate.

Measured over all packets, without decoding: what headers state is wrong for many files (variable rates, joined
transport streams, files that were cut).
"""

import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice, pairwise
from math import ceil
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from iwcodec.codec.media.demux import audio_stream, decoded_frames, open_media, start_time, video_stream
from iwcodec.codec.media.types import Tracks

STANDARD_RATES = (
    *(Fraction(n) for n in (10, 12, 15, 20, 24, 25, 30, 48, 50, 60, 90, 100, 120)),
    *(Fraction(n * 1000, 1001) for n in (15, 24, 30, 48, 60, 120)),
)
"""Frames a second."""
FALLBACK_RATE = Fraction(25)
"""Frames a second of a file that states no rate and has no timestamps."""
MAX_RATE = 120
"""Frames a second. Of a faster video every second, third, ... picture is used."""
MAX_GAP_S = 60.0
"""Seconds without frames; a larger step of the timestamps is a fault of the file's clock, not a pause."""
LEAP_BACK_S = 0.1
"""Seconds by which the clock must step back to have leapt. Smaller steps are inaccurate timestamps."""
USUAL_SHARE = 0.1
"""Share of the intervals between pictures that may be shorter than the period of the densest usual rate."""
SAME_INTERVAL = (0.8, 1.25)
"""Factors within which intervals count as equal: clocks of cameras are inaccurate."""
ROUNDING = 4e-4
"""Relative difference of rates that are equal: less than half of that between 29.97 and 30."""
FIRST_PICTURES = 24
"""Pictures that are decoded to see whether their timestamps are in order."""
NEAR_STANDARD = 5e-3
"""Relative difference from a standard rate within which a measured rate is taken for it."""


@dataclass
class _Extent:
    """Seconds of one stream between two leaps of its clock."""

    start_s: float
    last_s: float
    """Time of the last picture, or of the last block of sound."""
    length_s: float = 0.0
    """Seconds that it is shown or heard; 0: unknown."""

    def add(self, time_s: float, length_s: float) -> None:
        self.start_s = min(self.start_s, time_s)
        if time_s >= self.last_s:
            self.last_s, self.length_s = time_s, length_s


@dataclass
class _Scan:
    """What the packets of one stream say."""

    extents: list[_Extent] = field(default_factory=list)
    intervals: list[float] = field(default_factory=list)
    """Seconds between consecutive pictures, in display order."""
    packets: int = 0
    ascending: bool = True
    """Whether the timestamps of display never go back."""
    lead: int = 0
    """Ticks from the time of decoding to that of display, of the first packet."""
    _stamps: list[float] = field(default_factory=list)
    _decoded_s: float | None = None
    _ahead: list[tuple[float, float]] = field(default_factory=list)
    """(time, length) of packets that are decoded before a leap and shown after it."""

    def add(self, packet: av.Packet) -> None:
        tick = packet.time_base
        if packet.size == 0 or tick is None:
            return
        self.packets += not packet.is_discard
        if not self.extents or self._leaps(packet, tick):
            self.finish()
            self.extents.append(_Extent(float("inf"), float("-inf")))
            ahead, self._ahead = self._ahead, []
            for time_s, length_s in ahead:
                self._take(time_s, length_s)
        stamp = packet.dts if packet.pts is None else packet.pts
        if stamp is None or packet.is_discard:
            return
        time_s, length_s = float(stamp * tick), float((packet.duration or 0) * tick)
        if not self._stamps and len(self.extents) == 1 and packet.pts is not None and packet.dts is not None:
            self.lead = packet.pts - packet.dts
        self.ascending &= not self._stamps or time_s >= self._stamps[-1]
        if self._decoded_s is not None and time_s - self._decoded_s > MAX_GAP_S:
            self._ahead.append((time_s, length_s))
        else:
            self._take(time_s, length_s)

    def _take(self, time_s: float, length_s: float) -> None:
        self._stamps.append(time_s)
        self.extents[-1].add(time_s, length_s)

    def _leaps(self, packet: av.Packet, tick: Fraction) -> bool:
        """By the time of decoding, which ascends."""
        if packet.dts is None:
            return False
        before, self._decoded_s = self._decoded_s, float(packet.dts * tick)
        return before is not None and not -LEAP_BACK_S <= self._decoded_s - before <= MAX_GAP_S

    def finish(self) -> None:
        """Take the intervals since the last leap."""
        self.intervals += [later - earlier for earlier, later in pairwise(sorted(self._stamps)) if later > earlier]
        self._stamps.clear()
        self.extents = [extent for extent in self.extents if extent.last_s >= extent.start_s]


@dataclass(frozen=True)
class Timeline:
    """The clock of a file, common to pictures and sound."""

    fps: Fraction
    """The densest usual rate, 1 to MAX_RATE."""
    origin_s: float
    """Timestamp of the first picture."""
    shifts_s: tuple[float, ...]
    """Seconds to add to the timestamps, for each stretch between two leaps of the clock: the first picture is at 0."""
    duration_s: float | None
    """Seconds of pictures; None if there are no timestamps."""
    stated_s: float | None
    """Seconds that the header states."""
    packets: int
    """Coded pictures."""
    audio_agrees: bool
    """Whether the sound leaps as often as the pictures, so that both have the same `shifts_s`."""
    sound_end_s: float | None = None
    """End of the sound, seconds; None without sound or timestamps."""
    decode_lead: int | None = None
    """Not None: pictures have timestamps in the order in which they are decoded, which is not that in which they are
    shown (AVI knows no other), and this many ticks after their decoding."""

    @property
    def leaps(self) -> int:
        return len(self.shifts_s) - 1


def read_timeline(path: str | Path, tracks: Tracks) -> Timeline:
    """Measure the clock of a file. Raises MediaError as `open_media` does."""
    try:
        status = os.stat(path)
        state = (status.st_mtime_ns, status.st_size)
    except OSError:
        state = (0, 0)
    return _scan_file(str(path), tracks, state)


@functools.lru_cache(maxsize=16)
def _scan_file(path: str, tracks: Tracks, state: tuple[int, int]) -> Timeline:
    """`state` tells versions of a file apart: encoding reads the same file many times."""
    with open_media(path) as container:
        video, audio = video_stream(container, path, tracks), audio_stream(container, path, tracks)
        scans = {stream.index: _Scan() for stream in (video, audio) if stream is not None}
        for packet in _packets(container, [stream for stream in (video, audio) if stream is not None]):
            scans[packet.stream.index].add(packet)
        for scan in scans.values():
            scan.finish()
        pictures = scans[video.index]
        sound = [] if audio is None else scans[audio.index].extents
        sound_leaps = len(sound) if audio is not None else 1
        origin = start_time(video)
        fps = frame_rate(video, pictures.intervals)
        shifts = _shifts(pictures.extents, origin, float(1 / fps))
        length = None
        if pictures.extents:
            last = pictures.extents[-1]
            length = max(last.last_s + shifts[-1] + shown_s(last.length_s, float(1 / fps)), 0.0)
        agrees, sound_end = sound_leaps == len(shifts), None
        if sound and agrees:
            sound_end = sound[-1].last_s + sound[-1].length_s + shifts[-1]
        stated, ascending = _stated(container, video), pictures.ascending and bool(video.codec_context.has_b_frames)
    lead = pictures.lead if ascending and _first_pictures_go_back(path, tracks) else None
    return Timeline(fps, origin, shifts, length, stated, pictures.packets, agrees, sound_end, lead)


def _first_pictures_go_back(path: str, tracks: Tracks) -> bool:
    """Return whether pictures are decoded with timestamps that are not in order."""
    with open_media(path) as container:
        frames = decoded_frames(container, video_stream(container, path, tracks))
        stamps = [frame.pts for frame in islice(frames, FIRST_PICTURES) if frame.pts is not None]
    return any(later < earlier for earlier, later in pairwise(stamps))


def in_display_order(frames: Iterable[Any], lead: int) -> Iterator[Any]:
    """Give PyAV frames the timestamps of their order: those of the packets that completed them, less the delay of the
    decoder, which the first one shows. `lead`: Timeline.decode_lead."""
    delay = None
    for frame in frames:
        if delay is None and None not in (frame.dts, frame.pts):
            delay = frame.dts - frame.pts + lead
        frame.pts = None if None in (frame.dts, delay) else frame.dts - delay  # None: it follows the one before
        yield frame


def shown_s(length_s: float, period: float) -> float:
    """Seconds that the last picture is shown, whose stated length may be missing (0) or wrong."""
    return min(max(length_s, period), MAX_GAP_S)


def _packets(container: InputContainer, streams: Sequence[av.stream.Stream]) -> Iterator[av.Packet]:
    packets = container.demux(streams)
    while True:
        try:
            packet = next(packets, None)
        except (av.FFmpegError, OSError):
            return
        if packet is None:
            return
        yield packet


def _shifts(extents: Sequence[_Extent], origin: float, period: float) -> tuple[float, ...]:
    """Each stretch of the clock begins where the pictures of the one before it end."""
    shifts = [-origin]
    for before, extent in pairwise(extents):
        shifts.append(before.last_s + period + shifts[-1] - extent.start_s)
    return tuple(shifts)


def _stated(container: InputContainer, stream: VideoStream) -> float | None:
    """Return the seconds from the first picture to the end, if stated."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    if container.duration is None:
        return None
    if "matroska" in container.format.name:  # whose writers state the end
        return container.duration / av.time_base - max(0.0, start_time(stream))
    return container.duration / av.time_base - max(0.0, start_time(stream) - (container.start_time or 0) / av.time_base)


def frame_rate(stream: VideoStream, intervals: Sequence[float]) -> Fraction:
    """Return the densest usual rate, 1 to MAX_RATE: nearly all pictures are at least 1 / rate seconds apart.

    `intervals`: seconds between pictures. A stated or standard rate that agrees with them is preferred, because
    timestamps are rounded. Without intervals: the rate stated.
    """
    stated = [rate for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate) if rate]
    if not intervals:
        return next((_standard(rate) for rate in stated if 1 <= rate <= MAX_RATE), _stated_fast(stated))
    period = usual_period(intervals)
    tick = float(stream.time_base or 0)
    tolerance = max(ROUNDING, min(0.01, tick / period / len(intervals) ** 0.5))
    agreeing = (rate for rate in stated if abs(float(rate) * period - 1) <= tolerance)
    rate = next(agreeing, None) or _measured(1 / period)
    return _in_range(_standard(rate))


def _stated_fast(stated: Iterable[Fraction]) -> Fraction:
    """The slowest stated rate above MAX_RATE that may be one of a camera, divided."""
    fast = [rate for rate in stated if MAX_RATE < rate <= 960]
    return _in_range(min(fast)) if fast else FALLBACK_RATE


def usual_period(intervals: Sequence[float]) -> float:
    """Return the shortest usual interval: the mean of those like the one that USUAL_SHARE of all are shorter than."""
    ascending = np.sort(np.asarray(intervals))
    period = float(ascending[int(USUAL_SHARE * (len(ascending) - 1))])
    for _ in range(4):
        low, high = (period * factor for factor in SAME_INTERVAL)
        period = float(ascending[(ascending >= low) & (ascending <= high)].mean())
    return period


def _measured(rate: float) -> Fraction:
    standard = min(STANDARD_RATES, key=lambda known: abs(float(known) - rate))
    near = abs(rate / float(standard) - 1) <= NEAR_STANDARD
    return standard if near else Fraction(rate).limit_denominator(1001)


def _standard(rate: Fraction) -> Fraction:
    standard = min(STANDARD_RATES, key=lambda known: abs(known - rate))
    return standard if abs(float(rate / standard) - 1) < ROUNDING else rate.limit_denominator(1001)


def _in_range(rate: Fraction) -> Fraction:
    """A whole divisor of a rate above MAX_RATE, a whole multiple of one below 1."""
    if rate > MAX_RATE:
        return rate / ceil(rate / MAX_RATE)
    return rate if rate >= 1 else rate * ceil(1 / rate)


class StreamClock:
    """Convert timestamps of a stream to seconds on the timeline: follow the leaps of the file's clock, and fill in
    missing timestamps."""

    def __init__(self, shifts_s: Sequence[float], free_start: bool = False, end_s: float = 0.0) -> None:
        """`shifts_s`: as in Timeline; leaps beyond them are closed without a gap. `free_start`: the first timestamp may
        be anything. `end_s`: a step of over MAX_GAP_S to before this time is a pause that is kept, because the pictures
        continue until then."""
        self._shift, *self._shifts = shifts_s
        self._expected = 0.0
        self._started, self._free_start = False, free_start
        self._end_s = end_s

    def __call__(self, stamp: float | None, duration: float) -> float:
        """Return the time of a frame with timestamp `stamp` and length `duration`, both in seconds."""
        time_s = self._expected if stamp is None else stamp + self._shift
        if stamp is not None and self._leapt(time_s, duration):
            known = self._started and self._shifts
            self._shift = self._shifts.pop(0) if known else self._shift + self._expected - time_s
            time_s = stamp + self._shift
        self._expected, self._started = time_s + duration, True
        return time_s

    def _leapt(self, time_s: float, duration: float) -> bool:
        if self._expected <= time_s <= self._end_s:
            return False
        if not self._started:
            return not self._free_start and abs(time_s) > MAX_GAP_S
        return not -LEAP_BACK_S - duration <= time_s - self._expected <= MAX_GAP_S
