"""Which source the regions of a frame should show: frames and sources compared in the coordinates of one source.

Decoded motion says where a region of a frame's reference source lies in the frame. There the sender samples the frame,
and compares it with how the same region looks in each source: no landmark is needed, and no run of the network.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.fit.alignment import unknowns
from iwcodec.codec.media.types import Picture
from iwcodec.codec.sources.library import Library
from iwcodec.codec.sources.region_signature import Signature, errors_with, expressive_signature
from iwcodec.codec.sources.regions import REGIONS, Compositor, box_places, region_box
from iwcodec.models.flow import GRID
from iwcodec.models.runtime.pictures import pixel_grid
from iwcodec.models.runtime.types import Keypoints, Source

MIN_GAIN = 0.03
"""Share of its error that a region must lose to show another source than the reference source."""


class RegionView:
    """Looks at regions of frames and sources as they would look in `home`."""

    def __init__(self, home: Source, compositor: Compositor) -> None:
        self.home, self.compositor, self._size = home, compositor, len(home.picture)
        self._places = [box_places(region_box(home.keypoints, region, self._size)) for region in REGIONS]
        self._of_sources: dict[int, tuple[Source, list[Signature]]] = {}

    def of_frame(self, original: Picture, keypoints: Keypoints, source: Source) -> list[Signature]:
        """Return the regions of a frame with keypoints (K, 3) relative to its reference source."""
        return _signatures(original, self.in_frame(keypoints, source))

    def whole(self, original: Picture, keypoints: Keypoints, source: Source) -> Picture:
        """Return a frame (H, W, 3) as it would look with the home's keypoints."""
        return sampled(original, self._in_frame(pixel_grid(self._size), keypoints, source))

    def of_source(self, source: Source) -> list[Signature]:
        """Return the regions of a source, computed once."""
        known = self._of_sources.get(id(source))
        if known is None:
            signatures = _signatures(source.picture, self.in_source(source))
            known = self._of_sources[id(source)] = source, signatures
        return known[1]

    def errors(
        self, original: Picture, keypoints: Keypoints, source: Source, library: Library
    ) -> list[dict[int | None, float]]:
        """Return for each region of a frame its error with each source, by slot, and with the reference source
        `source` (None). `keypoints`: (K, 3), as decoded."""
        own = library.slot(source)
        found: list[dict[int | None, float]] = []
        for region, sources in zip(self.of_frame(original, keypoints, source), self.of_library(library), strict=True):
            errors = errors_with(region, sources)
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

    def of_library(self, library: Library) -> list[dict[int, Signature]]:
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
        cells = (places + np.float32(0.5)) / per_cell - np.float32(0.5)
        at_places = cv2.remap(moved, cells, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(at_places * np.float32(self._size / 2), np.float32)


def _signatures(picture: Picture, places: Sequence[NDArray[np.float32]]) -> list[Signature]:
    return [expressive_signature(sampled(picture, of_region), region) for region, of_region in enumerate(places)]


def sampled(picture: Picture, places: NDArray[np.float32]) -> Picture:
    """Return a picture (H, W, 3) at places (..., 2), in pixels."""
    return np.asarray(cv2.remap(picture, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8)
