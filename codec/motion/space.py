"""Coordinates of a source's motion in which every quantisation error is equally visible.

The error of a keypoint costs differently from source to source, depending on how the source's cells move with it and on
the texture there. Sender and receiver both have the decoded source, so both compute the Gram matrix H of the alignment
(fit/alignment.py) at the source's own keypoints. Coordinates y satisfy unknowns = own + W y, where the columns of W are
orthonormal in H: a uniform quantiser of y spreads its error evenly over the picture. The first n columns span the n
directions of the largest facial motion, so most of y is near 0. W is made from the Cholesky factor of H in those
directions; unlike eigenvectors it does not change sign or order when two machines differ in the last digit.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.fit.alignment import alignment_equations, as_keypoints, reference, warped
from iwcodec.codec.sources.library import Library
from iwcodec.models.fit_settings import BLURS
from iwcodec.models.flow import FLOW_SIZE
from iwcodec.models.runtime.types import Keypoints, Source

ERROR_UNIT = 1.5**2 * FLOW_SIZE**2
"""Squared grey levels, summed over a picture of FLOW_SIZE, that count as an error of 1: 1.5 grey levels RMS."""


@dataclass(frozen=True)
class MotionSpace:
    """The coordinates y of one source."""

    own: NDArray[np.float64]
    """(3 K,): the source's own keypoints as unknowns (alignment.unknowns), the origin."""
    columns: NDArray[np.float64]
    """(3 K, 3 K): W."""

    def coordinates(self, unknowns: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the coordinates (3 K,) of unknowns (3 K,)."""
        return np.asarray(np.linalg.solve(self.columns, unknowns - self.own))

    def metric(self, gram: NDArray[np.float64]) -> NDArray[np.float64]:
        """Transform a quadratic form (3 K, 3 K) of the unknowns to one of the coordinates."""
        return np.asarray(self.columns.T @ gram @ self.columns)

    def keypoints(self, coordinates: NDArray[np.float64]) -> list[Keypoints]:
        """Return the keypoints (K, 3) of n frames from their coordinates (n, 3 K), clipped to the valid range."""
        return [as_keypoints(row) for row in self.own + coordinates @ self.columns.T]


class MotionSpaces:
    """The coordinates of the sources of a library, each made when it is first asked for, from any thread."""

    def __init__(self, library: Library, directions: NDArray[np.float64]) -> None:
        """`directions`: as in `motion_space`."""
        self._library, self._directions = library, directions
        self._known: dict[int, tuple[Source, MotionSpace]] = {}

    def at(self, slot: int) -> MotionSpace | None:
        """Return the coordinates of motion from the source in a slot; None if the slot is empty."""
        source = self._library.at(slot)
        if source is None:
            return None
        known, space = self._known.get(slot, (None, None))
        if space is None or known is not source:
            space = motion_space(source, self._directions)
            kept = {at: kept for at, kept in self._known.items() if self._library.at(at) is kept[0]}
            self._known = {**kept, slot: (source, space)}
        return space


def motion_space(source: Source, directions: NDArray[np.float64]) -> MotionSpace:
    """Return the coordinates of a source. `directions`: (3 K, 3 K) of the tables; ignored if made for another K."""
    own, gram = at_rest(source)
    return MotionSpace(own, columns(gram, directions if len(directions) == len(own) else np.eye(len(own))))


def at_rest(source: Source) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a source's own keypoints as unknowns (3 K,), and the Gram matrix H (3 K, 3 K) there, in ERROR_UNIT."""
    ref = reference(source)
    equations = alignment_equations(ref, warped(ref, ref.unknowns), ref.blurred[BLURS[-1]], np.zeros_like(ref.unknowns))
    return ref.unknowns, equations.gram / ERROR_UNIT


def columns(gram: NDArray[np.float64], directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return columns (3 K, 3 K) orthonormal in the quadratic form `gram`; the first n span the first n directions."""
    factor = np.linalg.cholesky(directions.T @ gram @ directions)
    return np.asarray(np.linalg.solve(factor, directions.T).T)
