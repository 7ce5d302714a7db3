"""."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

Keypoints = NDArray[np.float32]


@dataclass(frozen=True)
class ModelInfo:
    """What a bitstream names: decoding with another model gives other pictures."""

    model_id: str
    digest: bytes
    """First 8 bytes of the SHA-256 of the weights' file. One that builds on another model's weights holds their
    SHA-256, so that this names all of them."""
    keypoints: int
    size: int
    """Pixels a side of source and rebuilt pictures."""


@dataclass(frozen=True)
class Source:
    """A source picture as the receiver keeps it."""

    picture: Picture
    keypoints: Keypoints
    features: Any
    """The runtime's own: keys, values and pixels of the cells."""
    membership: NDArray[np.float32]
    """(M, K + 1): which keypoint each cell of the attention grid belongs to; the last is the background."""
    basis: NDArray[np.float32]
    """(b, 3 K): how each cell of a coarser square grid moves with the keypoints (geometry.moved)."""


class Runtime(Protocol):
    @property
    def info(self) -> ModelInfo: ...

    @property
    def device(self) -> str: ...

    def detect(self, picture: Picture) -> Keypoints:
        """Square picture of any size -> keypoints (K, 3)."""
        ...

    def prepare(self, picture: Picture) -> Source:
        """Source picture of `info.size` -> what attention needs of it."""
        ...

    def reconstruct(self, keypoints: Keypoints, sources: Sequence[Source], suppression: float = 0.0) -> Picture:
        """Keypoints (K, 3) and 1 to MAX_ACTIVE sources -> picture of `info.size`. `suppression`: shifts shorter than
        half of it, in pixels as the nets see them, are left out, and those from it on are made as they are found
        (network.without_small)."""
        ...
