"""A textured picture, shifted copies of it, and a source of it whose cells follow nearby keypoints."""

import cv2
import numpy as np

from iwcodec.models.runtime.types import Source

SIZE, K, SIDE = 256, 20, 32
RNG = np.random.default_rng(0)
TEXTURE = cv2.GaussianBlur(RNG.integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8), (0, 0), 5)
TEXTURE = cv2.normalize(TEXTURE, None, 0, 255, cv2.NORM_MINMAX)


def moved(dx: float, dy: float) -> np.ndarray:
    """The texture, shifted by pixels to the right and down."""
    matrix = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
    return cv2.warpAffine(TEXTURE, matrix, (SIZE, SIZE), borderMode=cv2.BORDER_REFLECT)


def textured_source(picture: np.ndarray = TEXTURE) -> Source:
    """A source with keypoints on a grid. Cells move with the positions of nearby keypoints, and with no strength."""
    places = np.stack(np.meshgrid(np.linspace(-0.8, 0.8, 5), np.linspace(-0.7, 0.7, 4)), -1).reshape(K, 2)
    keypoints = np.concatenate([places, np.full((K, 1), 0.5)], axis=1).astype(np.float32)
    axis = (np.arange(SIDE) + 0.5) * (2 / SIDE) - 1
    cells = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 1, 2)
    weights = np.exp(-np.square(cells - places).sum(-1) / 0.1)
    membership = np.concatenate([weights, np.full((SIDE**2, 1), 1e-3)], axis=1)
    membership = (membership / membership.sum(1, keepdims=True)).astype(np.float32)
    basis = np.pad(membership[:, :-1], ((0, 0), (0, 2 * K)))
    return Source(picture, keypoints, None, membership, basis)
