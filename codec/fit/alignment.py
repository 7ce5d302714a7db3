"""Alignment of a warped source with the picture, by Gauss-Newton on the squared grey-level differences.

Optical flow is off by half a pixel where there is little texture. Alignment refines the keypoints so that the source,
warped by them, matches the picture itself. It is Lucas-Kanade registration (Lucas and Kanade, "An Iterative Image
Registration Technique", IJCAI 1981; Baker and Matthews, "Lucas-Kanade 20 Years On", IJCV 2004) with the motion basis
(models/network/geometry.py) as the warp. The basis is smooth, so all pixels of a cell share a row of it and enter the
normal equations only by the cell's structure tensor: 1 ms per step.

The matrix of the normal equations is J^T J, with J the derivatives of the residuals by the unknowns: the Gram matrix of
J's columns, called `gram` throughout the codec. It gives the error that a change of the unknowns causes.

Positions and displacements are in [-1, 1] units, except backward fields, which are in cells of the GRID.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.media.types import Picture
from iwcodec.models.fit_settings import BLURS, INVERSION_STEPS, OUTLIER_GREY, PLACE_PRIOR, STIFFNESS, STRENGTH_PRIOR
from iwcodec.models.flow import FLOW_SIZE, GRID
from iwcodec.models.runtime.pictures import pixel_grid
from iwcodec.models.runtime.types import Keypoints, Source

FACE_REACH = 1.2
"""Standard deviations of the Gaussian that weights the shear of the face, around the mean of the source's keypoints,
relative to those of the keypoints (at least one cell)."""
SHEAR_WEIGHTS, SHEAR_HALVINGS = (-12.0, 14.0), 6
"""Exponents of 2 between which `stepped` searches the weight of the shear relative to that of the error, and number of
bisections."""

Field = NDArray[np.float32]
"""(GRID, GRID, 2): displacements in cells. A backward field points from cells of a frame to those of the source."""
BlurredLevels = dict[float, NDArray[np.float32]]
"""Blurred grey levels (FLOW_SIZE, FLOW_SIZE) of a picture, by the standard deviation of the blur."""


@dataclass(frozen=True)
class Reference:
    """A source, prepared for fitting."""

    grey: NDArray[np.uint8]  # (FLOW_SIZE, FLOW_SIZE)
    blurred: BlurredLevels
    basis: NDArray[np.float32]
    """(GRID * GRID, 3 K): motion of each cell per unit of x and of y (the same), of strength to the right, and of
    strength down, in three blocks of K."""
    unknowns: NDArray[np.float64]  # (3 K,): of the source's own keypoints

    def moved(self, values: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return the displacements (GRID * GRID, 2) of the source's cells for a frame with unknowns (3 K,)."""
        return self.basis @ by_axis(values - self.unknowns)

    def shear(self, values: NDArray[np.float64]) -> float:
        """Return the shear of the face in a frame with unknowns (3 K,), root mean square: 0 for shifts, rotations in
        the plane and scalings; 0.5 where one direction keeps its length and the other one vanishes."""
        change = values - self.unknowns
        return math.sqrt(max(float(change @ self.shearing @ change), 0.0))

    @cached_property
    def shearing(self) -> NDArray[np.float64]:
        """(3 K, 3 K): the square of `shear` as a quadratic form of the change of the unknowns."""
        k = len(self.unknowns) // 3
        along, by_strength = self.basis[:, :k], self.basis[:, k : 2 * k] + 1j * self.basis[:, 2 * k :]
        moves = np.concatenate([along, 1j * along, by_strength], axis=1).reshape(GRID, GRID, -1)
        down, right = (np.gradient(moves, 2 / GRID, axis=axis) for axis in (0, 1))
        sheared = ((right + 1j * down) / 2).reshape(GRID * GRID, -1)  # 0 for similarities, by Cauchy and Riemann
        across, below = (_face_weights(self.unknowns[n * k : (n + 1) * k]) for n in (0, 1))
        weights = np.outer(below, across).reshape(-1, 1)
        return np.asarray((sheared.conj().T @ (weights * sheared)).real)


def _face_weights(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weights (GRID,), of sum 1, of the columns (or rows) of cells, from the x (or y) of the keypoints
    (K,)."""
    cells, reach = (np.arange(GRID) + 0.5) * (2 / GRID) - 1, FACE_REACH * max(places.std(), 2 / GRID)
    weights = np.exp(-0.5 * np.square((cells - places.mean()) / reach))
    return np.asarray(weights / weights.sum())


def reference(source: Source) -> Reference:
    """Prepare a source for fitting."""
    side = round(len(source.basis) ** 0.5)
    planes = cv2.resize(source.basis.reshape(side, side, -1), (GRID, GRID), interpolation=cv2.INTER_LINEAR)
    basis = np.ascontiguousarray(planes.reshape(GRID * GRID, -1), np.float32)
    grey = small_grey(source.picture)
    return Reference(grey, blur_levels(grey), basis, unknowns(source.keypoints))


@dataclass(frozen=True)
class Equations:
    """Normal equations of one Gauss-Newton step: gram @ change = right."""

    gram: NDArray[np.float64]  # (3 K, 3 K)
    right: NDArray[np.float64]  # (3 K,)


@dataclass(frozen=True)
class Warped:
    """A source warped by keypoints."""

    back: Field
    grey: NDArray[np.float32]  # (FLOW_SIZE, FLOW_SIZE)

    def error(self, grey: NDArray[np.float32]) -> float:
        """Return the squared grey-level difference to a picture (FLOW_SIZE, FLOW_SIZE), summed over its pixels."""
        return float(np.square(grey - self.grey).sum())

    def reblurred(self, ref: Reference, blur: float) -> "Warped":
        """Return the same warp of the source with another blur, one of BLURS."""
        return Warped(self.back, _sampled(ref.blurred[blur], self.back))


def warped(ref: Reference, values: NDArray[np.float64], blur: float = BLURS[-1]) -> Warped:
    """Warp a source, blurred by one of BLURS, to unknowns (3 K,)."""
    back = backward(ref.moved(values).reshape(GRID, GRID, 2) * np.float32(GRID / 2))
    return Warped(back, _sampled(ref.blurred[blur], back))


def backward(forward: Field) -> Field:
    """Invert a forward field of source cells by fixed-point iteration."""
    back = -forward
    for _ in range(INVERSION_STEPS):
        back = -_at(forward, back)
    return back


def alignment_equations(
    ref: Reference, view: Warped, grey: NDArray[np.float32], offset: NDArray[np.float64]
) -> Equations:
    """Return the equations of the change of the unknowns that brings the warped source `view` closer to a picture's
    grey levels (FLOW_SIZE, FLOW_SIZE).

    `offset`: difference (3 K,) of the unknowns from where the alignment started. The resulting displacement of a cell
    costs STIFFNESS times its square. Pixels are weighted down as their error exceeds OUTLIER_GREY.
    """
    missing = grey - view.grey
    weight = 1 / (1 + np.square(missing / OUTLIER_GREY))
    right, down = (cv2.Sobel(view.grey, cv2.CV_32F, dx, dy, ksize=3) * (FLOW_SIZE / 16) for dx, dy in ((1, 0), (0, 1)))
    planes = [
        weight * right * right,
        weight * right * down,
        weight * down * down,
        weight * missing * right,
        weight * missing * down,
    ]
    pixels = (FLOW_SIZE // GRID) ** 2  # turns the mean over a cell's pixels into their sum
    cells = cv2.resize(cv2.merge(planes), (GRID, GRID), interpolation=cv2.INTER_AREA).reshape(-1, 5) * pixels
    basis = _at(ref.basis.reshape(GRID, GRID, -1), view.back).reshape(GRID * GRID, -1)
    cells[:, [0, 2]] += STIFFNESS
    cells[:, 3:] += STIFFNESS * (basis @ by_axis(offset))
    equations, prior = normal_equations(basis, cells), STIFFNESS * prior_weights(len(offset))
    return Equations(equations.gram + np.diag(prior), equations.right - prior * offset)


def normal_equations(basis: NDArray[np.float32], cells: NDArray[np.float32]) -> Equations:
    """Return the normal equations in the unknowns from a basis (m, 3 K) and `cells` (m, 5): of each cell, its structure
    tensor (xx, xy, yy), and the gradient (x, y) of half its squared error by its displacement."""
    # Contiguous rows per keypoint and no copies: short rows take several times as long, and this is most of a fit.
    rows = np.ascontiguousarray(basis.T)
    xx, xy, yy, x, y = np.ascontiguousarray(cells.T)
    k = len(rows) // 3
    along, right, down = rows[:k], rows[k : 2 * k], rows[2 * k :]
    weighted = np.empty((5, k, len(basis)), np.float32)
    for plane, weight in zip(weighted, (xx, xy, yy), strict=False):
        np.multiply(weight, along, out=plane)
    by_x, by_y = weighted[3:]
    np.multiply(xx, right, out=by_x)
    by_x += xy * down
    np.multiply(xy, right, out=by_y)
    by_y += yy * down
    of_xx, of_xy, of_yy, of_x, of_y = (along @ weighted.reshape(5 * k, -1).T).reshape(k, 5, k).swapaxes(0, 1)
    of_strengths = right @ by_x.T + down @ by_y.T
    lines = [[of_xx, of_xy, of_x], [of_xy, of_yy, of_y], [of_x.T, of_y.T, of_strengths]]
    gram = np.concatenate([np.concatenate(line, axis=1) for line in lines])
    gradient = np.concatenate([along @ x, along @ y, right @ x + down @ y])
    return Equations(gram.astype(np.float64), -gradient.astype(np.float64))


def stepped(
    ref: Reference, values: NDArray[np.float64], step: Equations, max_shear: float = np.inf
) -> NDArray[np.float64]:
    """Return the unknowns (3 K,) after a step from `values`, clipped. If that step shears the face by more than
    `max_shear`, repeat it with a penalty on shear of about the least weight that keeps the bound."""
    after = clipped(values + np.linalg.solve(step.gram, step.right))
    if max_shear == np.inf or ref.shear(after) <= max_shear:
        return after
    unit = np.trace(step.gram) / np.trace(ref.shearing) * ref.shearing
    pull = unit @ (values - ref.unknowns)

    def weighted(exponent: float) -> NDArray[np.float64]:
        weight = 2.0**exponent
        return clipped(values + np.linalg.solve(step.gram + weight * unit, step.right - weight * pull))

    low, high = SHEAR_WEIGHTS
    after = weighted(high)
    for _ in range(SHEAR_HALVINGS):
        middle = (low + high) / 2
        if ref.shear(nearer := weighted(middle)) <= max_shear:
            after, high = nearer, middle
        else:
            low = middle
    return after


def prior_weights(count: int) -> NDArray[np.float64]:
    """Return the weights (count,) of the quadratic penalty that ties `count` = 3 K unknowns to their start, relative to
    one cell."""
    return np.repeat((PLACE_PRIOR, PLACE_PRIOR, STRENGTH_PRIOR), count // 3)


def by_axis(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Arrange unknowns (3 K,) to factors of the basis (3 K, 2), for displacements to the right and down: each position
    acts along its own axis, strengths along both."""
    right, down, strength = values.reshape(3, -1)
    factors = np.zeros((3, len(right), 2), np.float32)
    factors[0, :, 0], factors[0, :, 1] = right, down
    factors[1, :, 0] = factors[2, :, 1] = strength
    return factors.reshape(-1, 2)


def unknowns(keypoints: Keypoints) -> NDArray[np.float64]:
    """Return keypoints (K, 3) as unknowns (3 K,) of the equations: all x, all y, all strengths."""
    return keypoints.T.reshape(-1).astype(np.float64)


def as_keypoints(values: NDArray[np.float64]) -> Keypoints:
    """Invert `unknowns`; clip positions to [-1, 1] and strengths to [0, 1]."""
    return values.reshape(3, -1).T.clip((-1, -1, 0), 1).astype(np.float32)


def clipped(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Clip unknowns (3 K,) to the range of keypoints, in their float32 precision."""
    return unknowns(as_keypoints(values))


def small_grey(picture: Picture) -> NDArray[np.uint8]:
    """Return the grey levels (FLOW_SIZE, FLOW_SIZE) of a picture."""
    small = cv2.resize(picture, (FLOW_SIZE, FLOW_SIZE), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.uint8)


def blur_levels(grey: NDArray[np.uint8], blurs: Iterable[float] = BLURS) -> BlurredLevels:
    """Blur grey levels (FLOW_SIZE, FLOW_SIZE) by Gaussians of these standard deviations, in pixels."""
    levels = grey.astype(np.float32)
    return {blur: np.asarray(cv2.GaussianBlur(levels, (0, 0), blur), np.float32) for blur in blurs}


def _at(planes: NDArray[np.float32], back: Field) -> NDArray[np.float32]:
    """Sample values (GRID, GRID, n) of a source's cells at a backward field."""
    return np.asarray(
        cv2.remap(planes, pixel_grid(GRID) + back, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32
    )


def _sampled(levels: NDArray[np.float32], back: Field) -> NDArray[np.float32]:
    """Sample grey levels (FLOW_SIZE, FLOW_SIZE) of a source at a backward field, interpolated to pixels."""
    fine = cv2.resize(back, (FLOW_SIZE, FLOW_SIZE), interpolation=cv2.INTER_LINEAR) * (FLOW_SIZE // GRID)
    return np.asarray(
        cv2.remap(levels, pixel_grid(FLOW_SIZE) + fine, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE),
        np.float32,
    )
