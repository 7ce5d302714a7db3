"""Babai's nearest plane: how the error of a quantised value shifts the best choice of the values coded after it.

L. Babai, "On Lovász' lattice reduction and the nearest lattice point problem", Combinatorica 1986. Both coders quantise
the unknowns of a frame in coding order and let later unknowns compensate for the errors of earlier ones.
"""

import numpy as np
from numpy.typing import NDArray

RIDGE = 1e-5
"""Fraction of the mean diagonal of the Gram matrix that is added to every diagonal element. Some unknowns move nothing
visible, and their elements may be rounding errors only."""


def nearest_plane_factor(gram: NDArray[np.float64], order: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
    """Return an upper triangular factor (n, n) of a Gram matrix (n, n) with its rows and columns in coding `order`.

    If value i is missed by e after division by the factor's diagonal element i, the error is e**2, and the targets of
    the values after i move by -e times row i.
    """
    ridge = RIDGE * gram.trace() / len(gram) * np.eye(len(gram))
    ordered = gram if order is None else gram[np.ix_(order, order)]
    backwards = np.linalg.cholesky((ordered + ridge)[::-1, ::-1])
    return np.asarray(np.linalg.inv(backwards[::-1, ::-1]))
