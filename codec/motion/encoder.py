"""Keypoints to motion packets of streams and calls.

Fitted frames whose reference source's coordinates are known are transform-coded: those of a packet together, as
differences from the newest frame that the receiver has acknowledged, if that has the same reference source. Other
frames are coded by the predictive coder, unless they share a packet with such frames.
"""

import math
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.bitstream.packets import MAX_PACKET_FRAMES, MotionPacket, region_runs, runs_of
from iwcodec.codec.fit.alignment import unknowns
from iwcodec.codec.motion.predictive_coder import PredictiveCoder
from iwcodec.codec.motion.predictive_rdo import choose_levels, error_per_bit
from iwcodec.codec.motion.predictive_tables import Tables, load_tables
from iwcodec.codec.motion.space import MotionSpace
from iwcodec.codec.motion.transform_coder import decoded_runs, transform_coder
from iwcodec.codec.motion.transform_rdo import RateDistortionQuantiser
from iwcodec.codec.motion.types import CodedFrame, Fit, Levels, Quadratic, Quantiser

LIVE_SCALE = 78
"""Quantisation scale (transform_coder.py) at the usual quantiser steps: 0.2 dB lost (see client/LAB.md). It grows by 16
with each doubling of the steps."""


class _Frame(NamedTuple):
    """A frame as pushed."""

    keypoints: NDArray[np.float32]  # (K, 3)
    reference_source: int | None
    regions: tuple[int | None, ...]
    fit: Fit | None = None
    """In the coordinates of the reference source, if they are known."""
    is_fitted: bool = False
    """Whether the Gram matrix of the fit is known."""


class MotionEncoder:
    """Quantises frames and packs them. Frames are numbered from 0; the last MAX_PACKET_FRAMES can be packed, in any
    grouping and repeatedly. A packet is independent of others unless the receiver has acknowledged a frame to predict
    from. A transform-coded frame has other keypoints in each packet that holds it; the one that later packets refer to
    is the last frame of the packet that ended with it."""

    def __init__(self, quantiser: Quantiser | None = None, tables: Tables | None = None) -> None:
        """`tables`: of the predictive coder; the shipped ones by default."""
        self._quantiser = quantiser or Quantiser()
        self._coder = PredictiveCoder(tables or load_tables())
        self._frames: dict[int, _Frame] = {}
        """By frame number, as are the following."""
        self._levels: dict[int, Levels] = {}
        """Levels (K, 3) of predictively coded frames."""
        self._ends: dict[int, CodedFrame] = {}
        """Last frames of transform-coded packets, as decoded."""
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
        space: MotionSpace | None = None,
    ) -> int:
        """Take the next frame and return its number. `keypoints`: (K, 3). `reference_source`: slot. `gram`: Gram
        matrix (3 K, 3 K) of the fit (Fitted.gram); with it, quantisation is rate-distortion optimised. `regions`: slots
        of the sources that the regions show; None: the reference source. `space`: coordinates of the reference source;
        with them and `gram` the frame is transform-coded."""
        number = self._count
        self._frames[number] = _Frame(keypoints, reference_source, regions)
        if space is not None and reference_source is not None:
            metric = np.eye(keypoints.size) if gram is None else space.metric(gram)
            quadratic = Quadratic(space.coordinates(unknowns(keypoints)), metric)
            fit = Fit(quadratic, reference_source)
            self._frames[number] = _Frame(keypoints, reference_source, regions, fit, gram is not None)
            self._last = self._last_delta = None
        else:
            self._quantise(keypoints, reference_source, gram)
        self._count += 1
        self._frames.pop(number - MAX_PACKET_FRAMES, None)
        self._levels.pop(number - MAX_PACKET_FRAMES, None)
        self._ends.pop(number - MAX_PACKET_FRAMES, None)
        return number

    def _quantise(
        self, keypoints: NDArray[np.float32], reference_source: int | None, gram: NDArray[np.float64] | None
    ) -> None:
        last, before = self._last, self._frames.get(self._count - 1)
        if last is None or gram is None or before is None or reference_source != before.reference_source:
            self._last = self._quantiser.quantise(keypoints, last)
        else:
            last_delta = np.zeros_like(last) if self._last_delta is None else self._last_delta
            frame, weights = Quadratic(unknowns(keypoints), gram), self._coder.tables.predictor.inter
            price = error_per_bit(self._quantiser)
            self._last = choose_levels(frame, self._quantiser.steps, last, last_delta, weights, price)
        self._last_delta = None if last is None else self._last - last
        self._levels[self._count] = self._last

    def dequantised(self, number: int) -> tuple[NDArray[np.float32], int | None, tuple[int | None, ...]]:
        """Return a kept frame of the predictive coder as receivers decode it: keypoints (K, 3) and the slots of the
        reference source and of the sources that its regions show."""
        keypoints = self._quantiser.dequantise(self._levels[number])
        return keypoints, self._frames[number].reference_source, self._frames[number].regions

    def requantise(self, quantiser: Quantiser) -> None:
        """Change the quantiser from the next frame on. Earlier frames of the predictive coder can no longer be packed
        or predicted from."""
        self._quantiser = quantiser
        self._last = self._last_delta = None
        self._levels.clear()

    def forget(self) -> None:
        """Predict from no frame pushed so far, and name no sources of theirs: the receiver may have lost its state, or
        the slots may hold other sources."""
        self._frames = {number: _Frame(frame.keypoints, None, ()) for number, frame in self._frames.items()}
        self._levels.clear()
        self._ends.clear()
        self._last = self._last_delta = self._acknowledged = None

    def acknowledge(self, number: int) -> None:
        """Note that the receiver has decoded this frame. Numbers no longer kept, or older ones, have no effect."""
        is_known = number in self._levels or number in self._ends
        if is_known and number > (-1 if self._acknowledged is None else self._acknowledged):
            self._acknowledged = number

    def pack(self, first: int, count: int) -> MotionPacket:
        """Pack frames `first` to `first + count - 1`, independently or predicted from the newest acknowledged frame.
        Raises KeyError if one of them is no longer kept."""
        numbers = range(first, first + count)
        frames = [self._frames[number] for number in numbers]
        fits = [frame.fit for frame in frames if frame.fit is not None]
        regions = [frame.regions for frame in frames]
        if len(fits) == count and any(frame.is_fitted for frame in frames):
            return self._transformed(numbers, fits, regions)
        levels = np.stack([self._levels_of(number) for number in numbers])
        runs, named = runs_of([frame.reference_source for frame in frames]), region_runs(regions)
        independent = MotionPacket(first, count, None, self._coder.encode(levels, None), runs, regions=named)
        reference = self._acknowledged
        if reference is None or reference >= first or reference not in self._levels:
            return independent
        payload = self._coder.encode(levels, self._levels[reference])
        predicted = MotionPacket(first, count, reference, payload, runs, regions=named)
        return min(independent, predicted, key=lambda packet: len(packet.to_bytes()))

    def _levels_of(self, number: int) -> Levels:
        """Return the levels (K, 3) of a frame, also of one that could be transform-coded if the others of its packet
        could."""
        if number not in self._levels:
            keypoints, last = self._frames[number].keypoints, self._levels.get(number - 1)
            self._levels[number] = self._quantiser.quantise(keypoints, last)
        return self._levels[number]

    def _transformed(self, numbers: range, fits: list[Fit], regions: list[tuple[int | None, ...]]) -> MotionPacket:
        reference = self._reference(fits, numbers[0])
        before = None if reference is None else self._ends[reference]
        differences = fits if before is None else [_difference(fit, before) for fit in fits]
        scale = LIVE_SCALE + round(16 * math.log2(self._quantiser.step_xy / Quantiser.step_xy))
        message = live_quantiser(scale).message(differences)
        coordinates = decoded_runs(message.levels, message.runs, scale, before)[-1][-1]
        self._ends[numbers[-1]] = CodedFrame(coordinates, fits[-1].reference_source, regions[-1])
        if before is not None and len(message.runs) == 1 and set(regions) == {before.regions}:
            return MotionPacket(numbers[0], len(numbers), reference, message.payload, scale=scale, alike=True)
        return MotionPacket(
            numbers[0], len(numbers), reference, message.payload, message.runs, scale, region_runs(regions)
        )

    def _reference(self, fits: list[Fit], first: int) -> int | None:
        """Return the frame that a packet is predicted from; None if there is none, or the sources themselves are
        nearer."""
        number = self._acknowledged
        before = None if number is None or number >= first else self._ends.get(number)
        if before is None:
            return None
        targets = [fit.frame.target for fit in fits if fit.reference_source == before.reference_source]
        if not targets:
            return None
        without = sum(float(np.square(target).sum()) for target in targets)
        with_it = sum(float(np.square(target - before.coordinates).sum()) for target in targets)
        return number if with_it <= without else None


def _difference(fit: Fit, before: CodedFrame) -> Fit:
    if fit.reference_source != before.reference_source:
        return fit
    return fit._replace(frame=Quadratic(fit.frame.target - before.coordinates, fit.frame.gram))


@cache
def live_quantiser(scale: int) -> RateDistortionQuantiser:
    """Return the quantiser of transform-coded frames at a scale."""
    return RateDistortionQuantiser(transform_coder(), scale)
