"""Keypoints to motion packets of the predictive coder."""

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.bitstream.packets import MAX_PACKET_FRAMES, MotionPacket, region_runs, runs_of
from iwcodec.codec.fit.alignment import unknowns
from iwcodec.codec.motion.predictive_coder import PredictiveCoder
from iwcodec.codec.motion.predictive_rdo import choose_levels, error_per_bit
from iwcodec.codec.motion.predictive_tables import Tables, load_tables
from iwcodec.codec.motion.types import Levels, Quadratic, Quantiser


class MotionEncoder:
    """Quantises frames and packs them. Frames are numbered from 0; the last MAX_PACKET_FRAMES can be packed, in any
    grouping and repeatedly. A packet is independent of others unless the receiver has acknowledged a frame to predict
    from."""

    def __init__(self, quantiser: Quantiser | None = None, tables: Tables | None = None) -> None:
        """`tables`: of the predictive coder; the shipped ones by default."""
        self._quantiser = quantiser or Quantiser()
        self._coder = PredictiveCoder(tables or load_tables())
        self._levels: dict[int, Levels] = {}
        """Levels (K, 3) by frame number."""
        self._reference_sources: dict[int, int | None] = {}
        self._regions: dict[int, tuple[int | None, ...]] = {}
        """Slots of the sources that the regions show, by frame number."""
        self._last: Levels | None = None  # (K, 3)
        self._last_delta: Levels | None = None  # (K, 3)
        self._count = 0
        self._acknowledged: int | None = None

    def push(
        self,
        keypoints: NDArray[np.float32],
        reference_source: int | None = None,
        gram: NDArray[np.float64] | None = None,
        regions: tuple[int | None, ...] = (),
    ) -> int:
        """Quantise the next frame and return its number. `keypoints`: (K, 3). `reference_source`: slot. `gram`: Gram
        matrix (3 K, 3 K) of the fit (Fitted.gram); with it, quantisation is rate-distortion optimised. `regions`: slots
        of the sources that the regions show; None: the reference source."""
        last = self._last
        if last is None or gram is None or reference_source != self._reference_sources.get(self._count - 1):
            self._last = self._quantiser.quantise(keypoints, last)
        else:
            last_delta = np.zeros_like(last) if self._last_delta is None else self._last_delta
            frame, weights = Quadratic(unknowns(keypoints), gram), self._coder.tables.predictor.inter
            price = error_per_bit(self._quantiser)
            self._last = choose_levels(frame, self._quantiser.steps, last, last_delta, weights, price)
        self._last_delta = None if last is None else self._last - last
        self._levels[self._count], self._reference_sources[self._count] = self._last, reference_source
        self._levels.pop(self._count - MAX_PACKET_FRAMES, None)
        self._reference_sources.pop(self._count - MAX_PACKET_FRAMES, None)
        self._regions[self._count] = regions
        self._regions.pop(self._count - MAX_PACKET_FRAMES, None)
        self._count += 1
        return self._count - 1

    def dequantised(self, number: int) -> tuple[NDArray[np.float32], int | None, tuple[int | None, ...]]:
        """Return a kept frame as receivers decode it: keypoints (K, 3) and the slots of the reference source and of the
        sources that its regions show."""
        keypoints = self._quantiser.dequantise(self._levels[number])
        return keypoints, self._reference_sources[number], self._regions[number]

    def requantise(self, quantiser: Quantiser) -> None:
        """Change the quantiser from the next frame on. Earlier frames can no longer be packed or predicted from."""
        self._quantiser = quantiser
        self._last = self._last_delta = self._acknowledged = None
        self._levels.clear()

    def acknowledge(self, number: int) -> None:
        """Note that the receiver has decoded this frame. Numbers no longer kept, or older ones, have no effect."""
        if number in self._levels and number > (-1 if self._acknowledged is None else self._acknowledged):
            self._acknowledged = number

    def pack(self, first: int, count: int) -> MotionPacket:
        """Pack frames `first` to `first + count - 1`, independently or predicted from the newest acknowledged frame,
        whichever is shorter. Raises KeyError if one of them is no longer kept."""
        levels = np.stack([self._levels[number] for number in range(first, first + count)])
        runs = runs_of([self._reference_sources[number] for number in range(first, first + count)])
        regions = region_runs([self._regions[number] for number in range(first, first + count)])
        independent = MotionPacket(first, count, None, self._coder.encode(levels, None), runs, regions=regions)
        reference = self._acknowledged
        if reference is None or reference >= first or reference not in self._levels:
            return independent
        payload = self._coder.encode(levels, self._levels[reference])
        predicted = MotionPacket(first, count, reference, payload, runs, regions=regions)
        return min(independent, predicted, key=lambda packet: len(packet.to_bytes()))
