"""Streaming encoder: pictures in, packets out. Files and calls share it."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .library import CAPACITY, Library, pose_distance
from .media import Picture
from .models.runtime import Runtime
from .motion import MotionCoder, Quantiser
from .motion_tables import Tables, load_tables
from .packets import MotionPacket, SourcePacket
from .sources import SourceEncoder


@dataclass(frozen=True)
class EncoderSettings:
    quantiser: Quantiser = field(default_factory=Quantiser)
    message_frames: int = 50
    """Frames in one motion packet: as many as may be lost or waited for together."""
    source_crf: int = 50
    """AV1 quality of the sources, 0 (best) to 63."""
    live_sources: bool = True
    """Choose sources as frames come; otherwise only `add_source` makes them."""
    capacity: int = CAPACITY


NEW_POSE = 0.02
"""Live: mean squared keypoint distance from the nearest source at which a frame becomes one itself."""
REST_FRAMES = 12
"""Live: frames between two new sources, so that a burst of motion does not fill the link."""


class Encoder:
    """One speaker's stream. Frames are numbered from 0 in the order they are pushed."""

    def __init__(self, runtime: Runtime, settings: EncoderSettings | None = None, tables: Tables | None = None) -> None:
        self.settings = settings or EncoderSettings()
        self._runtime = runtime
        self._coder = MotionCoder(tables or load_tables())
        self._sources = SourceEncoder(runtime.info.size, self.settings.source_crf)
        self.library = Library(self.settings.capacity)
        self._slot = 0
        self._frame = 0
        self._waiting: list[NDArray[np.int32]] = []
        self._held: NDArray[np.int32] | None = None
        self._last_source = -REST_FRAMES

    def add_source(self, picture: Picture) -> SourcePacket:
        """Send this picture as a source; frames pushed later can use it."""
        payload = self._sources.add(picture)
        packet = SourcePacket(self._slot, payload)
        self.library.add(self._slot, self._runtime.prepare(self._sources.reconstructed))
        self._slot += 1
        self._last_source = self._frame
        return packet

    def push(self, picture: Picture) -> list[SourcePacket | MotionPacket]:
        """Encode the next frame: uint8 (size, size, 3). Returns the packets that it completes."""
        return self.push_keypoints(self._runtime.detect(picture), picture)

    def push_keypoints(
        self, keypoints: NDArray[np.float32], picture: Picture | None = None
    ) -> list[SourcePacket | MotionPacket]:
        """As `push` where the keypoints are known already; without a picture the frame cannot become a source."""
        packets: list[SourcePacket | MotionPacket] = []
        if self.settings.live_sources and picture is not None and self._needs_source(keypoints):
            packets.append(self.add_source(picture))
        self._held = self.settings.quantiser.quantise(keypoints, self._held)
        self._waiting.append(self._held)
        self._frame += 1
        if len(self._waiting) >= self.settings.message_frames:
            packets += self.flush()
        return packets

    def flush(self) -> list[SourcePacket | MotionPacket]:
        """The motion of frames that wait for their packet to fill."""
        if not self._waiting:
            return []
        levels = np.stack(self._waiting)
        first = self._frame - len(levels)
        self._waiting.clear()
        return [MotionPacket(first, len(levels), None, self._coder.encode(levels, None))]

    def _needs_source(self, keypoints: NDArray[np.float32]) -> bool:
        nearest = self.library.nearest(keypoints, 1)
        if not nearest:
            return True
        rested = self._frame - self._last_source >= REST_FRAMES
        return rested and float(pose_distance(nearest[0].keypoints, keypoints)) > NEW_POSE


def encode_all(encoder: Encoder, pictures: Iterable[Picture]) -> Iterable[SourcePacket | MotionPacket]:
    """Packets of a whole stream."""
    for picture in pictures:
        yield from encoder.push(picture)
    yield from encoder.flush()
