"""Streaming encoder: pictures in, packets out, each as soon as it can be: what calls send.

Files are made with the whole clip in view (encoding.py). They share sources, fits and packets with this, and the
decoder takes both.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.bitstream.packets import MAX_FRAMES, MAX_SLOT, MotionPacket, SourcePacket
from iwcodec.codec.fit.keypoint_fit import live_fit
from iwcodec.codec.media.types import Picture
from iwcodec.codec.motion.encoder import MotionEncoder
from iwcodec.codec.motion.predictive_tables import Tables
from iwcodec.codec.motion.types import Quantiser
from iwcodec.codec.sources.av1 import SourceEncoder
from iwcodec.codec.sources.library import CAPACITY
from iwcodec.codec.sources.source_policy import SourcePolicy, as_sent
from iwcodec.models.runtime.types import Runtime


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


class Encoder:
    """One speaker's stream. Frames are numbered from 0 in the order they are pushed."""

    def __init__(self, runtime: Runtime, settings: EncoderSettings | None = None, tables: Tables | None = None) -> None:
        self.settings = settings or EncoderSettings()
        self._runtime = runtime
        self._motion = MotionEncoder(self.settings.quantiser, tables)
        self._sources = SourceEncoder(runtime.info.size, self.settings.source_crf)
        self._live = SourcePolicy(runtime, self.settings.capacity)
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
        self._slot = (self._slot + 1) % (MAX_SLOT + 1)
        return packet

    def push(self, picture: Picture) -> list[SourcePacket | MotionPacket]:
        """Encode the next frame: uint8 (size, size, 3). Returns the packets that it completes."""
        keypoints, reference_source, gram = self._runtime.detect(picture), None, None
        if self.settings.fit:
            fitted = self._fit.frame(picture, keypoints, self.library.candidates(keypoints))
            keypoints = fitted.keypoints
            gram = None if fitted.gram is None else fitted.gram()
            reference_source = self.library.slot(fitted.source)
        return self.push_keypoints(keypoints, reference_source, gram, picture)

    def push_keypoints(
        self,
        keypoints: NDArray[np.float32],
        reference_source: int | None = None,
        gram: NDArray[np.float64] | None = None,
        picture: Picture | None = None,
    ) -> list[SourcePacket | MotionPacket]:
        """As `push` where the keypoints are known already, the slot of the source that leads and what errors cost;
        without a picture the frame cannot become a source."""
        packets: list[SourcePacket | MotionPacket] = []
        if (
            self.settings.live_sources
            and picture is not None
            and self._needs_source(picture, keypoints, reference_source)
        ):
            waiting, source = self.flush(), self.add_source(picture)
            packets += [*waiting, source]
            if reference_source is not None and self.library.at(reference_source) is None:  # it made room for this one
                reference_source, keypoints, gram = source.slot, self.library.sources()[-1].keypoints, None
        self._frame = self._motion.push(keypoints, reference_source, gram) + 1
        if self._frame - self._packed >= min(self.settings.message_frames, MAX_FRAMES):
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

    def _needs_source(self, picture: Picture, keypoints: NDArray[np.float32], reference_source: int | None) -> bool:
        if not self._live.due(self._time_s):
            return False
        if not len(self.library):
            return True
        sent = as_sent(keypoints, self.settings.quantiser)
        judged = self._live.rebuild(picture, sent, self.library.nearest(sent, reference_source=reference_source))
        return self._live.wants(judged, self._time_s)


def encode_all(encoder: Encoder, pictures: Iterable[Picture]) -> Iterable[SourcePacket | MotionPacket]:
    """Packets of a whole stream."""
    for picture in pictures:
        yield from encoder.push(picture)
    yield from encoder.flush()
