"""Parts: small pictures of eyes and mouth that replace these regions of a source picture.

A part is registered to one source, its home: a box in the home's picture says where it lies. To show a part, a
receiver pastes it into the picture of a frame's reference source, through the motion basis if that is not the home,
and reconstructs the frame from this composite. The reference source's motion then carries the part along: no landmark
of the frame is needed, and no further run of the network.

This is the choice among sources by region that attention over a set makes in the paper (Mallya, Wang and Liu,
"Implicit Warping for Animation with Image Sets", NeurIPS 2022), decided by the sender.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.bitstream.packets import MAX_BOX, Box, PartsPacket
from iwcodec.codec.errors import FormatError
from iwcodec.codec.fit.alignment import Reference, backward, reference, unknowns
from iwcodec.codec.media.types import Picture
from iwcodec.codec.sources.av1 import SourceDecoder
from iwcodec.models.flow import GRID
from iwcodec.models.runtime.pictures import pixel_grid
from iwcodec.models.runtime.types import Keypoints, Runtime, Source

EYES, MOUTH = 0, 1
REGIONS = (EYES, MOUTH)
PART_SIDE = 64
"""Side of a part in pixels, whatever the shape of its box: the smallest picture that SVT-AV1 codes."""
CAPACITY = 64
"""Parts kept of each region, 12 KB each; a further one replaces the oldest."""
MAX_COMPOSITES = 32
"""Composite sources kept, 200 KB each at 256x256; a further one replaces the one used least recently."""
MAX_COLOUR_SHIFT = 25.0
"""Largest shift of a part's colours, in grey levels, towards those around it. More would be another light."""
RIM = (0.02, 0.6)
"""Values of the mask between which pixels count as around a part."""
_IRISES, _MOUTH = (0, 1), (7, 8, 9, 10)
"""Keypoints that training placed on the irises, and on the corners and lips of the mouth."""
_EIGHTHS, _TURN = 8, 4096


def region_box(keypoints: Keypoints, region: int, size: int) -> Box:
    """Return the box of a region for the keypoints (K, 3) of a source picture of `size` pixels.

    Its unit is the distance of the irises: eyes 2.1 x 1.4, mouth 1.7 x 1.7, upright with the face.
    """
    points = (keypoints[:, :2].astype(np.float64) + 1) * (size / 2) - 0.5
    right, left = points[list(_IRISES)]
    axis = left - right
    unit = max(float(np.hypot(*axis)), size / 32)
    angle = math.atan2(axis[1], axis[0])
    if region == EYES:
        centre, width, height = (right + left) / 2, 2.1, 1.4
    else:
        down = np.array([-math.sin(angle), math.cos(angle)])
        centre, width, height = points[list(_MOUTH)].mean(0) + 0.05 * unit * down, 1.7, 1.7
    numbers = (*(centre * _EIGHTHS), width * unit * _EIGHTHS, height * unit * _EIGHTHS)
    x, y, w, h = (int(np.clip(round(float(number)), 1, MAX_BOX)) for number in numbers)
    return Box(x, y, w, h, round(angle / (2 * math.pi) * _TURN) % _TURN)


def _mask() -> NDArray[np.float32]:
    axis = (np.arange(PART_SIDE, dtype=np.float32) + 0.5) / PART_SIDE * 2 - 1
    across, down = np.meshgrid(axis, axis)
    return np.asarray(np.clip((0.97 - np.sqrt(across**2 + down**2)) / 0.35, 0, 1), np.float32)


MASK = _mask()
"""(PART_SIDE, PART_SIDE): how much of a part shows; an ellipse that fades to 0 before the edge of the box."""


def box_places(box: Box) -> NDArray[np.float32]:
    """Return where the pixels of a part (PART_SIDE, PART_SIDE, 2) lie in the home's picture, in its pixels."""
    axis = (np.arange(PART_SIDE, dtype=np.float32) + 0.5) / PART_SIDE - 0.5
    across, down = np.meshgrid(axis * (box.width / _EIGHTHS), axis * (box.height / _EIGHTHS))
    cos, sin = _rotation(box)
    x = box.x / _EIGHTHS + across * cos - down * sin
    y = box.y / _EIGHTHS + across * sin + down * cos
    return np.stack([x, y], axis=-1).astype(np.float32)


def in_box(box: Box, places: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return where places (..., 2) of the home's picture lie in a part, in its pixels. Inverse of `box_places`."""
    x, y = places[..., 0] - box.x / _EIGHTHS, places[..., 1] - box.y / _EIGHTHS
    cos, sin = _rotation(box)
    across, down = (x * cos + y * sin) / (box.width / _EIGHTHS), (y * cos - x * sin) / (box.height / _EIGHTHS)
    return np.stack([across + 0.5, down + 0.5], axis=-1).astype(np.float32) * np.float32(PART_SIDE) - np.float32(0.5)


def _rotation(box: Box) -> tuple[float, float]:
    angle = box.angle * 2 * math.pi / _TURN
    return math.cos(angle), math.sin(angle)


def forward_shift(ref: Reference, keypoints: Keypoints, size: int) -> NDArray[np.float32]:
    """Return how far each pixel of a source moves, (size, size, 2) in pixels, in a frame with keypoints (K, 3)."""
    return _enlarged(ref.moved(unknowns(keypoints)).reshape(GRID, GRID, 2) * np.float32(GRID / 2), size)


def backward_shift(ref: Reference, keypoints: Keypoints, size: int) -> NDArray[np.float32]:
    """Return how far from itself each pixel of a frame with keypoints (K, 3) lies in a source, (size, size, 2) in
    pixels."""
    return _enlarged(backward(ref.moved(unknowns(keypoints)).reshape(GRID, GRID, 2) * np.float32(GRID / 2)), size)


def _enlarged(cells: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    fine = cv2.resize(cells, (size, size), interpolation=cv2.INTER_LINEAR)
    return np.asarray(fine * np.float32(size / GRID), np.float32)


@dataclass(frozen=True)
class Part:
    """A decoded part."""

    picture: Picture
    """(PART_SIDE, PART_SIDE, 3)."""
    home: Source
    box: Box


class PartLibrary:
    """The parts of each region, and the composite sources made with them. Sender and receiver keep equal ones."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._decoders = [SourceDecoder(PART_SIDE) for _ in REGIONS]
        self._next = [0 for _ in REGIONS]
        self._parts: list[dict[int, Part]] = [{} for _ in REGIONS]
        self._references: dict[int, tuple[Source, Reference]] = {}
        self._composites: dict[tuple[int, ...], tuple[tuple[Source | Part | None, ...], Source]] = {}

    def add(self, packet: PartsPacket, home: Source | None) -> None:
        """Decode parts and keep them. `home`: the source in the packet's slot. Raises FormatError."""
        if packet.region not in REGIONS:
            raise FormatError(f"Parts are of region {packet.region}, which does not exist.")
        if home is None:
            raise FormatError(f"Parts are registered to source {packet.slot}, which is not available.")
        decoder, parts = self._decoders[packet.region], self._parts[packet.region]
        if packet.first != self._next[packet.region]:  # parts are missing, and later ones are predicted from them
            decoder.reset()
        self._next[packet.region] = packet.first + len(packet.payloads)
        for number, payload in enumerate(packet.payloads, packet.first):
            parts.pop(number, None)
            parts[number] = Part(decoder.add(payload), home, packet.box)
            if len(parts) > CAPACITY:
                del parts[next(iter(parts))]

    def pictures(self, region: int) -> list[NDArray[np.float32]]:
        """Return the pictures (PART_SIDE, PART_SIDE, 3) of a region's parts, by number if none was dropped."""
        return [part.picture.astype(np.float32) for part in self._parts[region].values()]

    def composite(self, source: Source, numbers: tuple[int | None, ...]) -> Source:
        """Return a source whose regions show the parts with these numbers. None, and a part that is missing, leave the
        region as it is."""
        chosen = [
            None if number is None else parts.get(number) for number, parts in zip(numbers, self._parts, strict=False)
        ]
        if not any(chosen):
            return source
        key = (id(source), *map(id, chosen))
        known = self._composites.pop(key, None)
        if known is None:
            picture = source.picture
            for part in chosen:
                picture = picture if part is None else self._pasted(picture, source, part)
            # The key is by identity: what it names must live as long.
            known = ((source, *chosen), self._runtime.with_picture(source, picture))
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

    def _pasted(self, picture: Picture, source: Source, part: Part) -> Picture:
        size = len(picture)
        places = pixel_grid(size)
        if source is not part.home:
            places = places + backward_shift(self.reference(part.home), source.keypoints, size)
        return paste(picture, part.picture, in_box(part.box, places))


def paste(picture: Picture, part: Picture, places: NDArray[np.float32]) -> Picture:
    """Paste a part into a picture (H, W, 3). `places` (H, W, 2): where the picture's pixels lie in the part.

    The part's colours are shifted by the median difference around it.
    """
    sampled = cv2.remap(part, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    mask = cv2.remap(MASK, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    rim = (mask > RIM[0]) & (mask < RIM[1])
    if rim.any():
        shift = np.median((picture - sampled)[rim], axis=0)
        sampled += np.clip(shift, -MAX_COLOUR_SHIFT, MAX_COLOUR_SHIFT).astype(np.float32)
    mask = mask[..., None]
    return np.asarray(np.clip(np.rint(picture * (1 - mask) + sampled * mask), 0, 255), np.uint8)
