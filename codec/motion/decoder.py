"""Motion packets of streams and calls to keypoints."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.bitstream.packets import MAX_PACKET_FRAMES, MotionPacket, Run
from iwcodec.codec.errors import FormatError
from iwcodec.codec.motion.predictive_coder import PredictiveCoder
from iwcodec.codec.motion.predictive_tables import Tables, load_tables
from iwcodec.codec.motion.space import MotionSpace
from iwcodec.codec.motion.transform_coder import decoded_runs, transform_coder
from iwcodec.codec.motion.types import CodedFrame, Levels, Quantiser

MAX_COORDINATE = 1e6
"""Largest magnitude of a coordinate. Valid keypoints stay far below; differences from acknowledged frames, which add up
from message to message, cannot exceed it."""
T = TypeVar("T")


@dataclass(frozen=True)
class Motion:
    """A decoded frame, before its picture is reconstructed."""

    number: int
    """Frame number."""
    keypoints: NDArray[np.float32]
    """(K, 3): x and y in [-1, 1], strength in [0, 1]."""
    reference_source: int | None = None
    """Slot of the reference source; None: the source nearest in pose."""
    skip: bool = False
    """Skip mode: the frame is the unmodified reference source."""
    regions: tuple[int | None, ...] = ()
    """Slot of the source that each region shows; None, and regions that are not named: the reference source."""


Spaces = Callable[[int], MotionSpace | None]
"""Coordinates of the source in a slot; None if the slot is empty."""


class MotionDecoder:
    """Decodes motion packets, in any order. Keeps the levels of the MAX_PACKET_FRAMES newest predictively coded frames,
    and the last frames of as many transform-coded packets, from which further packets may be predicted."""

    def __init__(self, keypoints: int, tables: Tables | None = None, spaces: Spaces = lambda slot: None) -> None:
        """`keypoints`: K. `tables`: of the predictive coder; the shipped ones by default. `spaces`: of the sources that
        transform-coded packets may name; by default none."""
        self._keypoints = keypoints
        self._coder = PredictiveCoder(tables or load_tables())
        self._transform = transform_coder()
        self._spaces = spaces
        self._levels: dict[int, tuple[Quantiser, Levels]] = {}
        """Levels (K, 3) by frame number, with the quantiser they belong to."""
        self._ends: dict[int, CodedFrame] = {}
        """Last frames of transform-coded packets, by frame number."""

    @property
    def newest(self) -> int | None:
        """Highest frame number decoded, to be acknowledged; None before the first."""
        return max((*self._levels, *self._ends), default=None)

    def decode(self, packet: MotionPacket, quantiser: Quantiser) -> list[Motion]:
        """Return the frames of a packet. Raises FormatError, also if the reference frame is missing or was coded with
        another quantiser, or if a reference source of transform-coded frames is missing."""
        if packet.scale is not None:
            return self._transformed(packet, packet.scale)
        reference = None
        if packet.reference is not None:
            kept = self._levels.get(packet.reference)
            if kept is None or kept[0] != quantiser:
                raise FormatError(f"A motion packet refers to frame {packet.reference}, which is not available.")
            reference = kept[1]
        levels = self._coder.decode(packet.payload, packet.count, self._keypoints, reference)
        for number, row in enumerate(levels, packet.first):
            self._levels[number] = quantiser, row
        _keep_newest(self._levels)
        rows = zip(quantiser.dequantise(levels), packet.reference_sources(), strict=True)
        return [
            Motion(number, row, source, regions=packet.regions_of(number - packet.first))
            for number, (row, source) in enumerate(rows, packet.first)
        ]

    def _transformed(self, packet: MotionPacket, scale: int) -> list[Motion]:
        before = None if packet.reference is None else self._ends.get(packet.reference)
        if packet.reference is not None and before is None:
            raise FormatError(f"A motion packet refers to frame {packet.reference}, which is not available.")
        runs = (Run(before.reference_source, packet.count),) if before is not None and packet.alike else packet.runs
        levels = self._transform.decode(packet.payload, [run.frames for run in runs], 3 * self._keypoints)
        coordinates = decoded_runs(levels, runs, scale, before)
        if max(np.abs(rows).max() for rows in coordinates) > MAX_COORDINATE:
            raise FormatError("A motion packet holds a coordinate out of range.")
        frames: list[Motion] = []
        for run, rows in zip(runs, coordinates, strict=True):
            space = self._spaces(run.slot)
            if space is None:
                raise FormatError(f"A motion packet names source {run.slot}, which is not available.")
            for keypoints in space.keypoints(rows):
                at = len(frames)
                regions = before.regions if before is not None and packet.alike else packet.regions_of(at)
                frames.append(Motion(packet.first + at, keypoints, run.slot, regions=regions))
        last = frames[-1]
        self._ends[last.number] = CodedFrame(coordinates[-1][-1], runs[-1].slot, last.regions)
        _keep_newest(self._ends)
        return frames


def _keep_newest(frames: dict[int, T]) -> None:
    """Drop all but the MAX_PACKET_FRAMES newest frames, by frame number."""
    for number in sorted(frames)[:-MAX_PACKET_FRAMES]:
        del frames[number]
