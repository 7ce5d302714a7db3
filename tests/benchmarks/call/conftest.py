"""Fixtures of the tests of simulated calls."""

from collections.abc import Iterator

import pytest

from iwcodec.codec.media.crop.face_detector import Face
from support.codec.stub_runtime import NearestSourceFit


@pytest.fixture(scope="module")
def every_picture_has_a_face() -> Iterator[None]:
    """And keypoints are not fitted, which would change nothing."""
    face = Face(10, 10, 40, 40, 1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("iwcodec.client.video.video_sender.live_fit", NearestSourceFit)
        patch.setattr("iwcodec.codec.media.crop.face_detector.FaceDetector.detect", lambda self, picture: [face])
        yield
