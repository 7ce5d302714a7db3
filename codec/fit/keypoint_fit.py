"""Fitting the transmitted keypoints to the real motion: the sender's advantage over any detector.

Where a source cell is predicted to be is linear in the driving keypoints, places and strengths alike
(models/geometry.py): u = p + B (kp - kp_s). The sender has both pictures, so it knows by optical flow where the cells
really went, and solves for the keypoints that carry them there: robust least squares, held to what the detector found,
and to what was found in the frame before. From there it aligns the warped source with the picture itself
(alignment.py). It does so for every source that could lead, and takes the one that is left with the least error. Then
it may look at what the receiver will rebuild, and align that, as often as there is time.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from iwcodec.codec.fit.alignment import (
    Equations,
    Reference,
    Warped,
    as_keypoints,
    hold,
    normal_equations,
    reference,
    small_grey,
    softened,
    step_of,
    unknowns,
    warped,
)
from iwcodec.codec.media.quality import psnr
from iwcodec.codec.media.types import Picture
from iwcodec.models.fit_settings import BLURS, DOUBT, SOFTNESS
from iwcodec.models.flow import AGREEMENT, FLOW_SIZE, GRID, flow_estimator
from iwcodec.models.runtime.onnx import pixel_grid
from iwcodec.models.runtime.types import Keypoints, Source

MEMORY = 0.8
"""Share of the last frame's correction that this frame's starts from: jitter does not pay."""
ROUNDS, LIVE_ROUNDS = 2, 1
"""Of the robust least squares; the latter where STEPS are LIVE_STEPS."""
STEPS, LIVE_STEPS = (*BLURS, BLURS[-1]), BLURS[-2:]
"""Of the alignment, by their blur: a millisecond of a core each. The latter in a call, and wherever frames are sent as
they come."""
CANDIDATES, LIVE_CANDIDATES = 4, 2
"""Sources that are tried, the nearest in pose, besides the one that leads."""
SWITCH = 0.93
"""Share of the leading source's error that another must be left with to lead instead."""
TRY_EVERY, GROWN = 5, 1.2
"""Frames in which only the source that leads is tried, unless it is left with so many times the error."""
NEAR = 1.8
"""Of the error that the flow left the last time: in a call, what begins with no more needs none. Those are two frames
of three, and no worse for it (eight val clips)."""
FLOOR = 1.5**2 * FLOW_SIZE**2
"""Squared grey levels, summed over a picture: less cannot be seen."""
_ALGEBRA = ThreadpoolController()
"""Of numpy. Its matrices are small here: a second thread helps nothing, and waits milliseconds for the network's. Where
fits overlap, the process may be left with one: nothing else here multiplies matrices that large."""


@dataclass(frozen=True)
class Fitted:
    """Keypoints of a frame."""

    keypoints: Keypoints
    source: Source | None
    """That leads: the first in attention, from which they carry it. None where there is none."""
    error: float
    """Squared grey levels that are left, summed over a picture of FLOW_SIZE."""
    gram: Callable[[], NDArray[np.float64]] | None
    """Makes (3 K, 3 K), in as much time as a step of the alignment: what errors of the keypoints cost, as a quadratic
    form of their `unknowns` and as a share of what is left. None where there was nothing to fit to."""


Rebuild = Callable[[Keypoints, Source], Picture]
"""What the receiver makes of keypoints and the source that leads."""


class KeypointFit:
    """Fits the frames of one clip, or call, in order."""

    def __init__(
        self,
        looks: int = 0,
        steps: Sequence[float] = STEPS,
        thorough: bool = True,
        candidates: int = CANDIDATES,
        near: float = 0.0,
    ) -> None:
        """`looks`: how often each frame is rebuilt and corrected. `steps`: of the alignment. `thorough`: whether the
        flow is checked by that of the other direction, or only by what it makes of the picture, how often its robust
        fit is made anew, and whether errors are priced where the fit ends, or a step before. `candidates`: the most
        sources that are tried for a frame, besides the one that leads. `near`: a frame that begins with so many times
        the error that the flow left the last time does without it."""
        self._looks = looks
        self._steps = steps
        self._thorough = thorough
        self._candidates = candidates
        self._near = near
        self._flow = flow_estimator(0 if thorough else 1)
        self._correction: NDArray[np.float64] | None = None
        self._leader: Source | None = None
        self._untried, self._tried_error = 0, 0.0
        self._left = 0.0
        self._references: dict[int, tuple[Source, Reference]] = {}

    def frame(
        self, picture: Picture, detected: Keypoints, sources: Sequence[Source], rebuild: Rebuild | None = None
    ) -> Fitted:
        """Keypoints (K, 3) of a picture from the best of these sources, the nearest in pose first. `rebuild` is needed
        where there are looks."""
        if not sources:
            self.forget()
            return Fitted(detected, None, np.inf, None)
        self._forget_all_but(sources)
        seen = _Seen(picture, self._steps)
        with _ALGEBRA.limit(limits=1, user_api="blas"):
            reference_source, one = self._best(seen, detected, sources)
            if self._looks and rebuild is not None:
                one = self._looked(
                    seen, one, self._reference(reference_source), lambda keypoints: rebuild(keypoints, reference_source)
                )
        self._leader, self._correction = reference_source, one.values - unknowns(detected)
        if one.by_flow:
            self._left = one.error
        gram = partial(one.price, self._reference(reference_source), seen, self._thorough)
        return Fitted(as_keypoints(one.values), reference_source, one.error, gram)

    def _best(self, seen: "_Seen", detected: Keypoints, sources: Sequence[Source]) -> tuple[Source, "_Found"]:
        """The source that is left with the least error. The others are tried now and then, and where the one that leads
        grows worse."""
        known: dict[int, _Found] = {}
        if self._leader is not None and any(source is self._leader for source in sources):
            one = known[id(self._leader)] = self._from(seen, detected, self._leader)
            if self._untried < TRY_EVERY and one.error <= GROWN * self._tried_error:
                self._untried += 1
                return self._leader, one
        count = self._candidates
        tried = [*sources[:count], *(source for source in sources[count:] if id(source) in known)]
        found = [known.get(id(source)) or self._from(seen, detected, source) for source in tried]
        errors = [
            one.error * (SWITCH if id(source) in known else 1.0) for one, source in zip(found, tried, strict=True)
        ]
        best = int(np.argmin(errors))
        self._untried, self._tried_error = 0, found[best].error
        return tried[best], found[best]

    def forget(self) -> None:
        """What the last frame needed says nothing of the next."""
        self._correction = self._leader = None

    def skip(self, detected: Keypoints) -> Fitted:
        """Keypoints of a frame that there is no time to fit: what the last one needed passes slowly."""
        if self._correction is None:
            return Fitted(detected, self._leader, np.inf, None)
        self._correction = MEMORY * self._correction
        return Fitted(as_keypoints(unknowns(detected) + self._correction), self._leader, np.inf, None)

    def _from(self, seen: "_Seen", detected: Keypoints, source: Source) -> "_Found":
        ref, start = self._reference(source), unknowns(detected)
        if self._correction is not None and source is self._leader:
            start = start + MEMORY * self._correction
        found = best = self._begin(seen, ref, _clipped(start), source)
        begin, by_flow = found.start, found.by_flow
        for blur in self._steps:
            view = found.view if blur == BLURS[-1] else found.view.blurred(ref, blur)
            step = step_of(ref, view, seen.soft[blur], found.values - begin)
            found = replace(_judged(seen, ref, _after(found.values, step), begin), led_by=step)
            best = min(best, found, key=lambda one: one.error)
        return replace(best, by_flow=by_flow)

    def _begin(self, seen: "_Seen", ref: Reference, start: NDArray[np.float64], source: Source) -> "_Found":
        """What is nearest: what is known already, or what the flow says."""
        known = _judged(seen, ref, start, start)
        if source is self._leader and known.error <= self._near * self._left:
            return replace(known, by_flow=False)
        flowed = self._by_flow(ref, seen.grey, start)
        return min(known, _judged(seen, ref, flowed, flowed), key=lambda one: one.error)

    def _looked(
        self, seen: "_Seen", found: "_Found", ref: Reference, rebuild: Callable[[Keypoints], Picture]
    ) -> "_Found":
        """Aligned not as the source is warped but as it is rebuilt."""
        start, values, best, most = found.values, found.values, found, -np.inf
        for look in range(self._looks + 1):
            picture = rebuild(as_keypoints(values))
            view = replace(warped(ref, values), grey=softened(small_grey(picture), BLURS[-1:])[BLURS[-1]])
            found = _Found(values, start, view.error(seen.sharp), view)
            quality = psnr(picture, seen.picture)
            if quality > most:
                best, most = found, quality
            if look < self._looks:
                values = _after(values, found.step(ref, seen))
        return best

    def _by_flow(self, ref: Reference, grey: NDArray[np.uint8], start: NDArray[np.float64]) -> NDArray[np.float64]:
        """Unknowns (3 K,) that carry the cells of a source where the flow says, held to where they start."""
        flow, held = self._cells(ref.grey, grey), hold(len(start))
        found = start
        for _ in range(ROUNDS if self._thorough else LIVE_ROUNDS):
            wanted = flow.moved - ref.moved(found)
            weight = flow.sure / (1 + np.square(wanted).sum(1) / SOFTNESS**2)
            nothing = np.zeros_like(weight)
            cells = np.stack([weight, nothing, weight, *(-weight[:, None] * wanted).T], axis=1)
            equations = normal_equations(ref.basis, cells)
            right = equations.right + held * (start - found)
            found = found + np.linalg.solve(equations.gram + np.diag(held), right)
        return _clipped(found)

    def _reference(self, source: Source) -> Reference:
        """Made once a source."""
        known = self._references.get(id(source))
        if known is None:
            known = self._references[id(source)] = source, reference(source)
        return known[1]

    def _forget_all_but(self, sources: Sequence[Source]) -> None:
        """A source is megabytes: those that have left the library go."""
        kept = set(map(id, sources))
        for gone in self._references.keys() - kept:
            del self._references[gone]

    def _cells(self, source: NDArray[np.uint8], grey: NDArray[np.uint8]) -> "_Flow":
        there = self._flow.calc(source, grey, None)
        agreed = (
            _agreement(there, self._flow.calc(grey, source, None)) if self._thorough else _likeness(there, grey, source)
        )
        return _Flow(_pooled(there).reshape(-1, 2) * np.float32(2 / FLOW_SIZE), _pooled(agreed).reshape(-1))


class _Seen:
    """A picture as fitting looks at it."""

    def __init__(self, picture: Picture, blurs: Iterable[float]) -> None:
        self.picture = picture
        self.grey = small_grey(picture)
        self.soft = softened(self.grey, {*blurs, BLURS[-1]})
        self.sharp = self.soft[BLURS[-1]]


@dataclass(frozen=True)
class _Found:
    values: NDArray[np.float64]  # (3 K,)
    start: NDArray[np.float64]
    """Where the alignment began."""
    error: float
    view: Warped
    led_by: Equations | None = None
    """The step from which this is."""
    by_flow: bool = True
    """Whether the flow was asked."""

    def step(self, ref: Reference, seen: _Seen) -> Equations:
        """The next one."""
        return step_of(ref, self.view, seen.sharp, self.values - self.start)

    def price(self, ref: Reference, seen: _Seen, exactly: bool) -> NDArray[np.float64]:
        """(3 K, 3 K): what errors cost here, or just before the last step, as a share of what is left."""
        known = None if exactly else self.led_by
        return (known or self.step(ref, seen)).gram / max(self.error, FLOOR)


def _judged(seen: _Seen, ref: Reference, values: NDArray[np.float64], start: NDArray[np.float64]) -> _Found:
    view = warped(ref, values)
    return _Found(values, start, view.error(seen.sharp), view)


def _after(values: NDArray[np.float64], step: Equations) -> NDArray[np.float64]:
    return _clipped(values + np.linalg.solve(step.gram, step.right))


@dataclass(frozen=True)
class _Flow:
    """Where the cells of a source have gone."""

    moved: NDArray[np.float32]  # (GRID * GRID, 2), [-1, 1] units
    sure: NDArray[np.float32]  # (GRID * GRID,), 0..1


def _clipped(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return unknowns(as_keypoints(values))


def _pooled(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(plane, (GRID, GRID), interpolation=cv2.INTER_AREA), np.float32)


def _agreement(there: NDArray[np.float32], back: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 where the flow of the other direction leads back, else 0."""
    returned = cv2.remap(
        back,
        pixel_grid(FLOW_SIZE) + there,
        None,
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(1e3, 1e3),
    )
    off = np.abs(there + returned)
    return (off[..., 0] + off[..., 1] < AGREEMENT).astype(np.float32)


def _likeness(there: NDArray[np.float32], grey: NDArray[np.uint8], source: NDArray[np.uint8]) -> NDArray[np.float32]:
    """0..1, by how much what the flow leads to looks like the source."""
    found = cv2.remap(grey, pixel_grid(FLOW_SIZE) + there, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(1 / (1 + np.square(cv2.absdiff(found, source).astype(np.float32) / DOUBT)), np.float32)


def quick_fit(near: float = 0.0) -> KeypointFit:
    return KeypointFit(steps=LIVE_STEPS, thorough=False, candidates=LIVE_CANDIDATES, near=near)


def live_fit() -> KeypointFit:
    """For calls."""
    return quick_fit(NEAR)
