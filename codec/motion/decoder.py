"""Motion packets of the predictive coder to keypoints."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.bitstream.packets import MAX_PACKET_FRAMES, MotionPacket
from iwcodec.codec.errors import FormatError
from iwcodec.codec.motion.predictive_coder import PredictiveCoder
from iwcodec.codec.motion.predictive_tables import Tables, load_tables
from iwcodec.codec.motion.types import Levels, Quantiser


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


class MotionDecoder:
    """Decodes motion packets of the predictive coder, in any order. Keeps the levels of the MAX_PACKET_FRAMES newest
    frames, from which further packets may be predicted."""

    def __init__(self, keypoints: int, tables: Tables | None = None) -> None:
        """`keypoints`: K. `tables`: of the predictive coder; the shipped ones by default."""
        self._keypoints = keypoints
        self._coder = PredictiveCoder(tables or load_tables())
        self._levels: dict[int, tuple[Quantiser, Levels]] = {}
        """Levels (K, 3) by frame number, with the quantiser they belong to."""

    @property
    def newest(self) -> int | None:
        """Highest frame number decoded, to be acknowledged; None before the first."""
        return max(self._levels, default=None)

    def decode(self, packet: MotionPacket, quantiser: Quantiser) -> list[Motion]:
        """Return the frames of a packet. Raises FormatError, also if the reference frame is missing or was coded with
        another quantiser."""
        if packet.scale is not None:
            raise FormatError("The packet is of the transform coder, which calls do not use.")
        reference = None
        if packet.reference is not None:
            kept = self._levels.get(packet.reference)
            if kept is None or kept[0] != quantiser:
                raise FormatError(f"A motion packet refers to frame {packet.reference}, which is not available.")
            reference = kept[1]
        levels = self._coder.decode(packet.payload, packet.count, self._keypoints, reference)
        for number, row in enumerate(levels, packet.first):
            self._levels[number] = quantiser, row
        for number in sorted(self._levels)[:-MAX_PACKET_FRAMES]:
            del self._levels[number]
        rows = zip(quantiser.dequantise(levels), packet.reference_sources(), strict=True)
        return [
            Motion(number, row, source, regions=packet.regions_of(number - packet.first))
            for number, (row, source) in enumerate(rows, packet.first)
        ]
