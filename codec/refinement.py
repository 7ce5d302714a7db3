"""Fitting the transmitted keypoints to the real motion: the sender's advantage over any detector.

Where a source cell is predicted to be is linear in the driving keypoints, places and strengths alike
(models/geometry.py): u = p + B (kp - kp_s). The sender has both pictures, so it knows by optical flow where the cells
really went, and solves for the keypoints that carry them there: robust least squares over the cells of the nearest
sources, held to what the detector found, and to what was found in the frame before. Then it may look at what the
receiver will rebuild, and correct what is still out of place there, as often as there is time. Nothing of it is in the
stream.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .decoder import Decoder
from .media import Picture
from .models.runtime import Keypoints, Source
from .quality import psnr

FLOW_SIZE = 128
"""Pictures are shrunk to this side before the flow."""
GRID = 32
"""Cells a side that are fitted."""
AGREEMENT = 1.5
"""Largest forward-backward disagreement of a flow, in pixels of FLOW_SIZE."""
HOLD_PLACE, HOLD_STRENGTH = 0.4, 0.05
"""Weights of the detector's word on each place and strength, in cells."""
MEMORY = 0.8
"""Share of the last frame's correction that this frame's starts from: jitter does not pay."""
SOFTNESS = 0.03
"""Distance ([-1, 1] units) at which a cell counts half: occlusions and bad flow must not pull."""
ROUNDS = 3
MOST_REFERENCES = 64


@dataclass(frozen=True)
class Reference:
    """A source as fitting needs it."""

    grey: NDArray[np.uint8]  # (FLOW_SIZE, FLOW_SIZE)
    rows: NDArray[np.float64]  # (2, GRID * GRID, 3 K): how far each cell goes in x and in y with each unknown
    unknowns: NDArray[np.float64]  # (3 K,): the source's own keypoints, as `unknowns` has them


def reference(source: Source) -> Reference:
    side = round(len(source.basis) ** 0.5)
    planes = cv2.resize(source.basis.reshape(side, side, -1), (GRID, GRID), interpolation=cv2.INTER_AREA)
    along, right, down = np.split(planes.reshape(GRID * GRID, -1).astype(np.float64), 3, axis=1)
    still = np.zeros_like(along)
    rows = np.stack([np.concatenate([along, still, right], 1), np.concatenate([still, along, down], 1)])
    return Reference(_grey(source.picture), rows, unknowns(source.keypoints))


def unknowns(keypoints: Keypoints) -> NDArray[np.float64]:
    """Keypoints (K, 3) as the equations have them: all x, all y, all strengths."""
    return keypoints.T.reshape(-1).astype(np.float64)


def as_keypoints(values: NDArray[np.float64]) -> Keypoints:
    """Inverse of `unknowns`, clipped to what can be sent."""
    return values.reshape(3, -1).T.clip((-1, -1, 0), 1).astype(np.float32)


def hold(count: int) -> NDArray[np.float64]:
    """(3 K,): how much each of the unknowns is held to what was detected."""
    return np.repeat((HOLD_PLACE, HOLD_PLACE, HOLD_STRENGTH), count // 3)


class KeypointFit:
    """Fits the frames of one clip, in order. `looks`: how often each is rebuilt and corrected."""

    def __init__(self, looks: int = 0) -> None:
        self._looks = looks
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._correction: NDArray[np.float64] | None = None
        self._references: dict[int, tuple[Source, Reference]] = {}
        self.gram: NDArray[np.float64] | None = None
        """(3 K, 3 K): what errors of the keypoints fitted last cost, as a quadratic form of their `unknowns`; squared
        [-1, 1] units, summed over the cells. None where there was nothing to fit to."""

    def frame(self, picture: Picture, detected: Keypoints, decoder: Decoder) -> Keypoints:
        """Keypoints (K, 3) of a picture that a decoder will rebuild; the detected ones choose the sources."""
        references = [self._reference(source) for source in decoder.nearest(detected)]
        keypoints = self.to_references(picture, detected, references)
        grey, best = _grey(picture), (-np.inf, keypoints)
        for look in range(self._looks + 1 if self._looks and references else 0):
            rebuilt = decoder.reconstruct(keypoints)
            assert rebuilt is not None
            best = max(best, (psnr(rebuilt, picture), keypoints), key=lambda found: found[0])
            if look < self._looks:
                keypoints = self._corrected(grey, _grey(rebuilt), keypoints, references)
        if self._looks:
            keypoints = best[1]
            self._correction = unknowns(keypoints - detected)
        return keypoints

    def _corrected(
        self,
        grey: NDArray[np.uint8],
        rebuilt: NDArray[np.uint8],
        keypoints: Keypoints,
        references: Sequence[Reference],
    ) -> Keypoints:
        """Keypoints that move what was rebuilt to where the picture has it."""
        astray, sure = self._cells(grey, rebuilt)  # of each cell of the picture: where what belongs there is
        found = unknowns(keypoints)
        gram, target = np.diag(hold(len(found))), np.zeros_like(found)
        for ref in references:
            at = CELLS + (ref.rows @ (found - ref.unknowns)).T
            seen = _look_up(np.concatenate([astray, sure[:, None]], axis=1), at)
            weight = seen[:, 2] / (1 + np.square(seen[:, :2]).sum(1) / SOFTNESS**2) / len(references)
            _add(gram, target, ref.rows, -seen[:, :2], weight)
        self.gram = gram
        return as_keypoints(found + np.linalg.solve(gram, target))

    def _reference(self, source: Source) -> Reference:
        """Made once a source; a source that is not used any more goes."""
        known = self._references.get(id(source))
        if known is None or known[0] is not source:
            known = self._references[id(source)] = source, reference(source)
            while len(self._references) > MOST_REFERENCES:
                del self._references[next(iter(self._references))]
        return known[1]

    def to_references(self, picture: Picture, detected: Keypoints, references: Sequence[Reference]) -> Keypoints:
        self.gram = None
        if not references:
            return detected
        grey = _grey(picture)
        flows = [self._cells(ref.grey, grey) for ref in references]
        start = unknowns(detected)
        held = start if self._correction is None else start + MEMORY * self._correction
        found = held
        for _ in range(ROUNDS):
            gram, target = np.diag(hold(len(held))), hold(len(held)) * held
            for ref, (moved, sure) in zip(references, flows, strict=True):
                missed = np.linalg.norm((ref.rows @ (found - ref.unknowns)).T - moved, axis=1)
                weight = sure / (1 + np.square(missed / SOFTNESS)) / len(references)
                _add(gram, target, ref.rows, moved + (ref.rows @ ref.unknowns).T, weight)
            found = np.linalg.solve(gram, target)
        self._correction, self.gram = found - start, gram
        return as_keypoints(found)

    def _cells(
        self, source: NDArray[np.uint8], grey: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Where the source's cells have gone (GRID * GRID, 2), in [-1, 1] units, and how sure that is, 0..1."""
        there, back = self._flow.calc(source, grey, None), self._flow.calc(grey, source, None)
        y, x = np.mgrid[:FLOW_SIZE, :FLOW_SIZE].astype(np.float32)
        returned = cv2.remap(
            back,
            x + there[..., 0],
            y + there[..., 1],
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=(1e3, 1e3),
        )
        agreed = (np.abs(there + returned).sum(-1) < AGREEMENT).astype(np.float32)
        moved = cv2.resize(there, (GRID, GRID), interpolation=cv2.INTER_AREA).reshape(-1, 2)
        sure = cv2.resize(agreed, (GRID, GRID), interpolation=cv2.INTER_AREA).reshape(-1)
        return moved.astype(float) * (2 / FLOW_SIZE), sure.astype(float)


def _add(
    gram: NDArray[np.float64],
    target: NDArray[np.float64],
    rows: NDArray[np.float64],
    moves: NDArray[np.float64],
    weight: NDArray[np.float64],
) -> None:
    """Add rows (2, m, 3 K) that should come to moves (m, 2), with weights (m,), to the normal equations."""
    for axis in (0, 1):
        weighted = (rows[axis] * weight[:, None]).T
        gram += weighted @ rows[axis]
        target += weighted @ moves[:, axis]


def _look_up(planes: NDArray[np.float64], places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values (GRID * GRID, n) of cells at places (m, 2) in [-1, 1], linear between cells -> (m, n)."""
    at = ((places + 1) * (GRID / 2) - 0.5).astype(np.float32)
    maps = np.ascontiguousarray(planes.reshape(GRID, GRID, -1), np.float32)
    found = cv2.remap(maps, at[None, :, 0], at[None, :, 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return found[0].astype(float)


def _cell_centres() -> NDArray[np.float64]:
    axis = (np.arange(GRID) + 0.5) * (2 / GRID) - 1
    return np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)


CELLS = _cell_centres()


def _grey(picture: Picture) -> NDArray[np.uint8]:
    small = cv2.resize(picture, (FLOW_SIZE, FLOW_SIZE), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.uint8)
