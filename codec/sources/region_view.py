"""Which source the regions of a frame should show: frames and sources compared in the coordinates of one source.

Decoded motion says where a region of a frame's reference source lies in the frame. There the sender samples the frame,
and compares it with how the same region looks in each source, and with what it does there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.fit.alignment import unknowns
from iwcodec.codec.media.types import Picture
from iwcodec.codec.sources.face_mesh import SIDE, crop_landmarks, face_box
from iwcodec.codec.sources.library import Library
from iwcodec.codec.sources.region_signature import Signature, errors_with, expressive_signature, signature
from iwcodec.codec.sources.regions import REGIONS, Compositor, box_places, region_box, sampled
from iwcodec.models.flow import GRID
from iwcodec.models.runtime.pictures import pixel_grid
from iwcodec.models.runtime.types import Keypoints, Source

MIN_GAIN = 0.03
"""Share of its error that a region must lose to show another source than the reference source."""
FACE_GRID = 48
"""Side of the grid of places between which those of the face mesh's pixels are interpolated."""

Looks = list[Signature]
"""Of each region."""


@dataclass(frozen=True)
class Places:
    """Where the regions and the face of a home are in another picture, in pixels."""

    regions: list[NDArray[np.float32]]
    """(BOX_SIDE, BOX_SIDE, 2) of each region."""
    face: NDArray[np.float32] | None
    """(FACE_GRID, FACE_GRID, 2): of the square that the face mesh takes; None: what a face does is not compared."""


class RegionView:
    """Looks at regions of frames and sources as they would look in `home`."""

    def __init__(self, home: Source, compositor: Compositor, expressive: bool = True) -> None:
        """`expressive`: compare what eyes and mouths do, too, at 5 ms a picture."""
        self.home, self.compositor, self._size = home, compositor, len(home.picture)
        regions = [box_places(region_box(home.keypoints, region, self._size)) for region in REGIONS]
        self._places = Places(
            regions, box_places(face_box(home.picture, home.keypoints), FACE_GRID) if expressive else None
        )
        self._of_sources: dict[int, tuple[Source, Looks]] = {}

    def whole(self, original: Picture, keypoints: Keypoints, source: Source) -> Picture:
        """Return a frame (H, W, 3) as it would look with the home's keypoints."""
        return sampled(original, self._in_frame(pixel_grid(self._size), keypoints, source))

    def of_source(self, source: Source) -> Looks:
        """Return how the regions of a source look, computed once."""
        known = self._of_sources.get(id(source))
        if known is None:
            known = self._of_sources[id(source)] = source, looks(source.picture, self.in_source(source))
        return known[1]

    def choose(
        self, original: Picture, keypoints: Keypoints, source: Source, library: Library
    ) -> tuple[int | None, ...]:
        """Return the slots of the sources that are nearest to the regions of a frame with keypoints (K, 3) relative to
        its reference source `source`; None: the reference source."""
        of_frame = looks(original, self.in_frame(keypoints, source))
        errors = errors_by_source(of_frame, self.of_library(library), library.slot(source))
        return tuple(min(of_region, key=of_region.__getitem__, default=None) for of_region in errors)

    def of_library(self, library: Library) -> list[dict[int, Signature]]:
        """Return for each region how it looks in the sources of a library, by their slots."""
        sources = {slot: source for slot in library.slots() if (source := library.at(slot)) is not None}
        self._of_sources = {id(s): self._of_sources[id(s)] for s in sources.values() if id(s) in self._of_sources}
        return [{slot: self.of_source(source)[region] for slot, source in sources.items()} for region in REGIONS]

    def in_frame(self, keypoints: Keypoints, source: Source) -> Places:
        """Return the places in a frame with keypoints (K, 3) relative to its reference source."""
        return self._mapped(lambda places: self._in_frame(places, keypoints, source))

    def in_source(self, source: Source) -> Places:
        """Return the places in the picture of a source."""
        return self._mapped(lambda places: self._in_source(places, source))

    def _mapped(self, function: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Places:
        face = self._places.face
        return Places([*map(function, self._places.regions)], None if face is None else function(face))

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


def looks(picture: Picture, places: Places) -> Looks:
    """Return how the regions at these places of a picture look."""
    patches = [sampled(picture, of_region) for of_region in places.regions]
    if places.face is None:
        return [signature(patch, region) for region, patch in enumerate(patches)]
    pixels = cv2.resize(places.face, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    face = crop_landmarks(sampled(picture, np.asarray(pixels, np.float32)))
    return [expressive_signature(patch, region, face) for region, patch in enumerate(patches)]


def errors_by_source(
    of_frame: Looks, of_library: Sequence[Mapping[int, Signature]], own: int | None
) -> list[dict[int | None, float]]:
    """Return for each region of a frame its error with each source, by slot, and with the reference source, whose slot
    is `own` (None)."""
    found: list[dict[int | None, float]] = []
    for region, sources in zip(of_frame, of_library, strict=True):
        errors = errors_with(region, sources)
        found.append({None if slot == own else slot: error for slot, error in errors.items()})
        if None in found[-1]:
            found[-1][None] *= 1 - MIN_GAIN
    return found
