"""Streaming decoder: packets in, pictures out, for files and for streams of `Encoder`.

Calls compose the same parts (MotionDecoder, SourceDecoder, Library) for each peer instead of using `Decoder`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.arguments import check_number, check_runtime, check_type
from iwcodec.codec.bitstream.packets import MAX_SLOT, MotionPacket, SourcePacket
from iwcodec.codec.errors import FormatError
from iwcodec.codec.media.types import Picture
from iwcodec.codec.motion.decoder import Motion, MotionDecoder
from iwcodec.codec.motion.predictive_tables import Tables
from iwcodec.codec.motion.space import MotionSpace, MotionSpaces
from iwcodec.codec.motion.transform_coder import TransformCoder, inverse_transform
from iwcodec.codec.motion.transform_tables import load_transform_tables
from iwcodec.codec.motion.types import Levels, Quantiser
from iwcodec.codec.sources.av1 import SourceDecoder
from iwcodec.codec.sources.library import ACTIVE, CAPACITY, Library
from iwcodec.codec.sources.regions import Compositor
from iwcodec.models.runtime.types import Runtime, Source

MAX_SOURCE_FRAMES = 512
"""Most sources kept to be shown as frames. They precede the motion packet of their frames, which holds at most
MAX_PACKET_FRAMES."""


@dataclass(frozen=True)
class Frame:
    """A decoded frame: its number and its uint8 picture (size, size, 3)."""

    number: int
    picture: Picture


class Decoder:
    """Decodes the stream of one speaker. Packets are untrusted: an invalid one raises FormatError, after which decoding
    continues with the next packet as if the invalid one had been lost.

    Eviction from a full library depends on the motion coder. With the transform coder the oldest source is dropped: the
    library depends on the source packets alone and is the same after a seek into a file. With the predictive coder the
    least recently used one is dropped.
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
        """`runtime`: the network (`load_runtime`). `quantiser`, `capacity`: as in EncoderSettings. `tables`: of the
        predictive coder; the shipped ones by default. `active`: most sources in the attention of a frame.
        `suppression`: small-shift suppression in pixels (Runtime.reconstruct). Raises OptionError for anything
        else."""
        check_type("quantiser", quantiser, Quantiser, None)
        check_type("tables", tables, Tables, None)
        for name, value in (("capacity", capacity), ("active", active)):
            check_type(name, value, int)
            check_number(name, value, 1, MAX_SLOT + 1)
        check_number("suppression", suppression, 0, math.inf)
        self._runtime = check_runtime(runtime)
        self._quantiser = quantiser or Quantiser()
        self._motion = MotionDecoder(runtime.info.keypoints, tables)
        self._transform = TransformCoder(load_transform_tables())
        self._sources = SourceDecoder(runtime.info.size)
        self.library = Library(capacity)
        self._spaces = MotionSpaces(self.library, self._transform.tables.directions)
        self.compositor = Compositor(runtime)
        self._capacity = capacity
        self._active = active
        self._suppression = suppression
        self._unprepared: dict[int, Picture] = {}
        self._source_frames: dict[int, Picture] = {}

    def push(self, packet: SourcePacket | MotionPacket) -> Iterator[Frame]:
        """Decode a packet and return its frames, whose pictures are made as they are taken; only motion packets have
        any. Raises FormatError, also for what is no packet."""
        if isinstance(packet, SourcePacket):
            self.add_source(packet)
            return iter(())
        if isinstance(packet, MotionPacket):
            return self._frames(self.motion(packet))
        raise FormatError(f"A packet is a SourcePacket or a MotionPacket, not {type(packet).__name__}.")

    def _frames(self, motions: list[Motion]) -> Iterator[Frame]:
        for motion in motions:
            picture = self.picture(motion)
            if picture is not None:
                yield Frame(motion.number, picture)

    def picture(self, motion: Motion) -> Picture | None:
        """Return a frame's picture: the source sent as this frame, else a reconstruction; None without any source."""
        source_frame = self._source_frames.pop(motion.number, None)
        return self.reconstruct_motion(motion) if source_frame is None else source_frame

    def add_source(self, packet: SourcePacket) -> None:
        """Decode a source packet. Raises FormatError.

        The network prepares the source only when a frame is reconstructed from it. At high rates, where most frames are
        sources, most are never prepared.
        """
        picture = self._sources.add(packet.payload)
        if packet.base is not None:
            self.prepare()
            base = self.library.at(packet.base)
            if base is None:
                raise FormatError(f"A source is a variant of source {packet.base}, which is not available.")
            self.library.add(packet.slot, self._runtime.with_picture(base, picture), variant=True)
            return
        self._unprepared[packet.slot] = picture
        keep_newest(self._unprepared, self._capacity)
        if packet.frame is not None:
            self._source_frames[packet.frame] = picture
            keep_newest(self._source_frames, MAX_SOURCE_FRAMES)

    def reset_sources(self) -> None:
        """Call this when a source packet is lost: sources predicted from it are refused until a key unit."""
        self._sources.reset()

    def motion(self, packet: MotionPacket) -> list[Motion]:
        """Decode the keypoints of a packet's frames, without pictures. Frames of the transform coder are left out if
        their reference source is missing. Raises FormatError."""
        if packet.scale is None:
            self.prepare()
            frames = self._motion.decode(packet, self._quantiser)
            for motion in frames:
                self.library.use(motion.keypoints, motion.reference_source, motion.regions)
            return frames
        if packet.reference is not None:
            raise FormatError("A transform-coded motion packet has a reference frame, as only calls may.")
        frames, first = [], packet.first
        lengths = [run.frames for run in packet.runs]
        levels = self._transform.decode(packet.payload, lengths, 3 * self._runtime.info.keypoints)
        for run, rows in zip(packet.runs, levels, strict=True):
            numbers = range(first, first + run.frames)
            frames += [
                Motion(number, keypoints, run.slot, not rows.any(), packet.regions_of(number - packet.first))
                for number, keypoints in zip(numbers, self._run(run.slot, numbers, rows, packet.scale), strict=False)
            ]
            first += run.frames
        return frames

    def _run(self, slot: int, numbers: range, levels: Levels, scale: int) -> list[NDArray[np.float32]]:
        """Return the keypoints (K, 3) of the frames of a run with levels (n, 3 K); none if the reference source in
        `slot` is missing."""
        if all(number in self._source_frames for number in numbers):  # needs no prepared source
            return [np.zeros((self._runtime.info.keypoints, 3), np.float32)] * len(numbers)
        space = self.space(slot)
        return [] if space is None else space.keypoints(inverse_transform(levels, scale))

    def space(self, slot: int) -> MotionSpace | None:
        """Return the coordinates of motion from the source in a slot; None if the slot is empty."""
        self.prepare()
        return self._spaces.at(slot)

    def reconstruct(self, keypoints: NDArray[np.float32], reference_source: int | None = None) -> Picture | None:
        """Reconstruct a picture from keypoints (K, 3), the reference source in a slot and the sources nearest in pose;
        None without any source."""
        nearest = self.nearest(keypoints, reference_source)
        return self._runtime.reconstruct(keypoints, nearest, self._suppression) if nearest else None

    def reconstruct_motion(self, motion: Motion) -> Picture | None:
        """Reconstruct a frame, or return its reference source in skip mode; None without any source."""
        sources = self.sources_of(motion)
        if not sources:
            return None
        if motion.skip:
            return sources[0].picture
        return self._runtime.reconstruct(motion.keypoints, sources, self._suppression)

    def sources_of(self, motion: Motion) -> list[Source]:
        """Return the sources that a frame is reconstructed from: first the reference source, with other sources'
        regions where the frame shows them."""
        sources = self.nearest(motion.keypoints, motion.reference_source)
        if not sources or not any(slot is not None for slot in motion.regions):
            return sources
        shown = [None if slot is None else self.library.at(slot) for slot in motion.regions]
        return [self.compositor.composite(sources[0], shown), *sources[1:]]

    def reconstruct_from(self, keypoints: NDArray[np.float32], reference_source: Source) -> Picture:
        """As `reconstruct`, with a reference source that is in the library."""
        picture = self.reconstruct(keypoints, self.library.slot(reference_source))
        assert picture is not None
        return picture

    def nearest(self, keypoints: NDArray[np.float32], reference_source: int | None = None) -> list[Source]:
        """Return the sources from which a frame with keypoints (K, 3) is reconstructed, the reference source first."""
        self.prepare()
        return self.library.nearest(keypoints, self._active, reference_source)

    def prepare(self) -> None:
        """Prepare the sources received since the last call and add them to the library."""
        for slot, picture in self._unprepared.items():
            self.library.add(slot, self._runtime.prepare(picture))
        self._unprepared.clear()


def keep_newest(pictures: dict[int, Picture], most: int) -> None:
    """Drop the oldest entries until at most `most` are left."""
    while len(pictures) > most:
        del pictures[next(iter(pictures))]
