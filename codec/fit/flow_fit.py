"""Initial keypoints from dense optical flow, by robust least squares.

Where a source cell moves to is linear in the keypoints, positions and strengths alike (models/network/geometry.py):
u = p + B (kp - kp_s). Optical flow from the source to the frame gives u, so the keypoints are the solution of a linear
least-squares problem, with a quadratic prior on where they start.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.fit.alignment import Equations, Reference, normal_equations, prior_weights, stepped
from iwcodec.models.fit_settings import FLOW_ERROR_SCALE, OUTLIER_DISTANCE
from iwcodec.models.flow import FLOW_SIZE, GRID, flow_estimator
from iwcodec.models.runtime.pictures import pixel_grid


class FlowFit:
    """Fits keypoints to optical flow."""

    def __init__(self, max_shear: float = np.inf) -> None:
        """`max_shear`: see `stepped`."""
        self._max_shear = max_shear
        # Half resolution, one direction: full resolution and flow back bring nothing after alignment, for twice the
        # time (three val clips).
        self._estimator = flow_estimator(1)

    def solve(self, ref: Reference, grey: NDArray[np.uint8], start: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the unknowns (3 K,) that move a source's cells as the flow to a frame says, tied to `start` (3 K,).
        `grey`: grey levels (FLOW_SIZE, FLOW_SIZE) of the frame."""
        flow, prior = self._flow(ref.grey, grey), prior_weights(len(start))
        residual = flow.moved - ref.moved(start)
        weight = flow.confidence / (1 + np.square(residual).sum(1) / OUTLIER_DISTANCE**2)
        zeros = np.zeros_like(weight)
        cells = np.stack([weight, zeros, weight, *(-weight[:, None] * residual).T], axis=1)
        equations = normal_equations(ref.basis, cells)
        return stepped(ref, start, Equations(equations.gram + np.diag(prior), equations.right), self._max_shear)

    def _flow(self, source: NDArray[np.uint8], grey: NDArray[np.uint8]) -> "_Flow":
        flow = self._estimator.calc(source, grey, None)
        confidence = _similarity(flow, grey, source)
        return _Flow(_pooled(flow).reshape(-1, 2) * np.float32(2 / FLOW_SIZE), _pooled(confidence).reshape(-1))


@dataclass(frozen=True)
class _Flow:
    """Flow of a source's cells."""

    moved: NDArray[np.float32]  # (GRID * GRID, 2): displacements in [-1, 1] units
    confidence: NDArray[np.float32]  # (GRID * GRID,): 0..1


def _pooled(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average the pixels of each cell."""
    return np.asarray(cv2.resize(plane, (GRID, GRID), interpolation=cv2.INTER_AREA), np.float32)


def _similarity(flow: NDArray[np.float32], grey: NDArray[np.uint8], source: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return weights 0..1 by how well the frame, sampled where the flow leads, matches the source."""
    shown = cv2.remap(grey, pixel_grid(FLOW_SIZE) + flow, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(1 / (1 + np.square(cv2.absdiff(shown, source).astype(np.float32) / FLOW_ERROR_SCALE)), np.float32)
