"""Regions of live streams: which source the eyes and the mouth of a frame show, and which variant is to be sent.

Both follow from comparing a region of a frame, sampled into its box of the home source along the fitted motion, with
the same region of every source: how they look, and what eyes and mouth do (region_signature.py).

A variant shows, for each region, the patch of those of the last seconds that takes most of the error that the sources
leave in all of them (greedy k-medoids, as in codec/file/rate_control/variant_selection.py). An expression that lasts or
recurs is thus worth more than a hand before the mouth.
"""

from collections.abc import Container, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.fit.alignment import unknowns
from iwcodec.codec.fit.keypoint_fit import is_held_back
from iwcodec.codec.media.types import Picture
from iwcodec.codec.sources.library import Library
from iwcodec.codec.sources.region_signature import (
    EXPRESSIVE_SIZE,
    Signature,
    errors_with,
    signature_errors,
)
from iwcodec.codec.sources.region_view import RegionView, looks
from iwcodec.codec.sources.regions import MASK, REGIONS, Compositor, blend, in_box, region_box, sampled
from iwcodec.codec.token_bucket import TokenBucket
from iwcodec.models.runtime.pictures import pixel_grid
from iwcodec.models.runtime.types import Keypoints, Source

REMEMBERED_FRAMES = 256
"""Newest frames of which the patches are remembered: 10 s, 4 MB a region."""
CHOICE_INTERVAL = 5
"""Every Nth frame a variant is searched for."""
MAX_SHEAR = 0.16
"""Shear of the motion from the home to a reference source (fit/alignment.py) above which frames of that source show its
own regions: a head that turns or tilts quickly has up to 0.19, one that speaks 0.13."""
CODING_ERROR = 25.0
"""Mean squared error, in grey levels, that coding adds to a patch, as expected when it is chosen."""
MIN_GAIN = 0.1
"""Share of the reference source's error that another source must take for a region to show it."""
SWITCH_ERROR = 0.9
"""A region shows another source than in the frame before only if its error is below this share of that one's: each
switch costs bytes."""
MIN_WORTH = 700.0
"""Mean squared error, summed over the remembered frames, that a new patch must take: a blink takes several thousand."""
VARIANT_BYTES = 100
"""Approximate bytes of a variant, its headers included."""
BYTES_PER_S, BURST_BYTES = 70.0, 1200.0
"""Mean rate of variants, and what may be sent at once: twelve variants in the first seconds."""

Slots = tuple[int | None, ...]
"""For each region, the slot of the source that it shows; None: the reference source."""


class _Memory:
    """Patches of the newest frames of one region, and the error that the sources leave in each."""

    def __init__(self) -> None:
        self._count = 0
        self._patches: list[Picture] = []
        self._signatures = np.zeros((REMEMBERED_FRAMES, EXPRESSIVE_SIZE), np.float32)
        self._distances = np.zeros((REMEMBERED_FRAMES, REMEMBERED_FRAMES), np.float32)
        self._left = np.zeros(REMEMBERED_FRAMES, np.float32)

    def add(self, patch: Picture, known: Signature, left: float) -> None:
        at = self._count % REMEMBERED_FRAMES
        self._count += 1
        self._patches[at : at + 1] = [patch]
        self._signatures[at], self._left[at] = known, left
        count = len(self._patches)
        self._distances[at, :count] = self._distances[:count, at] = self._errors(known)

    def explain(self, known: Signature) -> None:
        """Note that a source shows this."""
        count = len(self._patches)
        self._left[:count] = np.minimum(self._left[:count], self._errors(known))

    def _errors(self, known: Signature) -> NDArray[np.float32]:
        return signature_errors(known[None], self._signatures[: len(self._patches)])[0]

    def best(self) -> Picture | None:
        """Return the patch that would take most of the summed error, if it is worth a variant."""
        count = len(self._patches)
        if not count:
            return None
        gains = np.maximum(self._left[:count, None] - self._distances[:count, :count] - CODING_ERROR, 0).sum(0)
        best = int(gains.argmax())
        return self._patches[best] if gains[best] >= MIN_WORTH else None


class VariantPolicy:
    """Chooses what the regions of one speaker's frames show. The home, of which there are variants, is the reference
    source of the first frame, and another one when that has left the library."""

    def __init__(self, compositor: Compositor, library: Library) -> None:
        """`library`: the sources that receivers have; only read here."""
        self._compositor, self._library = compositor, library
        self._bucket = TokenBucket(BYTES_PER_S, BURST_BYTES)
        self._frames = 0
        self._view: RegionView | None = None
        self.shown: Slots = ()
        """What the regions of the last frame show."""

    @property
    def home(self) -> Source | None:
        """The source of which there are variants; None before the first frame."""
        return None if self._view is None else self._view.home

    def choose(
        self, picture: Picture, keypoints: Keypoints, source: Source, arrived: Container[int] | None = None
    ) -> Slots:
        """Return what the regions of a frame with these fitted keypoints (K, 3) and this reference source should show,
        and remember them. `arrived`: slots of the sources that receivers have by now; None: all."""
        view = self._view_of(source)
        self._learn(view)
        self._frames += 1
        if is_held_back(self._compositor.reference(source), keypoints) or self._is_far(source):
            self.shown = (None,) * len(REGIONS)  # others would be pasted beside the places of eyes and mouth
            return self.shown
        own, shown = self._library.slot(source), list[int | None]()
        before = self.shown or (None,) * len(REGIONS)
        places = view.in_frame(keypoints, source)
        for region, wanted in enumerate(looks(picture, places)):
            patch = sampled(picture, places.regions[region])
            errors = errors_with(wanted, {slot: known[region] for slot, (_, known) in self._known.items()})
            self._memories[region].add(patch, wanted, min(errors.values(), default=np.inf))
            if arrived is not None:  # one on its way is no reason for another variant, but cannot be shown yet
                errors = {slot: error for slot, error in errors.items() if slot in arrived}
            shown.append(_chosen(errors, own, before[region]))
        self.shown = tuple(shown)
        return self.shown

    def _is_far(self, source: Source) -> bool:
        """Return whether a source's pose is so far from the home's that the motion misplaces regions between them."""
        assert self._view is not None
        return self._compositor.reference(self._view.home).shear(unknowns(source.keypoints)) > MAX_SHEAR

    def wanted(self, at_s: float) -> Picture | None:
        """Return the picture that is to become a variant of `home` at time `at_s`, if any. Call it after `choose`."""
        if self._view is None or self._frames % CHOICE_INTERVAL:
            return None
        best = [memory.best() for memory in self._memories]
        if not any(patch is not None for patch in best) or not self._bucket.take(at_s, VARIANT_BYTES):
            return None
        home = self._view.home
        picture, size = home.picture, len(home.picture)
        for region, patch in enumerate(best):
            if patch is not None:
                places = in_box(region_box(home.keypoints, region, size), pixel_grid(size))
                mask = cv2.remap(MASK, places, None, cv2.INTER_LINEAR)
                other = cv2.remap(patch, places, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
                picture = blend(picture, other, mask)
        return picture

    def _view_of(self, source: Source) -> RegionView:
        view = self._view
        if view is None or self._library.slot(view.home) is None:
            view = self._view = RegionView(source, self._compositor)
            self._memories = [_Memory() for _ in REGIONS]
            self._known: dict[int, tuple[Source, list[Signature]]] = {}
        return view

    def _learn(self, view: RegionView) -> None:
        """Take note of sources that are new in the library or have left it."""
        sources = {slot: source for slot in list(self._library.slots()) if (source := self._library.at(slot))}
        for slot in self._known.keys() - sources.keys():
            del self._known[slot]
        for slot, source in sources.items():
            if slot not in self._known or self._known[slot][0] is not source:
                known = looks(source.picture, view.in_source(source))
                self._known[slot] = source, known
                for memory, of_region in zip(self._memories, known, strict=True):
                    memory.explain(of_region)


def _chosen(errors: Mapping[int, float], own: int | None, before: int | None) -> int | None:
    """Return the slot of least error, or None for the reference source's own region in slot `own`; what the frame
    before shows if that is nearly as good."""
    candidates: dict[int | None, float] = {}
    if own is not None and own in errors:
        candidates[None] = errors[own] * (1 - MIN_GAIN)
    candidates.update((slot, error) for slot, error in errors.items() if slot != own)
    best = min(candidates, key=candidates.__getitem__, default=None)
    if before in candidates and candidates[best] > SWITCH_ERROR * candidates[before]:
        return before
    return best
