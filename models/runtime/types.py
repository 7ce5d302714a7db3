"""The interface of a runtime and the types that cross it.

A runtime turns pictures into keypoints (sender), source pictures into cached features, and keypoints plus sources into
pictures (receiver). Pictures are uint8 RGB (H, W, 3), keypoints float32 (K, 3): x and y in [-1, 1], strength in 0..1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

MAX_ACTIVE = 4
"""Largest number of sources that the attention reads for one frame."""

Picture = NDArray[np.uint8]
"""RGB, (H, W, 3)."""

Keypoints = NDArray[np.float32]
"""(K, 3): x and y in [-1, 1], strength in 0..1."""


@dataclass(frozen=True)
class ModelInfo:
    """Identity of a model. A bitstream carries it, because decoding with another model gives other pictures."""

    model_id: str
    digest: bytes
    """First 8 bytes of the SHA-256 of the weights file. The file of a model that extends a base model contains the
    base's SHA-256, so that the digest covers both."""
    keypoints: int
    size: int
    """Side in pixels of source and reconstructed pictures."""


@dataclass(frozen=True)
class Source:
    """A source picture with the features that a receiver caches for it."""

    picture: Picture
    keypoints: Keypoints
    features: Any
    """Private to the runtime: keys, values and pixels of the attention cells."""
    membership: NDArray[np.float32]
    """(M, K + 1): weights with which each cell of the attention grid belongs to the keypoints; the last column is the
    background."""
    basis: NDArray[np.float32]
    """(b, 3 K): motion basis, how each cell of a coarser square grid moves with the keypoints
    (geometry.displacements)."""


class Runtime(Protocol):
    """Executes the network on one device."""

    @property
    def info(self) -> ModelInfo:
        """The loaded model."""
        ...

    @property
    def device(self) -> str:
        """Device on which the network runs, for example `cpu` or `cuda`."""
        ...

    def detect(self, picture: Picture) -> Keypoints:
        """Detect the keypoints (K, 3) of a square picture of any size."""
        ...

    def prepare(self, picture: Picture) -> Source:
        """Encode a source picture of `info.size` once, so that frames can be reconstructed from it."""
        ...

    def with_picture(self, source: Source, picture: Picture) -> Source:
        """Return a source with the features of another one, whose pixels are sampled from `picture` instead: the same
        view in which some region differs. Takes no network run."""
        ...

    def reconstruct(self, keypoints: Keypoints, sources: Sequence[Source], suppression: float = 0.0) -> Picture:
        """Reconstruct a picture of `info.size` from keypoints (K, 3) and 1 to MAX_ACTIVE sources.

        `suppression` is the small-shift suppression in pixels of the network's input: sampling shifts shorter than half
        of it are set to zero, shifts of at least its length are kept (warp.suppress_small_shifts).
        Raises ValueError on a wrong number of sources.
        """
        ...
