"""Regions of frames and sources, compared in the coordinates of one source, the home.

Decoded motion says where a region of the home lies in a frame. There the sender samples the frame, and compares it with
how the same region looks in each source: no landmark is needed, and no run of the network.
"""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.media.types import Picture
from iwcodec.codec.sources.library import Library
from iwcodec.codec.sources.regions import MASK, REGIONS, Compositor, box_places, forward_shift, region_box
from iwcodec.models.runtime.pictures import pixel_grid
from iwcodec.models.runtime.types import Keypoints, Source

MIN_GAIN = 0.03
"""Share of its squared error that a region must lose to show another source than the reference source."""
KEPT_GAIN = 0.03
"""Share of its squared error that a region must lose to show another source than in the previous frame: naming one
takes bytes."""

Patch = NDArray[np.float32]
"""(BOX_SIDE, BOX_SIDE, 3): a region, sampled in the box of the home."""


class RegionView:
    """Looks at regions of frames and sources as they would look in `home`."""

    def __init__(self, home: Source, compositor: Compositor) -> None:
        self.home, self._compositor, self._size = home, compositor, len(home.picture)
        self._places = [box_places(region_box(home.keypoints, region, self._size)) for region in REGIONS]
        self._of_sources: dict[int, tuple[Source, list[Patch]]] = {}

    def of_frame(self, original: Picture, keypoints: Keypoints, source: Source) -> list[Patch]:
        """Return the regions of a frame with keypoints (K, 3) relative to its reference source."""
        return [_sampled(original, self._in_frame(places, keypoints, source)) for places in self._places]

    def whole(self, original: Picture, keypoints: Keypoints, source: Source) -> Picture:
        """Return a frame (H, W, 3) as it would look with the home's keypoints."""
        return _sampled(original, self._in_frame(pixel_grid(self._size), keypoints, source)).astype(np.uint8)

    def of_source(self, source: Source) -> list[Patch]:
        """Return the regions of a source, computed once."""
        known = self._of_sources.get(id(source))
        if known is None:
            patches = [_sampled(source.picture, self._in_source(places, source)) for places in self._places]
            known = self._of_sources[id(source)] = source, patches
        return known[1]

    def of_library(self, library: Library) -> list[dict[int, Patch]]:
        """Return for each region how it looks in the sources of a library, by their slots."""
        sources = {slot: source for slot in library.slots() if (source := library.at(slot)) is not None}
        self._of_sources = {id(s): self._of_sources[id(s)] for s in sources.values() if id(s) in self._of_sources}
        return [{slot: self.of_source(source)[region] for slot, source in sources.items()} for region in REGIONS]

    def _in_source(self, places: NDArray[np.float32], source: Source) -> NDArray[np.float32]:
        if source.keypoints is self.home.keypoints:
            return places
        return places + self._moved(self.home, source.keypoints, places)

    def _in_frame(self, places: NDArray[np.float32], keypoints: Keypoints, source: Source) -> NDArray[np.float32]:
        places = self._in_source(places, source)
        return places + self._moved(source, keypoints, places)

    def _moved(self, source: Source, keypoints: Keypoints, places: NDArray[np.float32]) -> NDArray[np.float32]:
        return _sampled(forward_shift(self._compositor.reference(source), keypoints, self._size), places)


def region_error(a: Patch, b: Patch) -> float:
    """Mean squared error of two patches, as the mask weighs it."""
    return float((np.square(a - b).mean(-1) * MASK).sum() / MASK.sum())


def nearest_sources(
    wanted: Sequence[Patch],
    candidates: Sequence[Mapping[int, Patch]],
    reference_source: int,
    previous: Sequence[int | None],
) -> tuple[int | None, ...]:
    """Return for each region the slot of the source that looks most like it; None: the reference source.

    `wanted`: the regions of the frame. `candidates`: how sources look, by slot. `previous`: the last frame's choice.
    """
    chosen: list[int | None] = []
    for patch, sources, kept in zip(wanted, candidates, previous, strict=True):
        errors = {slot: region_error(patch, other) for slot, other in sources.items()}
        if reference_source in errors:
            errors[reference_source] *= 1 - MIN_GAIN
        if kept in errors:
            errors[kept] *= 1 - KEPT_GAIN
        best = min(errors, key=errors.__getitem__, default=reference_source)
        chosen.append(None if best == reference_source else best)
    return tuple(chosen)


def _sampled(planes: NDArray[np.float32] | Picture, places: NDArray[np.float32]) -> NDArray[np.float32]:
    sampled = cv2.remap(planes, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(sampled, np.float32)
