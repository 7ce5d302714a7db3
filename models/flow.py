"""Dense optical flow between two pictures of a clip: the teacher of the attention's correspondences.

OpenCV's DIS flow, forward and backward; a cell counts only where the two agree.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

FLOW_SIZE = 128
"""Pictures are shrunk to this side before the flow."""
GRID = 32
"""Cells a side of a stored correspondence."""
UNSURE = 255
"""Error code of a cell whose forward and backward flows disagree."""
AGREEMENT = 1.5
"""Largest forward-backward disagreement, in pixels of FLOW_SIZE."""


def flow_estimator(finest: int = 0) -> cv2.DISOpticalFlow:
    """DIS flow that goes down to 1 / 2**finest of the pictures' resolution.

    The preset stops at a quarter: pictures warped by it are 4.6 dB worse than at full resolution, and 2.6 dB worse
    than at half. Variational refinement takes most of the time and makes nothing better (3.4 and 0.8 ms at FLOW_SIZE
    without).
    """
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    dis.setFinestScale(finest)
    dis.setVariationalRefinementIterations(0)
    return dis


@dataclass(frozen=True)
class Correspondence:
    """For each cell of a driving frame, where it is in a source.

    shift: float16 (GRID, GRID, 2), source place minus own place in [-1, 1] units.
    error: uint8 (GRID, GRID), mean absolute difference of the flow-warped source in grey levels, or UNSURE.
    """

    shift: NDArray[np.float16]
    error: NDArray[np.uint8]


def correspond(driving: NDArray[np.uint8], source: NDArray[np.uint8]) -> Correspondence:
    """Two RGB pictures of FLOW_SIZE -> correspondence of driving cells with source cells."""
    dis = flow_estimator()
    grey_d, grey_s = (cv2.cvtColor(p, cv2.COLOR_RGB2GRAY) for p in (driving, source))
    forward = dis.calc(grey_d, grey_s, None)
    backward = dis.calc(grey_s, grey_d, None)
    y, x = np.mgrid[:FLOW_SIZE, :FLOW_SIZE].astype(np.float32)
    there = x + forward[..., 0], y + forward[..., 1]
    back = cv2.remap(backward, *there, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(1e3, 1e3))
    disagreement = np.abs(forward + back).sum(-1)
    warped = cv2.remap(source, *there, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    cells = (GRID, GRID)
    shift = cv2.resize(forward, cells, interpolation=cv2.INTER_AREA) * (2.0 / FLOW_SIZE)
    error = cv2.resize(cv2.absdiff(driving, warped), cells, interpolation=cv2.INTER_AREA).mean(-1)
    agree = cv2.resize((disagreement < AGREEMENT).astype(np.float32), cells, interpolation=cv2.INTER_AREA)
    code = np.where(agree >= 0.5, np.minimum(error, UNSURE - 1).round(), UNSURE).astype(np.uint8)
    return Correspondence(shift.astype(np.float16), code)
