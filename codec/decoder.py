"""Streaming decoder: packets in, pictures out. Files and calls share it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.bitstream.packets import MotionPacket, SourcePacket
from iwcodec.codec.media.types import Picture
from iwcodec.codec.motion.decoder import Motion, MotionDecoder
from iwcodec.codec.motion.predictive_tables import Tables
from iwcodec.codec.motion.space import MotionSpace, motion_space
from iwcodec.codec.motion.transform_coder import TransformCoder, over_time
from iwcodec.codec.motion.transform_tables import load_transform_tables
from iwcodec.codec.motion.types import Levels, Quantiser
from iwcodec.codec.sources.av1 import SourceDecoder
from iwcodec.codec.sources.library import ACTIVE, CAPACITY, Library
from iwcodec.models.runtime.types import Runtime, Source

MAX_SHOWN = 512
"""Sources that are frames yet to be shown; a motion packet holds at most MAX_FRAMES, and its sources precede it."""


@dataclass(frozen=True)
class Frame:
    number: int
    picture: Picture


class Decoder:
    """One speaker's stream. Everything that arrives is foreign: FormatError is raised for what cannot be used, and
    the decoder goes on with the next packet as if the bad one had been lost.

    Where the library is full and motion is transformed, the source that came first leaves first: what is in it depends
    on the sources alone, so that a sender knows it, and a file that is entered in the middle has it too. Calls keep
    what is used.
    """

    def __init__(
        self,
        runtime: Runtime,
        quantiser: Quantiser | None = None,
        tables: Tables | None = None,
        capacity: int = CAPACITY,
        active: int = ACTIVE,
        suppression: float = 0.0,
    ) -> None:
        """`suppression`: of the shifts that frames are rebuilt with (Runtime.reconstruct)."""
        self._runtime = runtime
        self._quantiser = quantiser or Quantiser()
        self._motion = MotionDecoder(runtime.info.keypoints, tables)
        self._transform = TransformCoder(load_transform_tables())
        self._spaces: dict[int, tuple[Source, MotionSpace]] = {}
        self._sources = SourceDecoder(runtime.info.size)
        self.library = Library(capacity)
        self._capacity = capacity
        self._active = active
        self._suppression = suppression
        self._waiting: dict[int, Picture] = {}
        self._shown: dict[int, Picture] = {}

    def push(self, packet: SourcePacket | MotionPacket) -> Iterator[Frame]:
        """The frames a packet completes; a source completes none. Raises FormatError."""
        if isinstance(packet, SourcePacket):
            self.add_source(packet)
            return
        for motion in self.motion(packet):
            picture = self.picture(motion)
            if picture is not None:
                yield Frame(motion.number, picture)

    def picture(self, motion: Motion) -> Picture | None:
        """A frame: the source that it is, or rebuilt; None while there is no source."""
        shown = self._shown.pop(motion.number, None)
        return self.rebuilt(motion) if shown is None else shown

    def add_source(self, packet: SourcePacket) -> None:
        """Decode a source. Raises FormatError.

        Its keys and values are prepared when a frame is first rebuilt from it: where most frames are sources, and
        shown as they came, most never are.
        """
        picture = self._sources.add(packet.payload)
        self._waiting[packet.slot] = picture
        keep_newest(self._waiting, self._capacity)
        if packet.frame is not None:
            self._shown[packet.frame] = picture
            keep_newest(self._shown, MAX_SHOWN)

    def miss_sources(self) -> None:
        """To be called when a source is known to be missing: those that build on it are refused, until a key unit."""
        self._sources.reset()

    def motion(self, packet: MotionPacket) -> list[Motion]:
        """Keypoints of the frames in a packet, without pictures; of transformed motion only those of frames whose
        leading source is there. Raises FormatError."""
        if packet.scale is None:
            self.prepare()
            called = self._motion.decode(packet, self._quantiser)
            for motion in called:
                self.library.use(motion.keypoints, motion.reference_source)
            return called
        found, first = [], packet.first
        lengths = [run.frames for run in packet.runs]
        levels = self._transform.decode(packet.payload, lengths, 3 * self._runtime.info.keypoints)
        for run, rows in zip(packet.runs, levels, strict=True):
            numbers = range(first, first + run.frames)
            found += [
                Motion(number, keypoints, run.slot, not rows.any())
                for number, keypoints in zip(numbers, self._moved(run.slot, numbers, rows, packet.scale), strict=False)
            ]
            first += run.frames
        return found

    def _moved(self, slot: int, numbers: range, levels: Levels, scale: int) -> list[NDArray[np.float32]]:
        """Keypoints of consecutive frames that a source leads; none where it is not there."""
        if all(number in self._shown for number in numbers):  # the source need not be prepared for this
            return [np.zeros((self._runtime.info.keypoints, 3), np.float32)] * len(numbers)
        space = self.space(slot)
        return [] if space is None else space.keypoints(over_time(levels, scale))

    def space(self, slot: int) -> MotionSpace | None:
        """In which the motion from a source is coded; None where it is not in the library."""
        self.prepare()
        source = self.library.at(slot)
        if source is None:
            return None
        if slot not in self._spaces or self._spaces[slot][0] is not source:
            self._spaces = {at: kept for at, kept in self._spaces.items() if self.library.at(at) is kept[0]}
            self._spaces[slot] = source, motion_space(source, self._transform.tables.directions)
        return self._spaces[slot][1]

    def reconstruct(self, keypoints: NDArray[np.float32], reference_source: int | None = None) -> Picture | None:
        """A picture from keypoints, the source in the slot that leads and the nearest ones; None while there is no
        source."""
        nearest = self.nearest(keypoints, reference_source)
        return self._runtime.reconstruct(keypoints, nearest, self._suppression) if nearest else None

    def rebuilt(self, motion: Motion) -> Picture | None:
        """A frame that is no source; None while there is no source."""
        source = (
            self.library.at(motion.reference_source) if motion.still and motion.reference_source is not None else None
        )
        return self.reconstruct(motion.keypoints, motion.reference_source) if source is None else source.picture

    def rebuild(self, keypoints: NDArray[np.float32], reference_source: Source) -> Picture:
        """A picture from keypoints, a source of the library that leads, and the nearest ones."""
        picture = self.reconstruct(keypoints, self.library.slot(reference_source))
        assert picture is not None
        return picture

    def nearest(self, keypoints: NDArray[np.float32], reference_source: int | None = None) -> list[Source]:
        """The sources that a frame with these keypoints is rebuilt from."""
        self.prepare()
        return self.library.nearest(keypoints, self._active, reference_source)

    def prepare(self) -> None:
        """Put the sources that have come into the library."""
        for slot, picture in self._waiting.items():
            self.library.add(slot, self._runtime.prepare(picture))
        self._waiting.clear()


def keep_newest(pictures: dict[int, Picture], most: int) -> None:
    """Drop what was put in first until `most` are left."""
    while len(pictures) > most:
        del pictures[next(iter(pictures))]
