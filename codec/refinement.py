"""Fitting the transmitted keypoints to the real motion: the sender's advantage over any detector.

Where a source cell is predicted to be is linear in the driving keypoints, places and strengths alike
(models/geometry.py): u = p + B (kp - kp_s). The sender has both pictures, so it knows by optical flow where the cells
really went, and solves for the keypoints that carry them there: robust least squares over the cells of the nearest
sources, held to what the detector found, and to what was found in the frame before. Then it may look at what the
receiver will rebuild, and correct what is still out of place there, as often as there is time. Nothing of it is in the
stream.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from .media import Picture
from .models.flow import flow_estimator
from .models.runtime import Keypoints, Source
from .quality import psnr

FLOW_SIZE = 128
"""Pictures are shrunk to this side before the flow."""
GRID = 32
"""Cells a side that are fitted."""
AGREEMENT = 1.5
"""Largest forward-backward disagreement of a flow, in pixels of FLOW_SIZE."""
DOUBT = 8.0
"""Grey levels: a flow that leaves such a difference counts half, where that is all that is asked."""
HOLD_PLACE, HOLD_STRENGTH = 0.4, 0.05
"""Weights of the detector's word on each place and strength, in cells."""
MEMORY = 0.8
"""Share of the last frame's correction that this frame's starts from: jitter does not pay."""
SECOND = 0.15
"""Weight of sources other than the nearest, which attention prefers."""
CHOICE_SOFTNESS = 3.0
"""Grey levels by which a source may be worse than another and still count."""
SOFTNESS = 0.03
"""Distance ([-1, 1] units) at which a cell counts half: occlusions and bad flow must not pull."""
ROUNDS = 3
LIVE_REFERENCES, LIVE_ROUNDS = 1, 2
"""In a call, and wherever frames are sent as they come: two milliseconds of a core."""
MOST_REFERENCES = 64


class Receiver(Protocol):
    """What fitting needs of a decoder."""

    def nearest(self, keypoints: Keypoints) -> list[Source]: ...

    def reconstruct(self, keypoints: Keypoints) -> Picture | None: ...


@dataclass(frozen=True)
class Reference:
    """A source as fitting needs it."""

    grey: NDArray[np.uint8]  # (FLOW_SIZE, FLOW_SIZE)
    basis: NDArray[np.float32]
    """(GRID * GRID, 3 K): how far each cell goes with each place, and to the right and down with each strength."""
    unknowns: NDArray[np.float64]  # (3 K,): the source's own keypoints, as `unknowns` has them

    def moved(self, values: NDArray[np.float64]) -> NDArray[np.float32]:
        """Unknowns (3 K,) of a frame -> where its cells go, from where they are in the source: (GRID * GRID, 2)."""
        return self.basis @ by_axis(values - self.unknowns)


def reference(source: Source) -> Reference:
    side = round(len(source.basis) ** 0.5)
    planes = cv2.resize(source.basis.reshape(side, side, -1), (GRID, GRID), interpolation=cv2.INTER_AREA)
    basis = np.ascontiguousarray(planes.reshape(GRID * GRID, -1), np.float32)
    return Reference(_grey(source.picture), basis, unknowns(source.keypoints))


def by_axis(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Unknowns (3 K,) as each axis sees them, (3 K, 2): the places along it, the strengths to the right or down."""
    right, down, strength = values.reshape(3, -1)
    nothing = np.zeros_like(strength)
    seen = [np.concatenate([right, strength, nothing]), np.concatenate([down, nothing, strength])]
    return np.stack(seen, axis=1).astype(np.float32)


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
    """Fits the frames of one clip, or call, in order."""

    def __init__(
        self, looks: int = 0, references: int | None = None, rounds: int = ROUNDS, both_ways: bool = True
    ) -> None:
        """`looks`: how often each frame is rebuilt and corrected. `references`: the most sources that a frame is fitted
        to, the nearest; all that it is rebuilt from if not given. `rounds`: of the robust least squares. `both_ways`:
        whether the flow is checked by that of the other direction, or only by what it makes of the picture."""
        self._looks = looks
        self._most = references
        self._rounds = rounds
        self._both_ways = both_ways
        self._flow = flow_estimator(0 if both_ways else 1)
        self._correction: NDArray[np.float64] | None = None
        self._references: dict[int, tuple[Source, Reference]] = {}
        self.gram: NDArray[np.float64] | None = None
        """(3 K, 3 K): what errors of the keypoints fitted last cost, as a quadratic form of their `unknowns`; squared
        [-1, 1] units, summed over the cells. None where there was nothing to fit to."""

    def frame(self, picture: Picture, detected: Keypoints, decoder: Receiver) -> Keypoints:
        """Keypoints (K, 3) of a picture that a decoder will rebuild; the detected ones choose the sources."""
        sources = decoder.nearest(detected)[: self._most]
        held = self._correction
        keypoints = self.to_sources(picture, detected, sources)
        nearest = decoder.nearest(keypoints)[: self._most]
        if len(sources) > 1 and nearest[0] is not sources[0]:  # it is another one that attention will prefer
            self._correction, sources = held, nearest
            keypoints = self.to_sources(picture, detected, sources)
        references = [self._reference(source) for source in sources]
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

    def to_sources(self, picture: Picture, detected: Keypoints, sources: Sequence[Source]) -> Keypoints:
        """Likewise, from these sources, the nearest first, and without looking at what is rebuilt."""
        return self.to_references(picture, detected, [self._reference(source) for source in sources[: self._most]])

    def forget(self) -> None:
        """What the last frame needed says nothing of the next."""
        self._correction = None

    def skip(self, detected: Keypoints) -> Keypoints:
        """Keypoints of a frame that there is no time to fit: what the last one needed passes slowly."""
        if self._correction is None:
            return detected
        self._correction = MEMORY * self._correction
        return as_keypoints(unknowns(detected) + self._correction)

    def _corrected(
        self,
        grey: NDArray[np.uint8],
        rebuilt: NDArray[np.uint8],
        keypoints: Keypoints,
        references: Sequence[Reference],
    ) -> Keypoints:
        """Keypoints that move what was rebuilt to where the picture has it."""
        flow = self._cells(grey, rebuilt)  # of each cell of the picture: where what belongs there is
        planes = np.concatenate([flow.moved, flow.sure[:, None]], axis=1)
        found = unknowns(keypoints)
        gram, target = np.diag(hold(len(found))), np.zeros_like(found)
        for rank, ref in enumerate(references):
            seen = _look_up(planes, CELLS + ref.moved(found))
            weight = seen[:, 2] / (1 + np.square(seen[:, :2]).sum(1) / SOFTNESS**2) * (SECOND if rank else 1.0)
            _add(gram, target, ref.basis, -seen[:, :2], weight)
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
        if self._both_ways and len(references) > 1:
            flows = _shared(flows)
        origins = [ref.basis @ by_axis(ref.unknowns) for ref in references]
        start = unknowns(detected)
        held = start if self._correction is None else start + MEMORY * self._correction
        found = held
        for _ in range(self._rounds):
            gram, target = np.diag(hold(len(held))), hold(len(held)) * held
            for ref, origin, flow in zip(references, origins, flows, strict=True):
                missed = np.square(ref.moved(found) - flow.moved).sum(1)
                weight = flow.sure / (1 + missed / SOFTNESS**2)
                _add(gram, target, ref.basis, flow.moved + origin, weight)
            found = np.asarray(np.linalg.solve(gram, target), np.float64)
        self._correction, self.gram = found - start, gram
        return as_keypoints(found)

    def _cells(self, source: NDArray[np.uint8], grey: NDArray[np.uint8]) -> "_Flow":
        there = self._flow.calc(source, grey, None)
        error = None
        if self._both_ways:
            back = self._flow.calc(grey, source, None)
            agreed = _agreement(there, back)
            warped = cv2.remap(source, PIXELS + back, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            error = _pooled(cv2.absdiff(grey, warped).astype(np.float32)).reshape(-1)
        else:
            agreed = _likeness(there, grey, source)
        return _Flow(_pooled(there).reshape(-1, 2) * np.float32(2 / FLOW_SIZE), _pooled(agreed).reshape(-1), error)


@dataclass(frozen=True)
class _Flow:
    """Where the cells of a source have gone."""

    moved: NDArray[np.float32]  # (GRID * GRID, 2), [-1, 1] units
    sure: NDArray[np.float32]  # (GRID * GRID,), 0..1
    error: NDArray[np.float32] | None
    """(GRID * GRID,): grey levels that the source, brought to the cells of the picture by the flow, leaves there."""


def _pooled(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(plane, (GRID, GRID), interpolation=cv2.INTER_AREA), np.float32)


def _shared(flows: Sequence[_Flow]) -> list[_Flow]:
    """The same flows, each cell surer the better its source shows what the picture has there, and in the first source
    most: attention will take it from that one, and the others need not be right."""
    errors = np.stack([flow.error for flow in flows if flow.error is not None])
    shares = np.exp((errors.min(0) - errors) / CHOICE_SOFTNESS)
    shares /= shares.sum(0)
    found = []
    shares[1:] *= SECOND
    for flow, share in zip(flows, shares, strict=True):
        at_source = _look_up(share[:, None], CELLS + flow.moved)
        found.append(replace(flow, sure=flow.sure * at_source.reshape(-1)))
    return found


def _agreement(there: NDArray[np.float32], back: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 where the flow of the other direction leads back, else 0."""
    returned = cv2.remap(
        back, PIXELS + there, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(1e3, 1e3)
    )
    off = np.abs(there + returned)
    return (off[..., 0] + off[..., 1] < AGREEMENT).astype(np.float32)


def _likeness(there: NDArray[np.float32], grey: NDArray[np.uint8], source: NDArray[np.uint8]) -> NDArray[np.float32]:
    """0..1, by how much what the flow leads to looks like the source."""
    found = cv2.remap(grey, PIXELS + there, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(1 / (1 + np.square(cv2.absdiff(found, source).astype(np.float32) / DOUBT)), np.float32)


def live_fit() -> KeypointFit:
    return KeypointFit(references=LIVE_REFERENCES, rounds=LIVE_ROUNDS, both_ways=False)


def _add(
    gram: NDArray[np.float64],
    target: NDArray[np.float64],
    basis: NDArray[np.float32],
    moves: NDArray[np.float32],
    weight: NDArray[np.float32],
) -> None:
    """Add cells that should come to moves (m, 2), with a basis (m, 3 K) and weights (m,), to the normal equations.

    Both axes have the same columns for their places, so all products come from one: of the basis with itself.
    """
    count = basis.shape[1] // 3
    x, y, s = slice(0, count), slice(count, 2 * count), slice(2 * count, None)
    along, right, down = x, y, s  # columns of the basis
    weighted = (basis * weight[:, None]).T
    inner, outer = weighted @ basis, weighted @ moves
    gram[x, x] += inner[along, along]
    gram[y, y] += inner[along, along]
    gram[s, s] += inner[right, right] + inner[down, down]
    for axis, sideways in ((x, right), (y, down)):
        gram[axis, s] += inner[along, sideways]
        gram[s, axis] += inner[sideways, along]
    target[x] += outer[along, 0]
    target[y] += outer[along, 1]
    target[s] += outer[right, 0] + outer[down, 1]


def _look_up(planes: NDArray[np.float32], places: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values (GRID * GRID, n) of cells at places (m, 2) in [-1, 1], linear between cells -> (m, n)."""
    at = ((places + 1) * (GRID / 2) - 0.5).astype(np.float32)
    maps = np.ascontiguousarray(planes.reshape(GRID, GRID, -1), np.float32)
    found = cv2.remap(maps, at[None, :, 0], at[None, :, 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(found[0], np.float32)


def _cell_centres() -> NDArray[np.float32]:
    axis = (np.arange(GRID, dtype=np.float32) + 0.5) * (2 / GRID) - 1
    return np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)


CELLS = _cell_centres()
PIXELS = np.stack(np.meshgrid(*2 * (np.arange(FLOW_SIZE, dtype=np.float32),)), axis=-1)


def _grey(picture: Picture) -> NDArray[np.uint8]:
    small = cv2.resize(picture, (FLOW_SIZE, FLOW_SIZE), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.uint8)
