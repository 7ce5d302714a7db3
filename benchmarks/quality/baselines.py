"""Bounds that need no network: copying the nearest source (lower), and warping sources by true optical flow (upper).

A codec that does not clearly beat the copy is worthless; one that reaches the flow oracle has nothing left to gain
from better motion.
"""

from collections.abc import Iterable, Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.bitstream.packets import SourcePacket
from iwcodec.codec.file.iwc_file import IwcFile
from iwcodec.codec.media.quality import psnr
from iwcodec.codec.media.types import Picture
from iwcodec.codec.sources.av1 import SourceDecoder


def coded_sources(file: IwcFile) -> list[Picture]:
    """The source pictures of a file as a receiver decodes them, in stream order."""
    decoder = SourceDecoder(file.header.size)
    return [decoder.add(packet.payload) for packet in file.reader.records() if isinstance(packet, SourcePacket)]


def nearest_copy(pictures: Iterable[Picture], sources: Sequence[Picture]) -> Iterator[Picture]:
    """For each picture the source with the highest PSNR. `sources` are decoded ones of the pictures' size."""
    gallery = _Gallery(sources)
    for picture in pictures:
        yield sources[gallery.nearest(picture)[0]]


def flow_oracle(
    pictures: Iterable[Picture], sources: Sequence[Picture], grid: int = 64, nearest: int = 3
) -> Iterator[Picture]:
    """For each picture the best of its `nearest` sources after warping each onto it by dense optical flow.

    The flow (DIS, from the picture to the source) is averaged to `grid` x `grid` vectors and interpolated back: what a
    receiver would show that knew the exact motion at this resolution. It adds no content that the source lacks.
    """
    gallery = _Gallery(sources)
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey_sources = [_grey(source) for source in sources]
    for picture in pictures:
        grey = _grey(picture)
        warped = (
            _warp(sources[n], _coarse(flow.calc(grey, grey_sources[n], None), grid))
            for n in gallery.nearest(picture)[:nearest]
        )
        yield max(warped, key=lambda candidate: psnr(candidate, picture))


class _Gallery:
    """Ranks sources by squared error |a - b|^2 = |a|^2 - 2 ab + |b|^2; |b|^2 of the picture is common to all.

    One matrix product per picture is faster than the PSNR against each source.
    """

    def __init__(self, sources: Sequence[Picture]) -> None:
        if not sources:
            raise ValueError("no sources")
        # Centred on mid-grey the terms stay small, which limits the float32 rounding error of their difference.
        self._flat = np.stack([source.ravel() for source in sources]).astype(np.float32) - 128
        self._energy = np.square(self._flat, dtype=np.float64).sum(1)

    def nearest(self, picture: Picture) -> list[int]:
        """Indices of all sources, nearest first."""
        products = self._flat @ (picture.ravel().astype(np.float32) - 128)
        return [int(n) for n in np.argsort(self._energy - 2 * products.astype(np.float64), kind="stable")]


def _grey(picture: Picture) -> Picture:
    return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)


def _coarse(flow: NDArray[np.float32], grid: int) -> NDArray[np.float32]:
    """Flow (H, W, 2) averaged over each grid cell and linearly interpolated back to full size."""
    height, width = flow.shape[:2]
    cells = cv2.resize(flow, (grid, grid), interpolation=cv2.INTER_AREA)
    return cv2.resize(cells, (width, height), interpolation=cv2.INTER_LINEAR)


def _warp(source: Picture, flow: NDArray[np.float32]) -> Picture:
    """out(p) = source(p + flow(p)), cubic, edges repeated."""
    height, width = flow.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return cv2.remap(source, x + flow[..., 0], y + flow[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
