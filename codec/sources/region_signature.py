"""How alike two regions look: patches of eyes or mouths as vectors, and the error between them.

Patches are compared by half-size grey levels, most of all where eyes and lips are, and relative to the brightness
around them, because the colours of a region are shifted to those around it (regions.py). A difference of contrast
counts more than others, so that an open eye is not shown closed.
"""

import math
from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.media.types import Picture
from iwcodec.codec.sources.expression import SPREADS, expression
from iwcodec.codec.sources.face_mesh import Landmarks
from iwcodec.codec.sources.regions import BOX_SIDE, MASK, REGIONS, RIM

CONTRAST_WEIGHT = 2.0
"""How much more the error of two patches counts as far as it is one of contrast. Without it a closed or blurred eye is
nearer to an open one that is displaced than another open eye is."""
FOCUS = ((0.476, 0.2, 0.16), (0.0, 0.45, 0.4))
"""Where errors of a region count most, in half sides of the box: Gaussians at plus and minus the first number from the
middle, with these standard deviations across and down."""
FOCUS_SHARE = (1.0, 0.9)
"""Share of the weight of errors there; the rest is spread as the mask."""
EXPRESSION_WEIGHTS = (200.0, 100.0)
"""Squared grey levels for a difference of one of SPREADS in what eyes and mouth do."""
_SIDE = BOX_SIDE // 2
SIGNATURE_SIZE = _SIDE * _SIDE
EXPRESSIVE_SIZE = SIGNATURE_SIZE + 2

Signature = NDArray[np.float32]
"""(SIGNATURE_SIZE,): of a patch. The squared distance of two is the mean squared error of their patches; its norm is
the contrast. May be followed by what the region does, (2,); NaN: not
known."""


def _small_mask() -> NDArray[np.float32]:
    return np.asarray(cv2.resize(MASK, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA), np.float32)


def _error_weights(region: int) -> Signature:
    """Roots of the weights with which squared errors count."""
    middle, wide, high = FOCUS[region]
    axis = (np.arange(_SIDE, dtype=np.float32) + 0.5) / _SIDE * 2 - 1
    across, down = np.meshgrid(axis, axis)
    focus = np.exp(-0.5 * (np.square((np.abs(across) - middle) / wide) + np.square(down / high)))
    weights = _small_mask() * (1 - FOCUS_SHARE[region] + FOCUS_SHARE[region] * focus)
    return np.sqrt(weights / weights.sum()).reshape(-1).astype(np.float32)


def _rim_weights() -> Signature:
    rim = (_small_mask() > RIM[0]) & (_small_mask() < RIM[1])
    return (rim / rim.sum()).reshape(-1).astype(np.float32)


_ERROR_WEIGHTS, _RIM_WEIGHTS = [_error_weights(region) for region in REGIONS], _rim_weights()


def signature(patch: Picture, region: int) -> Signature:
    """Return the signature of a uint8 patch (BOX_SIDE, BOX_SIDE, 3)."""
    small = cv2.resize(patch, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    levels = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).reshape(-1).astype(np.float32)
    return np.asarray((levels - levels @ _RIM_WEIGHTS) * _ERROR_WEIGHTS[region], np.float32)


def expressive_signature(patch: Picture, region: int, face: Landmarks | None) -> Signature:
    """Return the signature of a patch, followed by what its eyes or mouth do according to the face's landmarks."""
    acts = np.full(SPREADS.shape, np.nan) if face is None else expression(face).reshape(SPREADS.shape) / SPREADS
    weighted = math.sqrt(EXPRESSION_WEIGHTS[region]) * acts[region]
    return np.concatenate([signature(patch, region), weighted]).astype(np.float32)


def signature_errors(some: Signature, others: Signature) -> NDArray[np.float32]:
    """Return the errors (n, m), in squared grey levels, between signatures (n, size) and others (m, size)."""
    (levels, acts), (other_levels, other_acts) = (np.split(of, [SIGNATURE_SIZE], axis=1) for of in (some, others))
    squares, other_squares = np.square(levels).sum(1)[:, None], np.square(other_levels).sum(1)
    apart = np.maximum(squares + other_squares - 2 * levels @ other_levels.T, 0)
    contrast = np.sqrt(squares) - np.sqrt(other_squares)
    acts_apart = np.square(acts[:, None] - other_acts).sum(2)
    return np.asarray(apart + CONTRAST_WEIGHT * np.square(contrast) + np.nan_to_num(acts_apart), np.float32)


def errors_with(known: Signature, others: Mapping[int, Signature]) -> dict[int, float]:
    """Return the error of a signature with each of the others, by their slots."""
    if not others:
        return {}
    return dict(zip(others, map(float, signature_errors(known[None], np.stack([*others.values()]))[0]), strict=True))
