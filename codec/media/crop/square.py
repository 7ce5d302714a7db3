"""The square of a picture that is coded: crop modes, and cutting it out."""

import re
from dataclasses import dataclass

import cv2
import numpy as np

from iwcodec.codec.errors import CodecError, OptionError
from iwcodec.codec.media.types import Picture

MIN_SIDE = 32
"""Pixels of the smallest crop."""


@dataclass(frozen=True)
class Crop:
    """A square in pixels: left, top, side."""

    x: int
    y: int
    side: int


def centre_square(width: int, height: int) -> Crop:
    """Return the largest square in the middle of a picture."""
    side = min(width, height)
    return Crop((width - side) // 2, (height - side) // 2, side)


def check_crop_mode(mode: str) -> tuple[int, int, int] | None:
    """Return the numbers of a fixed crop "X,Y,SIDE" in pixels, None for "face" and "none". Raises OptionError for any
    other mode, or a square that is too small."""
    if mode in ("face", "none"):
        return None
    numbers = re.fullmatch(r"\s*(\d{1,6})\s*,\s*(\d{1,6})\s*,\s*(\d{1,6})\s*", str(mode))
    if numbers is None:
        raise OptionError(f'"{mode}" is not a crop: give face, none, or X,Y,SIDE in pixels.')
    x, y, side = (int(n) for n in numbers.groups())
    if side < MIN_SIDE:
        raise OptionError(f"A crop must be at least {MIN_SIDE} pixels wide, not {side}.")
    return x, y, side


def parse_crop(mode: str, width: int, height: int) -> Crop | None:
    """Return the fixed crop of a crop mode, or None if the crop is to follow the face.

    Modes: "none" (the centre square), "face", or "X,Y,SIDE" in pixels. With "face", a square picture is used whole.
    Raises OptionError as `check_crop_mode` does, CodecError for a square that is not inside the picture.
    """
    fixed = check_crop_mode(mode)
    if fixed is None:
        return centre_square(width, height) if mode == "none" or width == height else None
    x, y, side = fixed
    if x + side > width or y + side > height:
        raise CodecError(f"The crop {x},{y},{side} does not lie inside the picture of {width}x{height} pixels.")
    return Crop(x, y, side)


def crop_resize(picture: Picture, crop: Crop, size: int) -> Picture:
    """Cut out the crop and scale it to (size, size, 3). Pixels outside the picture repeat its edge."""
    height, width = picture.shape[:2]
    left, top = max(0, -crop.x), max(0, -crop.y)
    right, bottom = max(0, crop.x + crop.side - width), max(0, crop.y + crop.side - height)
    if left or top or right or bottom:
        picture = np.asarray(cv2.copyMakeBorder(picture, top, bottom, left, right, cv2.BORDER_REPLICATE), np.uint8)
    x, y = crop.x + left, crop.y + top
    part = picture[y : y + crop.side, x : x + crop.side]
    if crop.side == size:
        return np.ascontiguousarray(part)
    interpolation = cv2.INTER_AREA if crop.side > size else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(part, (size, size), interpolation=interpolation), np.uint8)
