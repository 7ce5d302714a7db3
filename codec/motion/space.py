"""Coordinates for motion in which every step looks equally wrong.

What an error of the keypoints costs depends on the source: how its cells move with them, and what is to be seen there.
The receiver has the source as the sender has it, so both know the quadratic form H that alignment (alignment.py) gives
for the source at rest. Coordinates y are such that unknowns = own + W y, where the columns of W are orthonormal in H:
a uniform quantiser of y spreads its error evenly over the picture. The first columns span the directions that faces
move along most, so that most of y is nothing: Cholesky's factor of H in those directions, which unlike eigenvectors
does not turn over where two machines differ in the last digit.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.fit.alignment import as_keypoints, reference, step_of, warped
from iwcodec.models.fit_settings import BLURS
from iwcodec.models.flow import FLOW_SIZE
from iwcodec.models.runtime.types import Keypoints, Source

SEEN = 1.5**2 * FLOW_SIZE**2
"""Squared grey levels, summed over a picture, that an error of 1 makes."""


@dataclass(frozen=True)
class MotionSpace:
    own: NDArray[np.float64]
    """(3 K,): the source's own keypoints, as alignment.unknowns has them: the origin."""
    columns: NDArray[np.float64]
    """(3 K, 3 K): W."""

    def coordinates(self, unknowns: NDArray[np.float64]) -> NDArray[np.float64]:
        """(3 K,) -> (3 K,)."""
        return np.asarray(np.linalg.solve(self.columns, unknowns - self.own))

    def metric(self, gram: NDArray[np.float64]) -> NDArray[np.float64]:
        """A quadratic form of the unknowns (3 K, 3 K) -> of the coordinates."""
        return np.asarray(self.columns.T @ gram @ self.columns)

    def keypoints(self, coordinates: NDArray[np.float64]) -> list[Keypoints]:
        """(n, 3 K) -> keypoints (K, 3) of n frames, clipped to what can be."""
        return [as_keypoints(row) for row in self.own + coordinates @ self.columns.T]


def motion_space(source: Source, directions: NDArray[np.float64]) -> MotionSpace:
    """`directions` (3 K, 3 K): of the tables; those of another number of keypoints are of no use."""
    own, gram = at_rest(source)
    return MotionSpace(own, columns(gram, directions if len(directions) == len(own) else np.eye(len(own))))


def at_rest(source: Source) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A source's own keypoints (3 K,), and what errors of them cost where it is shown as it is: H (3 K, 3 K)."""
    ref = reference(source)
    found = step_of(ref, warped(ref, ref.unknowns), ref.soft[BLURS[-1]], np.zeros_like(ref.unknowns))
    return ref.unknowns, found.gram / SEEN


def columns(gram: NDArray[np.float64], directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Orthonormal in the quadratic form (3 K, 3 K); the first n span the first n directions."""
    factor = np.linalg.cholesky(directions.T @ gram @ directions)
    return np.asarray(np.linalg.solve(factor, directions.T).T)
