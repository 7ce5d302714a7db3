"""Aligning a source, as the keypoints move it, with the picture itself: what is left of the error is what counts.

Flow says where things went, and errs by half a pixel where nothing is to be seen. Here the keypoints themselves are
moved so that the warped source looks like the picture: Gauss-Newton on the squared grey differences, with the motion
basis (models/geometry.py) for a warp (Lucas and Kanade, "An Iterative Image Registration Technique", IJCAI 1981, as
Baker and Matthews, "Lucas-Kanade 20 Years On", IJCV 2004, extend it). The basis is smooth, so the pixels of a cell
share one row of it, and enter the normal equations by their structure tensor alone: a millisecond a step.

Places and moves are in [-1, 1] units, but for backward fields, which are in cells of the GRID.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.media.types import Picture
from iwcodec.models.fit_settings import BLURS, HOLD_PLACE, HOLD_STRENGTH, INVERSIONS, ODD, STILL
from iwcodec.models.flow import FLOW_SIZE, GRID
from iwcodec.models.runtime.onnx import pixel_grid
from iwcodec.models.runtime.types import Keypoints, Source

Field = NDArray[np.float32]
"""(GRID, GRID, 2): where each cell of a frame is in the source, less where it is itself."""
Soft = dict[float, NDArray[np.float32]]
"""A picture's grey levels (FLOW_SIZE, FLOW_SIZE) by how much they are blurred, of BLURS."""


@dataclass(frozen=True)
class Reference:
    """A source as fitting needs it."""

    grey: NDArray[np.uint8]  # (FLOW_SIZE, FLOW_SIZE)
    soft: Soft
    basis: NDArray[np.float32]
    """(GRID * GRID, 3 K): how far each cell goes with each place, and to the right and down with each strength."""
    unknowns: NDArray[np.float64]  # (3 K,): the source's own keypoints, as `unknowns` has them

    def moved(self, values: NDArray[np.float64]) -> NDArray[np.float32]:
        """Unknowns (3 K,) of a frame -> where its cells go, from where they are in the source: (GRID * GRID, 2)."""
        return self.basis @ by_axis(values - self.unknowns)


def reference(source: Source) -> Reference:
    side = round(len(source.basis) ** 0.5)
    planes = cv2.resize(source.basis.reshape(side, side, -1), (GRID, GRID), interpolation=cv2.INTER_LINEAR)
    basis = np.ascontiguousarray(planes.reshape(GRID * GRID, -1), np.float32)
    grey = small_grey(source.picture)
    return Reference(grey, softened(grey), basis, unknowns(source.keypoints))


@dataclass(frozen=True)
class Equations:
    """Normal equations of one step: gram @ change = right."""

    gram: NDArray[np.float64]  # (3 K, 3 K)
    right: NDArray[np.float64]  # (3 K,)


@dataclass(frozen=True)
class Warped:
    """A source as the keypoints move it."""

    back: Field
    grey: NDArray[np.float32]  # (FLOW_SIZE, FLOW_SIZE)

    def error(self, grey: NDArray[np.float32]) -> float:
        """Squared grey levels by which a picture differs, summed over the pixels."""
        return float(np.square(grey - self.grey).sum())

    def blurred(self, ref: Reference, blur: float) -> "Warped":
        """The same, of the source as it is blurred by so much."""
        return Warped(self.back, _sampled(ref.soft[blur], self.back))


def warped(ref: Reference, values: NDArray[np.float64], blur: float = BLURS[-1]) -> Warped:
    back = backward(ref.moved(values).reshape(GRID, GRID, 2) * np.float32(GRID / 2))
    return Warped(back, _sampled(ref.soft[blur], back))


def backward(forward: Field) -> Field:
    """Where cells of a source go, in cells -> the field that brings them there: its inverse, by fixed point."""
    back = -forward
    for _ in range(INVERSIONS):
        back = -_at(forward, back)
    return back


def step_of(ref: Reference, seen: Warped, grey: NDArray[np.float32], strayed: NDArray[np.float64]) -> Equations:
    """What would make the source, as it is warped, look more like a picture (FLOW_SIZE, FLOW_SIZE).

    A cell that has strayed from where it started, because unknowns (3 K,) have by so much, costs STILL times the square
    of its move.
    """
    missing = grey - seen.grey
    odd = 1 / (1 + np.square(missing / ODD))
    right, down = (cv2.Sobel(seen.grey, cv2.CV_32F, dx, dy, ksize=3) * (FLOW_SIZE / 16) for dx, dy in ((1, 0), (0, 1)))
    planes = [odd * right * right, odd * right * down, odd * down * down, odd * missing * right, odd * missing * down]
    share = (FLOW_SIZE // GRID) ** 2  # the mean of a cell's pixels -> their sum
    cells = cv2.resize(cv2.merge(planes), (GRID, GRID), interpolation=cv2.INTER_AREA).reshape(-1, 5) * share
    basis = _at(ref.basis.reshape(GRID, GRID, -1), seen.back).reshape(GRID * GRID, -1)
    cells[:, [0, 2]] += STILL
    cells[:, 3:] += STILL * (basis @ by_axis(strayed))
    found, held = normal_equations(basis, cells), STILL * hold(len(strayed))
    return Equations(found.gram + np.diag(held), found.right - held * strayed)


def normal_equations(basis: NDArray[np.float32], cells: NDArray[np.float32]) -> Equations:
    """Basis (m, 3 K) and, of each cell, how its squared error grows with its move (xx, xy, yy) and what it gains from
    one to the left and up (x, y) -> equations in the keypoints."""
    # One long row a keypoint, and no copies: short rows take several times as long, and this is most of a fit.
    rows = np.ascontiguousarray(basis.T)
    xx, xy, yy, x, y = np.ascontiguousarray(cells.T)
    k = len(rows) // 3
    along, right, down = rows[:k], rows[k : 2 * k], rows[2 * k :]
    weighed = np.empty((5, k, len(basis)), np.float32)
    for one, weight in zip(weighed, (xx, xy, yy), strict=False):
        np.multiply(weight, along, out=one)
    by_x, by_y = weighed[3:]
    np.multiply(xx, right, out=by_x)
    by_x += xy * down
    np.multiply(xy, right, out=by_y)
    by_y += yy * down
    of_xx, of_xy, of_yy, of_x, of_y = (along @ weighed.reshape(5 * k, -1).T).reshape(k, 5, k).swapaxes(0, 1)
    of_strengths = right @ by_x.T + down @ by_y.T
    lines = [[of_xx, of_xy, of_x], [of_xy, of_yy, of_y], [of_x.T, of_y.T, of_strengths]]
    gram = np.concatenate([np.concatenate(line, axis=1) for line in lines])
    gains = np.concatenate([along @ x, along @ y, right @ x + down @ y])
    return Equations(gram.astype(np.float64), -gains.astype(np.float64))


def hold(count: int) -> NDArray[np.float64]:
    """(3 K,): how much each of the unknowns is held to where it starts, in cells."""
    return np.repeat((HOLD_PLACE, HOLD_PLACE, HOLD_STRENGTH), count // 3)


def by_axis(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Unknowns (3 K,) as each axis sees them, (3 K, 2): the places along it, the strengths to the right or down."""
    right, down, strength = values.reshape(3, -1)
    seen = np.zeros((3, len(right), 2), np.float32)
    seen[0, :, 0], seen[0, :, 1] = right, down
    seen[1, :, 0] = seen[2, :, 1] = strength
    return seen.reshape(-1, 2)


def unknowns(keypoints: Keypoints) -> NDArray[np.float64]:
    """Keypoints (K, 3) as the equations have them: all x, all y, all strengths."""
    return keypoints.T.reshape(-1).astype(np.float64)


def as_keypoints(values: NDArray[np.float64]) -> Keypoints:
    """Inverse of `unknowns`, clipped to what can be sent."""
    return values.reshape(3, -1).T.clip((-1, -1, 0), 1).astype(np.float32)


def small_grey(picture: Picture) -> NDArray[np.uint8]:
    small = cv2.resize(picture, (FLOW_SIZE, FLOW_SIZE), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.uint8)


def softened(grey: NDArray[np.uint8], blurs: Iterable[float] = BLURS) -> Soft:
    levels = grey.astype(np.float32)
    return {blur: np.asarray(cv2.GaussianBlur(levels, (0, 0), blur), np.float32) for blur in blurs}


def _at(planes: NDArray[np.float32], back: Field) -> NDArray[np.float32]:
    """Values (GRID, GRID, n) of a source's cells, where a backward field leads to."""
    return np.asarray(
        cv2.remap(planes, pixel_grid(GRID) + back, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32
    )


def _sampled(soft: NDArray[np.float32], back: Field) -> NDArray[np.float32]:
    fine = cv2.resize(back, (FLOW_SIZE, FLOW_SIZE), interpolation=cv2.INTER_LINEAR) * (FLOW_SIZE // GRID)
    return np.asarray(
        cv2.remap(soft, pixel_grid(FLOW_SIZE) + fine, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE),
        np.float32,
    )
