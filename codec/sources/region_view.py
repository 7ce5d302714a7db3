"""Which source the regions of a frame should show: frames and sources compared in the coordinates of one source.

Decoded motion says where a region of a frame's reference source lies in the frame. There the sender samples the frame,
and compares it with how the same region looks in each source: no landmark is needed, and no run of the network.
"""

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.fit.alignment import unknowns
from iwcodec.codec.media.types import Picture
from iwcodec.codec.sources.library import Library
from iwcodec.codec.sources.regions import MASK, REGIONS, Compositor, box_places, region_box
from iwcodec.models.flow import GRID
from iwcodec.models.runtime.pictures import pixel_grid
from iwcodec.models.runtime.types import Keypoints, Source

MIN_GAIN = 0.03
"""Share of its squared error that a region must lose to show another source than the reference source."""
Patch = NDArray[np.float32]
"""(BOX_SIDE / 2, BOX_SIDE / 2, 3): a region, sampled in the box of the home."""


class RegionView:
    """Looks at regions of frames and sources as they would look in `home`."""

    def __init__(self, home: Source, compositor: Compositor) -> None:
        self.home, self.compositor, self._size = home, compositor, len(home.picture)
        self._places = [box_places(region_box(home.keypoints, region, self._size)) for region in REGIONS]
        self._of_sources: dict[int, tuple[Source, list[Patch]]] = {}

    def of_frame(self, original: Picture, keypoints: Keypoints, source: Source) -> list[Patch]:
        """Return the regions of a frame with keypoints (K, 3) relative to its reference source."""
        return [_patch(original, self._in_frame(places, keypoints, source)) for places in self._places]

    def whole(self, original: Picture, keypoints: Keypoints, source: Source) -> Picture:
        """Return a frame (H, W, 3) as it would look with the home's keypoints."""
        return _sampled(original, self._in_frame(pixel_grid(self._size), keypoints, source)).astype(np.uint8)

    def of_source(self, source: Source) -> list[Patch]:
        """Return the regions of a source, computed once."""
        known = self._of_sources.get(id(source))
        if known is None:
            patches = [_patch(source.picture, self._in_source(places, source)) for places in self._places]
            known = self._of_sources[id(source)] = source, patches
        return known[1]

    def errors(
        self, original: Picture, keypoints: Keypoints, source: Source, library: Library
    ) -> list[dict[int | None, float]]:
        """Return for each region of a frame its squared error with each source, by slot, and with the reference source
        `source` (None). `keypoints`: (K, 3), as decoded."""
        own = library.slot(source)
        found: list[dict[int | None, float]] = []
        for patch, sources in zip(self.of_frame(original, keypoints, source), self.of_library(library), strict=True):
            errors = region_errors(patch, sources)
            found.append({None if slot == own else slot: error for slot, error in errors.items()})
            if None in found[-1]:
                found[-1][None] *= 1 - MIN_GAIN
        return found

    def choose(
        self, original: Picture, keypoints: Keypoints, source: Source, library: Library
    ) -> tuple[int | None, ...]:
        """Return the slots of the sources with the least error; None: the reference source. Arguments as for
        `errors`."""
        errors = self.errors(original, keypoints, source, library)
        return tuple(min(of_region, key=of_region.__getitem__, default=None) for of_region in errors)

    def of_library(self, library: Library) -> list[dict[int, Patch]]:
        """Return for each region how it looks in the sources of a library, by their slots."""
        sources = {slot: source for slot in library.slots() if (source := library.at(slot)) is not None}
        self._of_sources = {id(s): self._of_sources[id(s)] for s in sources.values() if id(s) in self._of_sources}
        return [{slot: self.of_source(source)[region] for slot, source in sources.items()} for region in REGIONS]

    def in_frame(self, keypoints: Keypoints, source: Source) -> list[NDArray[np.float32]]:
        """Return for each region where the places of its box (BOX_SIDE, BOX_SIDE, 2) are in a frame, in pixels."""
        return [self._in_frame(places, keypoints, source) for places in self._places]

    def in_source(self, source: Source) -> list[NDArray[np.float32]]:
        """The same in the picture of a source."""
        return [self._in_source(places, source) for places in self._places]

    def _in_source(self, places: NDArray[np.float32], source: Source) -> NDArray[np.float32]:
        if source.keypoints is self.home.keypoints:
            return places
        return places + self._moved(self.home, source.keypoints, places)

    def _in_frame(self, places: NDArray[np.float32], keypoints: Keypoints, source: Source) -> NDArray[np.float32]:
        places = self._in_source(places, source)
        return places + self._moved(source, keypoints, places)

    def _moved(self, source: Source, keypoints: Keypoints, places: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return how far the pixels of a source at `places` move in a frame with keypoints (K, 3), in pixels."""
        moved = self.compositor.reference(source).moved(unknowns(keypoints)).reshape(GRID, GRID, 2)
        per_cell = np.float32(self._size / GRID)
        return _sampled(moved, (places + np.float32(0.5)) / per_cell - np.float32(0.5)) * np.float32(self._size / 2)


def region_errors(patch: Patch, others: Mapping[int, Patch]) -> dict[int, float]:
    """Return the mean squared error of a patch with each of the others, as the mask weighs it."""
    if not others:
        return {}
    gaps = np.stack([other.reshape(-1) for other in others.values()]) - patch.reshape(-1)
    return dict(zip(others, map(float, np.square(gaps) @ WEIGHTS), strict=True))


def region_error(a: Patch, b: Patch) -> float:
    """Mean squared error of two patches, as the mask weighs it."""
    return float(np.square(a - b).reshape(-1) @ WEIGHTS)


def _patch(picture: Picture, places: NDArray[np.float32]) -> Patch:
    return halved(_sampled(picture, places))


def halved(planes: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(planes, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))


def _weights() -> NDArray[np.float32]:
    mask = np.repeat(halved(MASK).reshape(-1), 3)
    return np.asarray(mask / mask.sum(), np.float32)


WEIGHTS = _weights()
"""Weight of each value of a patch in its error; they sum to 1."""


def _sampled(planes: NDArray[np.float32] | Picture, places: NDArray[np.float32]) -> NDArray[np.float32]:
    sampled = cv2.remap(planes, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(sampled, np.float32)
