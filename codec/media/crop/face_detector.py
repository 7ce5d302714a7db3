"""Find faces in a picture (CenterFace)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

from iwcodec.codec.media.types import Picture

FACE_DETECTOR = Path(__file__).parents[2] / "data" / "centerface.onnx"
DETECT_EVERY = 5
"""Run the detector on every Nth frame: a face moves little in between."""


@dataclass(frozen=True)
class Face:
    """A face's box in pixels (left, top, width, height), which may reach outside the picture, and its score, 0..1."""

    x: float
    y: float
    w: float
    h: float
    score: float
    landmarks: tuple[tuple[float, float], ...] = ()
    """x and y in pixels of the speaker's right eye, left eye, nose, right and left corner of the mouth; pixel centres
    are whole numbers."""


class FaceDetector:
    """CenterFace (Xu et al. 2019, arXiv 1911.03599) on ONNX Runtime, one thread.

    Pictures are scaled so that their longer side is 224 pixels, or 448 if no face is found at 224. In a 16:9 picture
    that finds faces down to about 1/12 of its height.
    """

    _LONG_SIDES = (224, 448)
    _THRESHOLD = 0.5
    _OVERLAP = 0.3
    """Boxes with a larger intersection over union show the same face."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            FACE_DETECTOR.read_bytes(), options, providers=["CPUExecutionProvider"]
        )

    def detect(self, picture: Picture) -> list[Face]:
        """Return the faces of an RGB picture, highest score first."""
        tries = (self._detect(picture, side) for side in self._LONG_SIDES)
        return next((faces for faces in tries if faces), [])

    def _detect(self, picture: Picture, long_side: int) -> list[Face]:
        height, width = picture.shape[:2]
        scale = long_side / max(height, width)
        # The network halves its input five times.
        inner_w, inner_h = (max(32, round(n * scale / 32) * 32) for n in (width, height))
        small = cv2.resize(picture, (inner_w, inner_h), interpolation=cv2.INTER_AREA)
        tensor = small.astype(np.float32).transpose(2, 0, 1)[None]
        heat, size, offset, marks = (out[0] for out in self._session.run(None, {"input.1": tensor}))
        # Each face is a peak of the heat map; `offset` and `size` at its cell of 4 x 4 pixels give the box, and `marks`
        # the landmarks (y, x) as shares of it.
        heat = heat[0]
        rows, columns = np.nonzero((heat >= self._THRESHOLD) & (heat == cv2.dilate(heat, np.ones((3, 3)))))
        across, down = 4 * width / inner_w, 4 * height / inner_h
        faces = []
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            h, w = np.exp(size[:, row, column]).tolist()
            y = row + 0.5 + float(offset[0, row, column]) - h / 2
            x = column + 0.5 + float(offset[1, row, column]) - w / 2
            landmarks = tuple(
                ((x + share_x * w) * across - 0.5, (y + share_y * h) * down - 0.5)
                for share_y, share_x in marks[:, row, column].reshape(5, 2).tolist()
            )
            faces.append(Face(x * across, y * down, w * across, h * down, float(heat[row, column]), landmarks))
        return self._suppressed(sorted(faces, key=lambda face: -face.score))

    def _suppressed(self, faces: Sequence[Face]) -> list[Face]:
        """Non-maximum suppression; `faces` by falling score."""
        kept: list[Face] = []
        for face in faces:
            if all(_overlap(face, other) < self._OVERLAP for other in kept):
                kept.append(face)
        return kept


def _overlap(a: Face, b: Face) -> float:
    """Intersection over union."""
    across = min(a.x + a.w, b.x + b.w) - max(a.x, b.x)
    down = min(a.y + a.h, b.y + b.h) - max(a.y, b.y)
    shared = max(across, 0.0) * max(down, 0.0)
    return shared / (a.w * a.h + b.w * b.h - shared)
