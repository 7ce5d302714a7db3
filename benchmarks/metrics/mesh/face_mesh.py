"""MediaPipe's face mesh of a whole picture: its face detector, then the mesh that the codec has, too.

Computes what `mediapipe.solutions.face_mesh.FaceMesh` does with static_image_mode, refine_landmarks and one face. The
package itself is not imported, because it needs numpy < 2; the detector is in its wheel (Apache-2.0; see `iwcodec bench
weights`).
"""

import cv2
import numpy as np

from iwcodec.benchmarks.metrics.mesh.detector import FACE, Detector, enlarged, eye_level_square
from iwcodec.codec.media.types import Picture
from iwcodec.codec.sources.face_mesh import SIDE, Landmarks, crop_landmarks

FACE_SCALE = 1.5
"""Side of the mesh's crop in sides of the detector's box."""


class FaceMesh:
    """The 478 landmarks of the most confident face of a uint8 RGB picture (H, W, 3), in its pixels; None without one.

    Raises MetricUnavailableError without LiteRT or the detector's weights.
    """

    def __init__(self) -> None:
        self._detect = Detector(FACE)

    def __call__(self, picture: Picture) -> Landmarks | None:
        height, width = picture.shape[:2]
        picture = enlarged(picture)
        face = self._detect(picture)
        if face is None:
            return None
        square = eye_level_square(face, FACE_SCALE)
        mesh = crop_landmarks(square.crop(picture, SIDE, cv2.BORDER_REPLICATE))
        if mesh is None:
            return None
        scale = width / picture.shape[1], height / picture.shape[0]
        return (square.to_picture(mesh / SIDE) * scale).astype(np.float32)
