"""A trivial network with predictable pictures, and a fit that does nothing."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from iwcodec.codec.fit.keypoint_fit import Fitted, KeypointFit, Rebuild
from iwcodec.codec.media.types import Picture
from iwcodec.models.runtime.types import Keypoints, ModelInfo, Source

SIZE = 64

REACH = 0.14
"""Keypoint distance at which a source's texture has faded out."""


class StubRuntime:
    """All keypoints of a picture are at (its mean brightness, 0). A reconstructed picture has that brightness, plus the
    first source's texture, faded out with keypoint distance. Keypoints move no cells, so fitting changes nothing."""

    device = "cpu"
    info = ModelInfo("stub", b"stubstub", 20, SIZE)

    def detect(self, picture: Picture) -> Keypoints:
        keypoints = np.zeros((20, 3), np.float32)
        keypoints[:, 0] = picture.mean() / 127.5 - 1
        keypoints[:, 2] = 0.5
        return keypoints

    def prepare(self, picture: Picture) -> Source:
        membership = np.full((256, 21), 1 / 21, np.float32)
        return Source(picture, self.detect(picture), None, membership, np.zeros((256, 60), np.float32))

    def with_picture(self, source: Source, picture: Picture) -> Source:
        return replace(source, picture=picture)

    def reconstruct(self, keypoints: Keypoints, sources: Sequence[Source], suppression: float = 0.0) -> Picture:
        assert len(sources) >= 1
        level = round(float(keypoints[:, 0].mean() + 1) * 127.5)
        away = abs(float(keypoints[:, 0].mean() - sources[0].keypoints[:, 0].mean()))
        texture = sources[0].picture - sources[0].picture.mean()
        return np.clip(np.rint(level + max(0.0, 1 - away / REACH) * texture), 0, 255).astype(np.uint8)


class NearestSourceFit(KeypointFit):
    """Returns the detected keypoints and the nearest source."""

    def frame(
        self, picture: Picture, detected: Keypoints, sources: Sequence[Source], rebuild: Rebuild | None = None
    ) -> Fitted:
        return Fitted(detected, sources[0] if sources else None, np.inf, None)


class FileFit(NearestSourceFit):
    """The same for files, whose motion is quantised by what errors cost: all keypoints matter alike."""

    def frame(
        self, picture: Picture, detected: Keypoints, sources: Sequence[Source], rebuild: Rebuild | None = None
    ) -> Fitted:
        return replace(super().frame(picture, detected, sources), gram=lambda: np.eye(detected.size))


def picture(level: float) -> Picture:
    """A vertical gradient with this mean brightness."""
    rows = np.linspace(-20, 20, SIZE)[:, None, None]
    return np.clip(np.broadcast_to(level + rows, (SIZE, SIZE, 3)), 0, 255).astype(np.uint8)
