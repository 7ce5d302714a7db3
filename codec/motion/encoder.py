"""."""

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.bitstream.packets import MAX_FRAMES, MotionPacket, runs_of
from iwcodec.codec.fit.alignment import unknowns
from iwcodec.codec.motion.predictive_coder import MotionCoder
from iwcodec.codec.motion.predictive_rdo import choose_levels, error_per_bit
from iwcodec.codec.motion.predictive_tables import Tables, load_tables
from iwcodec.codec.motion.types import Levels, Quadratic, Quantiser


class MotionEncoder:
    """Keypoints to motion packets. Frames are numbered from 0; the last MAX_FRAMES can be packed, in any grouping and
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
        self,
        keypoints: NDArray[np.float32],
        reference_source: int | None = None,
        gram: NDArray[np.float64] | None = None,
    ) -> int:
        """Take the next frame (K, 3), the slot of the source that leads in it, and what errors of the keypoints cost
        where that is known (refinement.Fitted); returns its number."""
        before = self._held
        if before is None or gram is None or reference_source != self._leaders.get(self._count - 1):
            self._held = self._quantiser.quantise(keypoints, before)
        else:
            frame, moved = Quadratic(unknowns(keypoints), gram), np.zeros_like(before)
            weights, price = self._coder.tables.predictor.inter, error_per_bit(self._quantiser)
            moved = moved if self._moved is None else self._moved
            self._held = choose_levels(frame, self._quantiser.steps, before, moved, weights, price)
        self._moved = None if before is None else self._held - before
        self._levels[self._count], self._leaders[self._count] = self._held, reference_source
        self._levels.pop(self._count - MAX_FRAMES, None)
        self._leaders.pop(self._count - MAX_FRAMES, None)
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
        runs = runs_of([self._leaders[number] for number in range(first, first + count)])
        alone = MotionPacket(first, count, None, self._coder.encode(levels, None), runs)
        reference = self._acknowledged
        if reference is None or reference >= first or reference not in self._levels:
            return alone
        predicted = MotionPacket(first, count, reference, self._coder.encode(levels, self._levels[reference]), runs)
        return min(alone, predicted, key=lambda packet: len(packet.to_bytes()))
