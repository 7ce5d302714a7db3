"""Fitting the transmitted keypoints to the picture, which the sender has and a keypoint detector alone cannot match.

The sender has the source and the frame. It solves for the keypoints that warp the source to the frame: first from
optical flow (flow_fit.py), then by aligning the warped source with the frame's grey levels (alignment.py). It starts
from the detected keypoints plus the previous frame's correction. It fits several sources and selects the one with the
least remaining error as the reference source. With time to spare it reconstructs the frame as the receiver will, and
aligns that picture (analysis by synthesis).

Mallya, Wang and Liu, "Implicit Warping for Animation with Image Sets" (NeurIPS 2022), transmit the detected keypoints.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from iwcodec.codec.fit.alignment import (
    Equations,
    Reference,
    Warped,
    alignment_equations,
    as_keypoints,
    blur_levels,
    clipped,
    reference,
    small_grey,
    stepped,
    unknowns,
    warped,
)
from iwcodec.codec.fit.flow_fit import FlowFit
from iwcodec.codec.media.quality import psnr
from iwcodec.codec.media.types import Picture
from iwcodec.models.fit_settings import BLURS
from iwcodec.models.flow import FLOW_SIZE
from iwcodec.models.runtime.types import Keypoints, Source

CORRECTION_DECAY = 0.8
"""Share of the previous frame's correction (fitted minus detected) that the next frame starts from. Below 1, so that
jitter dies out."""
STEPS, LIVE_STEPS = (*BLURS, BLURS[-1]), BLURS[-2:]
"""Blurs of the alignment steps, of 1 ms of a core each: thorough, and live or quick."""
CANDIDATES, QUICK_CANDIDATES = 4, 2
"""Most sources, nearest in pose, that are fitted besides the previous reference source: thorough or live, and quick.
The sources of a call are many, and several show nearly the same pose."""
SWITCH_ERROR = 0.93
"""Another source becomes the reference source if it leaves less than this share of the present one's error."""
RETRY_INTERVAL, RETRY_ERROR = 5, 1.2
"""Other sources are fitted only every RETRY_INTERVAL + 1 frames, or if the reference source leaves more than
RETRY_ERROR times the error that the last choice left."""
FLOW_FREE_ERROR = 1.8
"""In calls: a frame whose starting error is at most this multiple of the error left after the last fit from flow skips
the flow: two frames of three, at equal quality (eight val clips)."""
LIVE_SHEAR = 0.13
"""In calls: largest shear of the face by a fit (Reference.shear). Good fits stay below. A pose that no source shows
would be fitted by twisting the face; with this bound the face is stale, but undistorted, until a source of the pose
arrives."""
HELD_BACK = 0.95
"""Share of LIVE_SHEAR from which on a fit counts as limited by that bound."""
MIN_ERROR = 1.5**2 * FLOW_SIZE**2
"""Smallest error that others are measured against: 1.5 grey levels RMS, which is invisible."""
_BLAS = ThreadpoolController()
"""Limits the BLAS of NumPy to one thread. The matrices are small: a second thread does not help, and waits milliseconds
for those of the network. Overlapping fits may leave the process with one thread for good; nothing else here multiplies
large matrices with NumPy."""


@dataclass(frozen=True)
class Fitted:
    """Fitted keypoints of a frame."""

    keypoints: Keypoints
    source: Source | None
    """Reference source; None without any."""
    error: float
    """Remaining squared grey-level error, summed over a picture of FLOW_SIZE; infinite if nothing was fitted."""
    gram: Callable[[], NDArray[np.float64]] | None
    """Computes the Gram matrix (3 K, 3 K) at the fit, which gives the error caused by a change of the `unknowns`, as a
    fraction of the remaining error. None if nothing was fitted."""


Rebuild = Callable[[Keypoints, Source], Picture]
"""Reconstructs the receiver's picture from keypoints and the reference source."""


class KeypointFit:
    """Fits the frames of one clip or call, in order."""

    def __init__(
        self,
        synthesis_iterations: int = 0,
        steps: Sequence[float] = STEPS,
        candidates: int = CANDIDATES,
        flow_free_error: float = 0.0,
        max_shear: float = np.inf,
    ) -> None:
        """`synthesis_iterations`: times that each frame is reconstructed and corrected. `steps`: blurs of the alignment
        steps, of BLURS. `candidates`: most sources fitted to a frame besides the previous reference source.
        `flow_free_error`: see FLOW_FREE_ERROR. `max_shear`: see LIVE_SHEAR."""
        self._synthesis_iterations = synthesis_iterations
        self._steps = steps
        self.candidates = candidates
        self._flow_free_error = flow_free_error
        self._max_shear = max_shear
        self._flow = FlowFit(max_shear)
        self._correction: NDArray[np.float64] | None = None  # (3 K,)
        self._reference_source: Source | None = None
        self._frames_since_choice, self._choice_error = 0, 0.0
        self._flow_error = 0.0
        self._references: dict[int, tuple[Source, Reference]] = {}

    def frame(
        self, picture: Picture, detected: Keypoints, sources: Sequence[Source], rebuild: Rebuild | None = None
    ) -> Fitted:
        """Fit the keypoints of a picture, given the detected ones (K, 3), to the best of `sources`, nearest in pose
        first. `rebuild` is required for synthesis iterations."""
        if not sources:
            self.forget()
            return Fitted(detected, None, np.inf, None)
        self._drop_all_but(sources)
        target = _Target(picture, self._steps)
        with _BLAS.limit(limits=1, user_api="blas"):
            source, estimate = self._best(target, detected, sources)
            ref = self._reference(source)
            if self._synthesis_iterations and rebuild is not None:
                estimate = self._refine_by_synthesis(
                    target, estimate, ref, lambda keypoints: rebuild(keypoints, source)
                )
        self._reference_source, self._correction = source, estimate.values - unknowns(detected)
        if estimate.by_flow:
            self._flow_error = estimate.error
        gram = partial(estimate.gram, ref, target)
        return Fitted(as_keypoints(estimate.values), source, estimate.error, gram)

    def forget(self) -> None:
        """Start the next frame without the correction and reference source of the previous one."""
        self._correction = self._reference_source = None

    def predict(self, detected: Keypoints) -> Fitted:
        """Return the keypoints of a frame without fitting it: the detected ones plus the decayed correction."""
        if self._correction is None:
            return Fitted(detected, self._reference_source, np.inf, None)
        self._correction = CORRECTION_DECAY * self._correction
        return Fitted(as_keypoints(unknowns(detected) + self._correction), self._reference_source, np.inf, None)

    def _best(self, target: "_Target", detected: Keypoints, sources: Sequence[Source]) -> tuple[Source, "_Estimate"]:
        """Choose the source that leaves the least error. Fits others than the present reference source only from time
        to time (RETRY_INTERVAL)."""
        known: dict[int, _Estimate] = {}
        present = self._reference_source
        if present is not None and any(source is present for source in sources):
            estimate = known[id(present)] = self._fit(target, detected, present)
            if self._frames_since_choice < RETRY_INTERVAL and estimate.error <= RETRY_ERROR * self._choice_error:
                self._frames_since_choice += 1
                return present, estimate
        count = self.candidates
        candidates = [*sources[:count], *(source for source in sources[count:] if id(source) in known)]
        estimates = [known.get(id(source)) or self._fit(target, detected, source) for source in candidates]
        errors = [
            estimate.error * (SWITCH_ERROR if id(source) in known else 1.0)
            for estimate, source in zip(estimates, candidates, strict=True)
        ]
        best = int(np.argmin(errors))
        self._frames_since_choice, self._choice_error = 0, estimates[best].error
        return candidates[best], estimates[best]

    def _fit(self, target: "_Target", detected: Keypoints, source: Source) -> "_Estimate":
        """Fit a source to the target: start, then align, and keep the step with the least error."""
        ref, start = self._reference(source), unknowns(detected)
        if self._correction is not None and source is self._reference_source:
            start = start + CORRECTION_DECAY * self._correction
        estimate = best = self._start(target, ref, clipped(start), source)
        origin, by_flow = estimate.start, estimate.by_flow
        for blur in self._steps:
            view = estimate.view if blur == BLURS[-1] else estimate.view.reblurred(ref, blur)
            step = alignment_equations(ref, view, target.blurred[blur], estimate.values - origin)
            values = stepped(ref, estimate.values, step, self._max_shear)
            estimate = replace(_estimate(target, ref, values, origin), last_step=step)
            best = min(best, estimate, key=partial(self._rank, ref))
        return replace(best, by_flow=by_flow)

    def _start(self, target: "_Target", ref: Reference, start: NDArray[np.float64], source: Source) -> "_Estimate":
        """Return the better of the start (3 K,) and the flow's keypoints; the start alone if it is good enough."""
        known = _estimate(target, ref, start, start)
        if source is self._reference_source and known.error <= self._flow_free_error * self._flow_error:
            return replace(known, by_flow=False)
        flowed = self._flow.solve(ref, target.grey, start)
        return min(known, _estimate(target, ref, flowed, flowed), key=partial(self._rank, ref))

    def _rank(self, ref: Reference, estimate: "_Estimate") -> tuple[bool, float]:
        """Return the sort key of an estimate, best first: whether it shears the face too much, then its error."""
        return self._max_shear < np.inf and ref.shear(estimate.values) > self._max_shear, estimate.error

    def _refine_by_synthesis(
        self, target: "_Target", estimate: "_Estimate", ref: Reference, rebuild: Callable[[Keypoints], Picture]
    ) -> "_Estimate":
        """Align the reconstructed picture instead of the warped source, and keep the keypoints of the best PSNR."""
        start = values = estimate.values
        best, best_db = estimate, -np.inf
        for iteration in range(self._synthesis_iterations + 1):
            picture = rebuild(as_keypoints(values))
            view = replace(warped(ref, values), grey=blur_levels(small_grey(picture), BLURS[-1:])[BLURS[-1]])
            estimate = _Estimate(values, start, view.error(target.sharp), view)
            quality_db = psnr(picture, target.picture)
            if quality_db > best_db:
                best, best_db = estimate, quality_db
            if iteration < self._synthesis_iterations:
                values = stepped(ref, values, estimate.next_step(ref, target), self._max_shear)
        return best

    def _reference(self, source: Source) -> Reference:
        """Return a source prepared for fitting, made once per source."""
        known = self._references.get(id(source))
        if known is None:
            known = self._references[id(source)] = source, reference(source)
        return known[1]

    def _drop_all_but(self, sources: Sequence[Source]) -> None:
        """Release sources that have left the library: each holds megabytes."""
        kept = set(map(id, sources))
        for gone in self._references.keys() - kept:
            del self._references[gone]


class _Target:
    """A picture to fit to."""

    def __init__(self, picture: Picture, blurs: Iterable[float]) -> None:
        self.picture = picture
        self.grey = small_grey(picture)
        self.blurred = blur_levels(self.grey, {*blurs, BLURS[-1]})
        self.sharp = self.blurred[BLURS[-1]]
        """Grey levels of the least blur, in which errors are measured."""


@dataclass(frozen=True)
class _Estimate:
    """Keypoints of a target for one source, and their error."""

    values: NDArray[np.float64]  # (3 K,)
    start: NDArray[np.float64]  # (3 K,): where the alignment started
    error: float
    view: Warped
    last_step: Equations | None = None
    """Alignment step that led here."""
    by_flow: bool = True
    """Whether optical flow was computed."""

    def next_step(self, ref: Reference, target: _Target) -> Equations:
        return alignment_equations(ref, self.view, target.sharp, self.values - self.start)

    def gram(self, ref: Reference, target: _Target) -> NDArray[np.float64]:
        """Return the Gram matrix (3 K, 3 K) of the last step, as a fraction of the remaining error."""
        return (self.last_step or self.next_step(ref, target)).gram / max(self.error, MIN_ERROR)


def _estimate(target: _Target, ref: Reference, values: NDArray[np.float64], start: NDArray[np.float64]) -> _Estimate:
    view = warped(ref, values)
    return _Estimate(values, start, view.error(target.sharp), view)


def quick_fit(flow_free_error: float = 0.0) -> KeypointFit:
    """Return the fast fit, for files at the lowest effort."""
    return KeypointFit(steps=LIVE_STEPS, candidates=QUICK_CANDIDATES, flow_free_error=flow_free_error)


def live_fit() -> KeypointFit:
    """Return the fit for calls."""
    return KeypointFit(steps=LIVE_STEPS, flow_free_error=FLOW_FREE_ERROR, max_shear=LIVE_SHEAR)


def is_held_back(ref: Reference, keypoints: Keypoints) -> bool:
    """Return whether LIVE_SHEAR limited a fit with keypoints (K, 3). They then misplace eyes and mouth."""
    return ref.shear(unknowns(keypoints)) >= HELD_BACK * LIVE_SHEAR
