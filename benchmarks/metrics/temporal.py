"""Temporal quality of a decoded clip: flicker and motion error, both from one frame to the next."""

import cv2
import numpy as np

from iwcodec.benchmarks.metrics.fidelity import luma
from iwcodec.codec.media.types import Picture

MAX_STILL_CHANGE = 2.0
"""Grey levels: a pixel of the original counts as still if its 3 x 3 mean changes by at most this between frames."""


def flicker(originals: tuple[Picture, Picture], decoded: tuple[Picture, Picture]) -> float | None:
    """Mean luma change (grey levels) between two decoded frames over pixels where the original is still.

    None if no pixel of the original is still.
    """
    change = np.abs(luma(originals[1]) - luma(originals[0]))
    still = cv2.boxFilter(change, -1, (3, 3)) <= MAX_STILL_CHANGE
    if not still.any():
        return None
    return float(np.abs(luma(decoded[1]) - luma(decoded[0]))[still].mean())


def motion_error(originals: tuple[Picture, Picture], decoded: tuple[Picture, Picture]) -> float:
    """Mean end-point error in pixels between the frame-to-frame optical flows (DIS) of original and decoded."""
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    original_flow, decoded_flow = (flow.calc(_grey(a), _grey(b), None) for a, b in (originals, decoded))
    return float(np.linalg.norm(original_flow - decoded_flow, axis=2).mean())


def _grey(picture: Picture) -> Picture:
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8)
