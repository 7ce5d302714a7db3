"""Regions: eyes and mouth of a frame may each show another source than the rest of the picture.

To show a region of another source, a receiver pastes it into the picture of the frame's reference source, through the
motion basis unless both have the same keypoints, and reconstructs the frame from this composite. The reference source's
motion then carries the region along: no landmark of the frame is needed, and no further run of the network.

This is the choice among sources by region that attention over a set makes in the paper (Mallya, Wang and Liu,
"Implicit Warping for Animation with Image Sets", NeurIPS 2022), decided by the sender. Variants of a source
(packets.py) exist for their regions alone: in the AV1 sequence of the sources, a picture that differs from an earlier
one in eyes and mouth takes about a third of the bytes of a new source.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.fit.alignment import Reference, backward, reference, unknowns
from iwcodec.codec.media.types import Picture
from iwcodec.codec.sources.library import CAPACITY
from iwcodec.models.flow import GRID
from iwcodec.models.runtime.pictures import pixel_grid
from iwcodec.models.runtime.types import Keypoints, Runtime, Source

EYES, MOUTH = 0, 1
REGIONS = (EYES, MOUTH)
REGION_SIZES = ((2.1, 1.4), (1.7, 1.7))
"""Width and height of each region, in distances of the irises."""
BOX_SIDE = 64
"""Side of the grid of places that `box_places` returns."""
MAX_COMPOSITES = 32
"""Composite sources kept, 200 KB each at 256x256; a further one replaces the one used least recently."""
MAX_COLOUR_SHIFT = 25.0
"""Largest shift of a region's colours, in grey levels, towards those around it. More would be another light."""
RIM = (0.02, 0.6)
"""Values of the mask between which pixels count as around a region."""
_IRISES, _MOUTH = (0, 1), (7, 8, 9, 10)
"""Keypoints that training placed on the irises, and on the corners and lips of the mouth."""


@dataclass(frozen=True)
class Box:
    """A rectangle in a picture."""

    centre: tuple[float, float]
    """x and y in pixels."""
    width: float
    height: float
    """In pixels."""
    angle: float
    """Clockwise rotation in radians."""


def region_box(keypoints: Keypoints, region: int, size: int) -> Box:
    """Return the box of a region for the keypoints (K, 3) of a source picture of `size` pixels.

    It is upright with the face and has the size given in REGION_SIZES.
    """
    points = (keypoints[:, :2].astype(np.float64) + 1) * (size / 2) - 0.5
    right, left = points[list(_IRISES)]
    axis = left - right
    unit = max(float(np.hypot(*axis)), size / 32)
    angle = math.atan2(axis[1], axis[0])
    if region == EYES:
        centre = (right + left) / 2
    else:
        down = np.array([-math.sin(angle), math.cos(angle)])
        centre = points[list(_MOUTH)].mean(0) + 0.05 * unit * down
    width, height = REGION_SIZES[region]
    return Box((float(centre[0]), float(centre[1])), width * unit, height * unit, angle)


def _mask() -> NDArray[np.float32]:
    axis = (np.arange(BOX_SIDE, dtype=np.float32) + 0.5) / BOX_SIDE * 2 - 1
    across, down = np.meshgrid(axis, axis)
    return np.asarray(np.clip((0.97 - np.sqrt(across**2 + down**2)) / 0.35, 0, 1), np.float32)


MASK = _mask()
"""(BOX_SIDE, BOX_SIDE): how much of a region shows; an ellipse that fades to 0 before the edge of the box."""


def box_places(box: Box, side: int = BOX_SIDE) -> NDArray[np.float32]:
    """Return a grid of places (side, side, 2) in a box, in pixels of the picture."""
    axis = (np.arange(side, dtype=np.float32) + 0.5) / side - 0.5
    across, down = np.meshgrid(axis * box.width, axis * box.height)
    cos, sin = math.cos(box.angle), math.sin(box.angle)
    x = box.centre[0] + across * cos - down * sin
    y = box.centre[1] + across * sin + down * cos
    return np.stack([x, y], axis=-1).astype(np.float32)


def sampled(picture: Picture, places: NDArray[np.float32]) -> Picture:
    """Return a picture (H, W, 3) at places (..., 2), in pixels."""
    return np.asarray(cv2.remap(picture, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def in_box(box: Box, places: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return where places (..., 2) of a picture lie in the grid of a box. Inverse of `box_places`."""
    x, y = places[..., 0] - box.centre[0], places[..., 1] - box.centre[1]
    cos, sin = math.cos(box.angle), math.sin(box.angle)
    across, down = (x * cos + y * sin) / box.width, (y * cos - x * sin) / box.height
    return np.stack([across + 0.5, down + 0.5], axis=-1).astype(np.float32) * np.float32(BOX_SIDE) - np.float32(0.5)


def backward_shift(ref: Reference, keypoints: Keypoints, size: int) -> NDArray[np.float32]:
    """Return how far from itself each pixel of a frame with keypoints (K, 3) lies in a source, (size, size, 2) in
    pixels."""
    return _enlarged(backward(ref.moved(unknowns(keypoints)).reshape(GRID, GRID, 2) * np.float32(GRID / 2)), size)


def _enlarged(cells: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    fine = cv2.resize(cells, (size, size), interpolation=cv2.INTER_LINEAR)
    return np.asarray(fine * np.float32(size / GRID), np.float32)


class Compositor:
    """Makes composite sources, and keeps them."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._references: dict[int, tuple[Source, Reference]] = {}
        self._composites: dict[tuple[int, ...], tuple[tuple[Source | None, ...], Source]] = {}

    def composite(self, source: Source, shown: Sequence[Source | None]) -> Source:
        """Return a source whose regions show other sources. None leaves a region as it is; further regions than there
        are do nothing."""
        others = [None if other is source else other for other in shown[: len(REGIONS)]]
        if not any(others):
            return source
        key = (id(source), *map(id, others))
        known = self._composites.pop(key, None)
        if known is None:
            picture = source.picture
            for region, other in zip(REGIONS, others, strict=False):
                picture = picture if other is None else self._pasted(picture, source, other, region)
            # The key is by identity: what it names must live as long.
            known = ((source, *others), self._runtime.with_picture(source, picture))
        self._composites[key] = known
        if len(self._composites) > MAX_COMPOSITES:
            del self._composites[next(iter(self._composites))]
        return known[1]

    def reference(self, source: Source) -> Reference:
        """Return a source prepared for fitting, made once."""
        if id(source) not in self._references:
            if len(self._references) >= CAPACITY:
                del self._references[next(iter(self._references))]
            self._references[id(source)] = source, reference(source)
        return self._references[id(source)][1]

    def _pasted(self, picture: Picture, source: Source, other: Source, region: int) -> Picture:
        size = len(picture)
        places = pixel_grid(size)
        if source.keypoints is not other.keypoints:
            places = places + backward_shift(self.reference(other), source.keypoints, size)
        sampled = cv2.remap(other.picture, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return blend(picture, sampled, region_mask(other.keypoints, region, size, places))


def region_mask(keypoints: Keypoints, region: int, size: int, places: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return how much of a region shows (...) at places (..., 2) of a source picture of `size` pixels."""
    return np.asarray(cv2.remap(MASK, in_box(region_box(keypoints, region, size), places), None, cv2.INTER_LINEAR))


def blend(picture: Picture, other: Picture, mask: NDArray[np.float32]) -> Picture:
    """Blend a picture (H, W, 3) into another under a mask (H, W).

    Its colours are shifted by the median difference around it.
    """
    rim = (mask > RIM[0]) & (mask < RIM[1])
    if rim.any():
        shift = np.median(picture[rim].astype(np.float32) - other[rim], axis=0)
        shift = np.clip(shift, -MAX_COLOUR_SHIFT, MAX_COLOUR_SHIFT)
    else:
        shift = np.zeros(3, np.float32)
    mask = mask[..., None]
    return np.asarray(np.clip(np.rint(picture * (1 - mask) + (other + shift) * mask), 0, 255), np.uint8)
