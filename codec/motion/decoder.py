"""."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.bitstream.packets import MAX_FRAMES, MotionPacket
from iwcodec.codec.errors import FormatError
from iwcodec.codec.motion.predictive_coder import MotionCoder, coded_frames, filled_in
from iwcodec.codec.motion.predictive_tables import Tables, load_tables
from iwcodec.codec.motion.types import Levels, Quantiser


@dataclass(frozen=True)
class Motion:
    number: int
    keypoints: NDArray[np.float32]
    reference_source: int | None = None
    """Slot of the source that leads; None: the nearest in pose."""
    still: bool = False
    """Nothing moves: the source that leads is shown as it lies."""


class MotionDecoder:
    """Motion packets that are not transformed to keypoints, in whatever order they come. The MAX_FRAMES newest frames
    are kept to predict others from."""

    def __init__(self, keypoints: int, tables: Tables | None = None) -> None:
        self._keypoints = keypoints
        self._coder = MotionCoder(tables or load_tables())
        self._levels: dict[int, tuple[Quantiser, Levels]] = {}

    @property
    def newest(self) -> int | None:
        """The highest frame number that has come; what an acknowledgement names."""
        return max(self._levels, default=None)

    def decode(self, packet: MotionPacket, quantiser: Quantiser) -> list[Motion]:
        """The frames of a packet. Raises FormatError, also where the reference is not there or has other steps."""
        if packet.scale is not None:
            raise FormatError("A call's motion packet is transformed over time.")
        reference = None
        if packet.reference is not None:
            kept = self._levels.get(packet.reference)
            if kept is None or kept[0] != quantiser:
                raise FormatError(f"A motion packet refers to frame {packet.reference}, which is not there.")
            reference = kept[1]
        coded, reference_sources = coded_frames(packet.count, packet.stride), packet.reference_sources()
        levels = self._coder.decode(packet.payload, len(coded), self._keypoints, reference)
        for number, row in zip(coded, levels, strict=True):
            self._levels[packet.first + number] = quantiser, row
        for number in sorted(self._levels)[:-MAX_FRAMES]:
            del self._levels[number]
        rows = zip(filled_in(quantiser.dequantise(levels), coded, reference_sources), reference_sources, strict=True)
        return [
            Motion(number, row, reference_source) for number, (row, reference_source) in enumerate(rows, packet.first)
        ]
