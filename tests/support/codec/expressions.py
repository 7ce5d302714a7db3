"""A textured source with the proportions of a face, and pictures of it with other eyes and another mouth."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from iwcodec.codec.fit.keypoint_fit import Fitted, KeypointFit, Rebuild
from iwcodec.codec.media.types import Picture
from iwcodec.codec.sources.regions import blend, region_mask
from iwcodec.models.runtime.pictures import pixel_grid
from iwcodec.models.runtime.types import Keypoints, Source
from support.codec.stub_runtime import StubRuntime
from support.codec.textured_source import SIZE, TEXTURE, textured_source

PLACES = pixel_grid(SIZE)


def home_source() -> Source:
    """A textured source whose irises and mouth are where those of a face are."""
    source = textured_source()
    keypoints = source.keypoints.copy()
    keypoints[[0, 1], :2] = (-0.15, -0.25), (0.15, -0.25)
    keypoints[[7, 8, 9, 10], :2] = (-0.15, 0.32), (0.15, 0.32), (0, 0.27), (0, 0.37)
    return replace(source, keypoints=keypoints)


def expression(source: Source, *seeds: int | None) -> Picture:
    """The source's picture with another texture in the regions whose seed is not None."""
    picture = source.picture
    for region, seed in enumerate(seeds):
        if seed is not None:
            other = np.roll(TEXTURE, 37 * seed, axis=(0, 1))
            picture = blend(picture, other, region_mask(source.keypoints, region, SIZE, PLACES))
    return picture


class FaceFit(KeypointFit):
    """Returns the detected keypoints and the nearest source as if they were fitted."""

    def frame(
        self, picture: Picture, detected: Keypoints, sources: Sequence[Source], rebuild: Rebuild | None = None
    ) -> Fitted:
        return Fitted(detected, sources[0] if sources else None, 1.0, lambda: np.eye(60))


class FaceRuntime(StubRuntime):
    """Finds the keypoints of a face in every picture, always the same, and shows the first source as it is."""

    info = replace(StubRuntime.info, size=SIZE)

    def detect(self, picture: Picture) -> Keypoints:
        return home_source().keypoints

    def prepare(self, picture: Picture) -> Source:
        return replace(home_source(), picture=picture)

    def reconstruct(self, keypoints: Keypoints, sources: Sequence[Source], suppression: float = 0.0) -> Picture:
        return sources[0].picture
