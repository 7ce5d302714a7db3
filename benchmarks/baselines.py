"""What needs no network: copying the nearest source, and the best that any warp of the sources could do.

A codec that does not clearly beat the copy is worthless; one that reaches the oracle has nothing left to gain from
better motion.
"""

from collections.abc import Iterable, Iterator, Sequence

import cv2
import numpy as np
from iwcodec.media import Picture
from iwcodec.quality import psnr
from numpy.typing import NDArray


def nearest_copy(pictures: Iterable[Picture], sources: Sequence[Picture]) -> Iterator[Picture]:
    """For each picture the source with the highest PSNR. `sources` are as decoded, all of the pictures' size."""
    for picture in pictures:
        yield _nearest(picture, sources, 1)[0]


def flow_oracle(
    pictures: Iterable[Picture], sources: Sequence[Picture], grid: int = 64, nearest: int = 3
) -> Iterator[Picture]:
    """For each picture the best of its `nearest` sources, each warped onto it by true dense optical flow.

    The flow (DIS, from the picture to the source) is reduced to `grid` x `grid` vectors and enlarged again: what a
    receiver that knew the motion exactly, on so many cells, would show. It adds nothing that the source does not hold.
    """
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey_sources = {id(source): _grey(source) for source in sources}
    for picture in pictures:
        grey = _grey(picture)
        warped = [
            _warp(source, _coarse(flow.calc(grey, grey_sources[id(source)], None), grid))
            for source in _nearest(picture, sources, nearest)
        ]
        yield _nearest(picture, warped, 1)[0]


def _nearest(picture: Picture, candidates: Sequence[Picture], count: int) -> list[Picture]:
    if not candidates:
        raise ValueError("no sources")
    return sorted(candidates, key=lambda candidate: -psnr(candidate, picture))[:count]


def _grey(picture: Picture) -> Picture:
    return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)


def _coarse(flow: NDArray[np.float32], grid: int) -> NDArray[np.float32]:
    """(H, W, 2) -> the same after a mean over each cell of the grid and linear interpolation between cells."""
    height, width = flow.shape[:2]
    cells = cv2.resize(flow, (grid, grid), interpolation=cv2.INTER_AREA)
    return cv2.resize(cells, (width, height), interpolation=cv2.INTER_LINEAR)


def _warp(source: Picture, flow: NDArray[np.float32]) -> Picture:
    """out(p) = source(p + flow(p)), cubic, edges repeated."""
    height, width = flow.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return cv2.remap(source, x + flow[..., 0], y + flow[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
