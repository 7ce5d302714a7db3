"""Whether the face is still that person's: the similarity of identity embeddings (CSIM).

The network is dlib's face recognition ResNet-34 (D. E. King, public domain; 99.38 % on Labeled Faces in the Wild), as
the package face_recognition_models carries it (see `iwcodec bench weights`). Papers use ArcFace for CSIM, whose weights
no package carries, so figures compare within this project alone: frames of one person give 0.96 to 0.99, frames of two
people 0.69 to 0.94 with a mean of 0.82.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iwcodec.benchmarks.metrics.learned.availability import MetricUnavailableError
from iwcodec.benchmarks.metrics.learned.sampling import sampled
from iwcodec.benchmarks.metrics.mesh.face_mesh import FaceMesh
from iwcodec.benchmarks.weights import FACE_RECOGNITION, weight_file
from iwcodec.codec.extras import install
from iwcodec.codec.media.types import Picture

ALIGNMENT = (263, 362, 33, 133, 2)
"""Landmarks of the mesh that stand for dlib's five: corners of both eyes, outer before inner, and the nose's base."""

Embedding = NDArray[np.float64]
"""(128,): two faces closer than 0.6 are the same person's."""
Describer = Callable[[Picture], Embedding | None]


class FaceRecognition:
    """The identity embedding of the face in a uint8 RGB picture (H, W, 3); None without a face.

    Raises MetricUnavailableError without dlib, LiteRT or the weights.
    """

    def __init__(self) -> None:
        try:
            import dlib
        except ImportError as error:
            raise MetricUnavailableError(
                f"Identity needs dlib ({install('bench')}, or pip install dlib-bin); {error.name or error} is missing."
            ) from error
        self._dlib: Any = dlib
        self._mesh = FaceMesh()
        self._network = dlib.face_recognition_model_v1(str(weight_file(FACE_RECOGNITION)))

    def __call__(self, picture: Picture) -> Embedding | None:
        landmarks = self._mesh(picture)
        if landmarks is None:
            return None
        points = [self._dlib.point(round(float(x)), round(float(y))) for x, y in landmarks[list(ALIGNMENT)]]
        whole = self._dlib.rectangle(0, 0, picture.shape[1] - 1, picture.shape[0] - 1)
        face = self._dlib.full_object_detection(whole, points)
        return np.array(self._network.compute_face_descriptor(np.ascontiguousarray(picture), face))


def similarity(
    describe: Describer,
    originals: Sequence[Picture],
    decoded: Sequence[Picture],
    describe_original: Describer | None = None,
) -> float | None:
    """Mean cosine similarity of the embeddings over a few frames whose original shows a face; None without one.

    A decoded picture without a face counts as 0. `describe_original` is used on the originals if given.
    """
    values: list[float] = []
    for n in sampled(len(originals)):
        expected = (describe_original or describe)(originals[n])
        if expected is not None:
            found = describe(decoded[n])
            values.append(0.0 if found is None else cosine(expected, found))
    return float(np.mean(values)) if values else None


def cosine(a: Embedding, b: Embedding) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
