"""Streaming encoder: pictures in, packets out, each as soon as it can be: what calls send.

Files are made with the whole clip in view (encoding.py). They share sources, fits and packets with this, and the
decoder takes both.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.bitstream.packets import LARGEST_SLOT, MotionPacket, SourcePacket, runs_of
from iwcodec.codec.fit.alignment import unknowns
from iwcodec.codec.fit.keypoint_fit import live_fit
from iwcodec.codec.media.media import Picture
from iwcodec.codec.motion.predictive_coder import MOST_FRAMES, Levels, MotionCoder, Quantiser
from iwcodec.codec.motion.predictive_rdo import Quadratic, choose_levels, error_per_bit
from iwcodec.codec.motion.predictive_tables import Tables, load_tables
from iwcodec.codec.sources.av1 import SourceEncoder
from iwcodec.codec.sources.library import CAPACITY
from iwcodec.codec.sources.source_policy import LiveSources, as_sent
from iwcodec.models.runtime.runtime import Runtime


@dataclass(frozen=True)
class EncoderSettings:
    quantiser: Quantiser = field(default_factory=Quantiser)
    message_frames: int = 50
    """Frames in one motion packet: as many as may be lost or waited for together."""
    source_crf: int = 50
    """AV1 quality of the sources, 0 (best) to 63."""
    live_sources: bool = True
    """Choose sources as frames come (live.py); otherwise only `add_source` makes them."""
    capacity: int = CAPACITY
    frame_rate: float = 25.0
    """Frames a second: live sources are chosen in time."""
    fit: bool = True
    """Fit keypoints that are found here to the real motion."""


class MotionEncoder:
    """Keypoints to motion packets. Frames are numbered from 0; the last MOST_FRAMES can be packed, in any grouping and
    more than once. A packet stands alone unless the receiver is known to have a frame to predict it from."""

    def __init__(self, quantiser: Quantiser | None = None, tables: Tables | None = None) -> None:
        self._quantiser = quantiser or Quantiser()
        self._coder = MotionCoder(tables or load_tables())
        self._levels: dict[int, Levels] = {}
        self._leaders: dict[int, int | None] = {}
        self._held: Levels | None = None
        self._moved: Levels | None = None
        self._count = 0
        self._acknowledged: int | None = None

    def push(
        self, keypoints: NDArray[np.float32], leader: int | None = None, gram: NDArray[np.float64] | None = None
    ) -> int:
        """Take the next frame (K, 3), the slot of the source that leads in it, and what errors of the keypoints cost
        where that is known (refinement.Fitted); returns its number."""
        before = self._held
        if before is None or gram is None or leader != self._leaders.get(self._count - 1):
            self._held = self._quantiser.quantise(keypoints, before)
        else:
            frame, moved = Quadratic(unknowns(keypoints), gram), np.zeros_like(before)
            weights, price = self._coder.tables.predictor.inter, error_per_bit(self._quantiser)
            moved = moved if self._moved is None else self._moved
            self._held = choose_levels(frame, self._quantiser.steps, before, moved, weights, price)
        self._moved = None if before is None else self._held - before
        self._levels[self._count], self._leaders[self._count] = self._held, leader
        self._levels.pop(self._count - MOST_FRAMES, None)
        self._leaders.pop(self._count - MOST_FRAMES, None)
        self._count += 1
        return self._count - 1

    def sent(self, number: int) -> tuple[NDArray[np.float32], int | None]:
        """A frame that is kept as receivers get it: its keypoints (K, 3), and the slot of the source that leads."""
        return self._quantiser.dequantise(self._levels[number]), self._leaders[number]

    def requantise(self, quantiser: Quantiser) -> None:
        """Use other steps from the next frame on. Frames pushed before can be packed and referred to no more."""
        self._quantiser = quantiser
        self._held = self._moved = self._acknowledged = None
        self._levels.clear()

    def acknowledge(self, number: int) -> None:
        """The receiver has decoded this frame. Numbers that are not kept any more are of no use and ignored."""
        if number in self._levels and number > (-1 if self._acknowledged is None else self._acknowledged):
            self._acknowledged = number

    def pack(self, first: int, count: int) -> MotionPacket:
        """Frames `first` to `first + count - 1`, predicted from the newest acknowledged one where that is shorter.
        Raises KeyError where one of them is not kept."""
        levels = np.stack([self._levels[number] for number in range(first, first + count)])
        led = runs_of([self._leaders[number] for number in range(first, first + count)])
        alone = MotionPacket(first, count, None, self._coder.encode(levels, None), led)
        reference = self._acknowledged
        if reference is None or reference >= first or reference not in self._levels:
            return alone
        predicted = MotionPacket(first, count, reference, self._coder.encode(levels, self._levels[reference]), led)
        return min(alone, predicted, key=lambda packet: len(packet.to_bytes()))


class Encoder:
    """One speaker's stream. Frames are numbered from 0 in the order they are pushed."""

    def __init__(self, runtime: Runtime, settings: EncoderSettings | None = None, tables: Tables | None = None) -> None:
        self.settings = settings or EncoderSettings()
        self._runtime = runtime
        self._motion = MotionEncoder(self.settings.quantiser, tables)
        self._sources = SourceEncoder(runtime.info.size, self.settings.source_crf)
        self._live = LiveSources(runtime, self.settings.capacity)
        self.library = self._live.library
        self._fit = live_fit()
        self._slot = 0
        self._frame = 0
        self._packed = 0

    def add_source(self, picture: Picture, frame: int | None = None) -> SourcePacket:
        """Send this picture as a source; frames pushed later can use it. Those that still wait for their packet should
        go first (`flush`): a full library forgets a source, which may be theirs. `frame`: the number of the frame that
        this is, which the receiver then shows as it came."""
        payload = self._sources.add(picture)
        packet = SourcePacket(self._slot, payload, frame)
        self._live.add(self._slot, self._live.prepare(picture, self._sources.reconstructed), self._time_s)
        self._slot = (self._slot + 1) % (LARGEST_SLOT + 1)
        return packet

    def push(self, picture: Picture) -> list[SourcePacket | MotionPacket]:
        """Encode the next frame: uint8 (size, size, 3). Returns the packets that it completes."""
        keypoints, leader, gram = self._runtime.detect(picture), None, None
        if self.settings.fit:
            fitted = self._fit.frame(picture, keypoints, self.library.candidates(keypoints))
            keypoints = fitted.keypoints
            gram = None if fitted.gram is None else fitted.gram()
            leader = self.library.slot(fitted.source)
        return self.push_keypoints(keypoints, leader, gram, picture)

    def push_keypoints(
        self,
        keypoints: NDArray[np.float32],
        leader: int | None = None,
        gram: NDArray[np.float64] | None = None,
        picture: Picture | None = None,
    ) -> list[SourcePacket | MotionPacket]:
        """As `push` where the keypoints are known already, the slot of the source that leads and what errors cost;
        without a picture the frame cannot become a source."""
        packets: list[SourcePacket | MotionPacket] = []
        if self.settings.live_sources and picture is not None and self._needs_source(picture, keypoints, leader):
            waiting, source = self.flush(), self.add_source(picture)
            packets += [*waiting, source]
            if leader is not None and self.library.at(leader) is None:  # it made room for this one
                leader, keypoints, gram = source.slot, self.library.sources()[-1].keypoints, None
        self._frame = self._motion.push(keypoints, leader, gram) + 1
        if self._frame - self._packed >= min(self.settings.message_frames, MOST_FRAMES):
            packets += self.flush()
        return packets

    def flush(self) -> list[SourcePacket | MotionPacket]:
        """The motion of frames that wait for their packet to fill."""
        if self._packed == self._frame:
            return []
        packet = self._motion.pack(self._packed, self._frame - self._packed)
        for number in range(self._packed, self._frame):  # as the receiver does, when the packet comes
            self.library.use(*self._motion.sent(number))
        self._packed = self._frame
        return [packet]

    @property
    def _time_s(self) -> float:
        """Of the frame that is being pushed."""
        return self._frame / self.settings.frame_rate

    def _needs_source(self, picture: Picture, keypoints: NDArray[np.float32], leader: int | None) -> bool:
        if not self._live.due(self._time_s):
            return False
        if not len(self.library):
            return True
        sent = as_sent(keypoints, self.settings.quantiser)
        judged = self._live.rebuild(picture, sent, self.library.nearest(sent, leader=leader))
        return self._live.wants(judged, self._time_s)


def encode_all(encoder: Encoder, pictures: Iterable[Picture]) -> Iterable[SourcePacket | MotionPacket]:
    """Packets of a whole stream."""
    for picture in pictures:
        yield from encoder.push(picture)
    yield from encoder.flush()
