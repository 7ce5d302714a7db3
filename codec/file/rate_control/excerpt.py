"""An excerpt of the clip, on which sources and motion are judged by the PSNR of reconstructed frames."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from iwcodec.codec.bitstream.packets import MotionPacket, SourcePacket
from iwcodec.codec.decoder import Decoder
from iwcodec.codec.file.motion_pass import (
    USUAL_SCALE,
    fit_motion,
    fit_upfront,
    message_length,
    quantise_messages,
    to_source_coordinates,
)
from iwcodec.codec.file.rate_control.closed_loop import ReceivedFrame, Stream, evaluated_frames, receive
from iwcodec.codec.file.rate_control.frame_quality import frame_quality
from iwcodec.codec.file.rate_control.source_plan import STRIDES, CodedSources, Pictures, Plan, pictures_of
from iwcodec.codec.file.rate_control.source_selection import Survey
from iwcodec.codec.fit.keypoint_fit import quick_fit
from iwcodec.codec.media.types import Picture
from iwcodec.codec.motion.types import Fit
from iwcodec.codec.sources.library import ACTIVE, CAPACITY
from iwcodec.models.runtime.types import Runtime

PIECES = 4
"""Pieces of the clip in the excerpt."""
MIN_PIECE_FRAMES = 3 * STRIDES[0]
"""Frames in a piece, at least: at any frame rate it contains consecutive sources of every interleaved plan."""
TRIAL_FRAMES = 48
"""Frames reconstructed to judge a plan."""
EARLY_STOP_DB = {12: 0.8, 24: 0.5}
"""After so many frames, a plan that is worse than the best by more than so many dB is not judged further."""
SKIP_EVERY = 4
"""Frames that share one decision on skip mode, which costs a reconstruction."""
NO_WORSE_DB = 0.02
"""Loss in dB accepted for fewer sources in attention, which are faster."""


@dataclass(frozen=True)
class ExcerptQuality:
    """PSNR of an excerpt's frames, and what it predicts for the clip."""

    source_share: float
    """Share of the clip's frames that are sources."""
    source_db: float
    """Mean PSNR of these."""
    rebuilt_db: Mapping[int, float] = field(default_factory=dict)
    """PSNR of other frames of the excerpt, by their number, in the order of evaluation."""

    def mean(self, frames: Iterable[int]) -> float:
        """Mean PSNR of the clip as predicted from these frames of `rebuilt_db`."""
        rebuilt = [self.rebuilt_db[frame] for frame in frames]
        if not rebuilt:
            return self.source_db
        return float(self.source_share * self.source_db + (1 - self.source_share) * np.mean(rebuilt))

    @property
    def quality(self) -> float:
        return self.mean(self.rebuilt_db)

    def gain_over(self, other: "ExcerptQuality") -> float:
        """Difference in dB over the frames that both have; 0 if these are less than half of this one's."""
        both = self.rebuilt_db.keys() & other.rebuilt_db.keys()
        return self.mean(both) - other.mean(both) if 2 * len(both) >= len(self.rebuilt_db) else 0.0

    def is_clearly_worse(self, best: "ExcerptQuality | None") -> bool:
        """Whether evaluation may stop after the frames so far (EARLY_STOP_DB)."""
        return best is not None and self.gain_over(best) < -EARLY_STOP_DB.get(len(self.rebuilt_db), math.inf)


class Excerpt:
    """A few pieces of the clip, each of whole motion messages. Frames are counted from the first of the excerpt."""

    def __init__(self, survey: Survey, pictures: Mapping[int, Picture], runtime: Runtime, message_frames: int) -> None:
        """`pictures`: of the frames of the excerpt (`excerpt_frames`), by their number in the clip, ascending."""
        self.count = len(survey.keypoints)
        """Frames of the whole clip."""
        self.frames, self.pictures = list(pictures), list(pictures.values())
        self.detected = survey.keypoints[self.frames]
        self.faces = None if survey.faces is None else survey.faces[self.frames]
        self.message_frames = message_frames
        self.runtime = runtime
        self._numbers = {frame: number for number, frame in enumerate(self.frames)}

    @property
    def share(self) -> float:
        """Share of the clip's frames."""
        return len(self.pictures) / self.count

    def fits(self, coded: CodedSources) -> list[Fit]:
        """Fit the motion to these sources, in their coordinates."""
        length, local = message_length(coded.plan, self.message_frames), self.renumbered(coded)
        decoder, arguments = Decoder(self.runtime, capacity=CAPACITY), (self.pictures, self.detected, local, length)
        if coded.plan.upfront:
            return list(fit_upfront(*arguments, decoder, quick_fit, skip_every=SKIP_EVERY))
        return list(to_source_coordinates(fit_motion(*arguments, decoder, quick_fit(), skip_every=SKIP_EVERY), decoder))

    def motion(self, plan: Plan, fits: Sequence[Fit], scale: int) -> list[MotionPacket]:
        """Quantise and code fits at a scale."""
        length = message_length(plan, self.message_frames)
        return list(quantise_messages((fits[first : first + length] for first in range(0, len(fits), length)), scale))

    def best_active(self, coded: CodedSources, motion: Sequence[MotionPacket]) -> int:
        """The smallest number of sources in attention that loses at most NO_WORSE_DB."""
        quality = self.qualities(coded, motion, range(1, min(ACTIVE, len(coded.packets)) + 1))
        return min(count for count in quality if quality[count] > max(quality.values()) - NO_WORSE_DB)

    def qualities(self, coded: CodedSources, motion: Sequence[MotionPacket], counts: Sequence[int]) -> dict[int, float]:
        """Mean PSNR predicted for the clip, for each of these numbers of sources in attention."""
        frames = self._receive(coded, motion, max(counts))
        return {count: self._evaluate(coded, frames, count).quality for count in counts}

    def evaluate(
        self, coded: CodedSources, motion: Sequence[MotionPacket], best: ExcerptQuality | None = None
    ) -> ExcerptQuality:
        """Quality with one source in attention; stops early if it cannot be better than `best`."""
        return self._evaluate(coded, self._receive(coded, motion, 1), 1, best)

    def _evaluate(
        self, coded: CodedSources, frames: Iterable[ReceivedFrame], active: int, best: ExcerptQuality | None = None
    ) -> ExcerptQuality:
        rebuilt_db: dict[int, float] = {}
        result = ExcerptQuality(len(coded.plan.frames) / self.count, coded.source_db, rebuilt_db)
        for frame in frames:
            if result.is_clearly_worse(best):
                break
            face = None if self.faces is None else self.faces[frame.number]
            picture = frame.picture(self.runtime, active)
            rebuilt_db[frame.number] = frame_quality(picture, self.pictures[frame.number], face)
        return result

    def _receive(self, coded: CodedSources, motion: Sequence[MotionPacket], max_active: int) -> list[ReceivedFrame]:
        """TRIAL_FRAMES frames that are not sources, in the order of evaluation."""
        local = self.renumbered(coded)
        numbers = evaluated_frames(len(self.pictures), TRIAL_FRAMES, {packet.frame for packet in local.packets})
        stream, originals = Stream(local, motion, max_active), None if self.faces is None else self.pictures
        frames = {frame.number: frame for frame in receive(stream, set(numbers), self.runtime, originals)}
        return [frames[number] for number in numbers if number in frames]

    def renumbered(self, coded: CodedSources) -> CodedSources:
        """The same sources with the excerpt's frame numbers; None for frames outside it."""
        packets = [
            SourcePacket(packet.slot, packet.payload, self._numbers.get(-1 if packet.frame is None else packet.frame))
            for packet in coded.packets
        ]
        return replace(coded, packets=tuple(packets))


def excerpt_frames(
    count: int, message_frames: int, pieces: int = PIECES, min_frames: int = MIN_PIECE_FRAMES
) -> list[int]:
    """Frame numbers of pieces, evenly spread over `count` frames; all frames of a short clip. A piece has as many
    messages as hold `min_frames` frames."""
    length = message_frames * math.ceil(min_frames / message_frames)
    if count <= pieces * length:
        return list(range(count))
    starts = [round((piece + 0.5) / pieces * count - length / 2) for piece in range(pieces)]
    return [frame for start in starts for frame in range(start, start + length)]


def read_excerpt(survey: Survey, pictures: Pictures, runtime: Runtime, message_frames: int) -> Excerpt:
    """Read the excerpt on which plans are tried."""
    frames = excerpt_frames(len(survey.keypoints), message_frames)
    return Excerpt(survey, dict(pictures_of(frames, pictures, hold=False)), runtime, message_frames)


def best_active(coded: CodedSources, excerpt: Excerpt) -> int:
    """The number of sources that should enter attention for a frame, at the usual motion quantisation."""
    return excerpt.best_active(coded, excerpt.motion(coded.plan, excerpt.fits(coded), USUAL_SCALE))
