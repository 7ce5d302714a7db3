"""Closed-loop evaluation: reconstruct some frames of a coded clip as a receiver would, and measure their PSNR.

Three decisions of the file encoder are made by it: between candidate streams (`best_stream`), on small-shift
suppression (`choose_suppression`), and between source plans (trials.py).
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.bitstream.packets import MotionPacket
from iwcodec.codec.decoder import Decoder
from iwcodec.codec.file.motion_pass import decode_motion
from iwcodec.codec.file.rate_control.frame_quality import frame_quality
from iwcodec.codec.file.rate_control.source_plan import CodedSources, Pictures, pictures_of
from iwcodec.codec.media.quality import psnr, sampling_order
from iwcodec.codec.media.types import Picture
from iwcodec.codec.parallel import in_order
from iwcodec.codec.sources.library import CAPACITY
from iwcodec.codec.sources.region_view import RegionView
from iwcodec.models.runtime.types import Keypoints, Runtime, Source

STREAM_FRAMES = 128
"""Frames evaluated to choose between candidate streams."""
SUPPRESSION_FRAMES = 12
"""Frames evaluated to choose the small-shift suppression."""
SUPPRESSIONS = (0, 5, 8, 12)
"""Small-shift suppression tried, in tenths of a pixel, until it brings nothing; the first is none."""
MIN_GAIN_DB = 0.01
"""Mean PSNR in dB that more suppression must bring."""


@dataclass(frozen=True)
class Stream:
    """Sources and motion of a clip as stored in the file."""

    coded: CodedSources
    motion: Sequence[MotionPacket]
    active: int
    """Sources that enter attention for a frame."""


@dataclass(frozen=True)
class ReceivedFrame:
    """A frame as a receiver has it before reconstruction."""

    number: int
    keypoints: Keypoints
    sources: Sequence[Source]
    """Sources that enter attention, the reference source first; none if the frame is a source itself."""
    unmodified: Picture | None
    """The decoded source to show instead of a reconstruction: the frame's own, or in skip mode the reference source."""

    def picture(self, runtime: Runtime, active: int | None = None, suppression: float = 0.0) -> Picture:
        """The picture shown, from the first `active` sources (None: all). `suppression` in pixels."""
        if self.unmodified is not None:
            return self.unmodified
        return runtime.reconstruct(self.keypoints, self.sources[:active], suppression)


def most_used_slot(motion: Sequence[MotionPacket], excluded: Collection[int] = ()) -> int | None:
    """The slot of the source that is the reference source of most frames, among those not excluded; None if there is no
    such source."""
    frames: Counter[int] = Counter()
    for packet in motion:
        for run in packet.runs:
            frames[run.slot] += 0 if run.slot in excluded else run.frames
    best = max(frames, key=lambda slot: (frames[slot], -slot), default=None)
    return best if best is None or frames[best] else None


def receive(
    stream: Stream,
    numbers: Collection[int],
    runtime: Runtime,
    originals: Mapping[int, Picture] | Sequence[Picture] | None = None,
) -> Iterator[ReceivedFrame]:
    """The frames with these numbers, in order, as a receiver of the file has them.

    With `originals`, by number, their regions show the sources that are nearest to these.
    """
    decoder = Decoder(runtime, capacity=CAPACITY, active=stream.active)
    home_slot, view = most_used_slot(stream.motion), None
    source_frames = {packet.frame for packet in stream.coded.packets}
    for frame in decode_motion(stream.coded, stream.motion, decoder):
        if frame.number not in numbers:
            continue
        if frame.number in source_frames:
            yield ReceivedFrame(frame.number, frame.keypoints, (), decoder.picture(frame))
        else:
            sources = decoder.sources_of(frame)
            home = None if originals is None or home_slot is None else decoder.library.at(home_slot)
            if home is not None and originals is not None:
                view = view or RegionView(home, decoder.compositor, expressive=False)
                regions = view.choose(originals[frame.number], frame.keypoints, sources[0], decoder.library)
                sources = decoder.sources_of(replace(frame, regions=regions))
            yield ReceivedFrame(frame.number, frame.keypoints, sources, sources[0].picture if frame.skip else None)


def evaluated_frames(count: int, max_frames: int, excluded: Collection[int | None] = ()) -> list[int]:
    """At most `max_frames` of the numbers below `count`, without those excluded. Any prefix is evenly spread."""
    return [number for number in sampling_order(count) if number not in excluded][:max_frames]


def best_stream(
    streams: Sequence[Stream],
    count: int,
    pictures: Pictures,
    runtime: Runtime,
    faces: NDArray[np.float32] | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> Stream:
    """The stream with the best mean quality over STREAM_FRAMES of the clip's `count` frames; the first of equals.
    `faces`: keypoints (count, K, 3) if the clip is tuned for the face.

    Rate control predicts quality from excerpts of the clip and faster encodings; its error can exceed the difference
    between the best candidates.
    """
    if len(streams) == 1:
        return streams[0]
    originals = dict(pictures_of(sorted(evaluated_frames(count, STREAM_FRAMES)), pictures, hold=False))
    quality = []
    for stream in streams:
        quality.append(stream_quality(stream, originals, runtime, faces))
        progress(len(quality) / len(streams))
    return streams[int(np.argmax(quality))]


def stream_quality(
    stream: Stream, originals: Mapping[int, Picture], runtime: Runtime, faces: NDArray[np.float32] | None = None
) -> float:
    """Mean quality of the frames whose originals are given. `faces`: as for `best_stream`."""
    frames = receive(stream, originals, runtime, None if faces is None else originals)
    return float(
        np.mean(
            [
                frame_quality(
                    frame.picture(runtime), originals[frame.number], None if faces is None else faces[frame.number]
                )
                for frame in frames
            ]
        )
    )


def choose_suppression(stream: Stream, count: int, pictures: Pictures, runtime: Runtime) -> int:
    """Small-shift suppression (Runtime.reconstruct) from which more brings nothing, in tenths of a pixel.

    Where a speaker sits still, small shifts are noise of the motion, and sampling between pixels blurs. Where
    everything sways a little, the same shifts are the motion. Sources and frames in skip mode are not evaluated.
    """
    numbers = sorted(evaluated_frames(count, SUPPRESSION_FRAMES, stream.coded.plan.frames))
    originals = dict(pictures_of(numbers, pictures, hold=False))
    frames = [frame for frame in receive(stream, originals, runtime) if frame.unmodified is None]
    best, best_db = SUPPRESSIONS[0], -math.inf
    for tenths in SUPPRESSIONS if frames else ():
        shown = in_order(lambda frame: frame.picture(runtime, suppression=tenths / 10), frames)  # noqa: B023
        mean = float(np.mean([psnr(picture, originals[f.number]) for picture, f in zip(shown, frames, strict=True)]))
        if mean <= best_db + MIN_GAIN_DB:
            break
        best, best_db = tenths, mean
    return best
