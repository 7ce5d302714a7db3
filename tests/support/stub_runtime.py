"""A network for tests of what is around it: as quick as nothing, and what it shows can be computed."""

from collections.abc import Sequence

import numpy as np

from iwcodec.codec.fit.keypoint_fit import Fitted, KeypointFit, Rebuild
from iwcodec.codec.media.types import Picture
from iwcodec.models.runtime.types import Keypoints, ModelInfo, Source

SIZE = 64


REACH = 0.14
"""How far a source's keypoints may be away before nothing of its texture is shown."""


class StubRuntime:
    """The keypoints of a picture all lie at (its mean brightness, 0); a rebuilt picture has that brightness, and as
    much of the nearest source's texture as that one is near. Keypoints move no cells: fitting changes nothing."""

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

    def reconstruct(self, keypoints: Keypoints, sources: Sequence[Source], suppression: float = 0.0) -> Picture:
        assert len(sources) >= 1
        level = round(float(keypoints[:, 0].mean() + 1) * 127.5)
        away = abs(float(keypoints[:, 0].mean() - sources[0].keypoints[:, 0].mean()))
        texture = sources[0].picture - sources[0].picture.mean()
        return np.clip(np.rint(level + max(0.0, 1 - away / REACH) * texture), 0, 255).astype(np.uint8)


class NearestSourceFit(KeypointFit):
    """Nothing moves these keypoints: the fit that takes no time."""

    def frame(
        self, picture: Picture, detected: Keypoints, sources: Sequence[Source], rebuild: Rebuild | None = None
    ) -> Fitted:
        return Fitted(detected, sources[0] if sources else None, np.inf, None)


def picture(level: float) -> Picture:
    """Of this mean brightness, with something in it."""
    rows = np.linspace(-20, 20, SIZE)[:, None, None]
    return np.clip(np.broadcast_to(level + rows, (SIZE, SIZE, 3)), 0, 255).astype(np.uint8)
