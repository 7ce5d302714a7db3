"""Facial landmarks from MediaPipe's face mesh, which supervise the first keypoints.

An unsupervised detector takes very long to find keypoints that stay on the same spot of every face. So the first
`len(LANDMARKS)` keypoints are trained to follow landmarks, and the others find hair, shoulders and background on their
own. Only training needs the mesh: `pip install mediapipe==0.10.14` (the wheel includes the model). Without it, training
runs without this loss.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MESH = 478
"""Vertices of the face mesh."""
OPENING_SCALE = 2.2
"""Strength of an eye's keypoint per ratio of lid distance to eye width; gives about 0.8 for a wide-open eye."""
OPENING_SHUT = 0.1
"""Strength of a closed eye's keypoint."""


class Landmark(NamedTuple):
    """A vertex of the face mesh that supervises a keypoint."""

    name: str
    vertex: int
    mirror: int
    """Index of the landmark that it becomes in a mirrored picture."""
    opening: tuple[int, int, int, int] | None = None
    """Vertices of the two lids and the two corners of an eye, whose opening supervises the strength."""


LANDMARKS = (
    Landmark("right iris", 468, 1, (159, 145, 33, 133)),
    Landmark("left iris", 473, 0, (386, 374, 362, 263)),
    Landmark("nose tip", 1, 2),
    Landmark("forehead", 10, 3),
    Landmark("chin", 152, 4),
    Landmark("right cheek", 234, 6),
    Landmark("left cheek", 454, 5),
    Landmark("right mouth corner", 61, 8),
    Landmark("left mouth corner", 291, 7),
    Landmark("upper lip", 13, 9),
    Landmark("lower lip", 14, 10),
    Landmark("right brow", 105, 12),
    Landmark("left brow", 334, 11),
)
MIRRORED = [landmark.mirror for landmark in LANDMARKS]
"""Permutation of the landmarks by mirroring."""


def landmarks_from_mesh(mesh: NDArray[np.floating]) -> NDArray[np.float32]:
    """Mesh vertices (..., MESH, 2) in [-1, 1] -> landmarks (..., P, 3): x, y and strength, NaN where undefined."""
    mesh = mesh.astype(np.float32)
    out = np.full((*mesh.shape[:-2], len(LANDMARKS), 3), np.nan, np.float32)
    for number, landmark in enumerate(LANDMARKS):
        out[..., number, :2] = mesh[..., landmark.vertex, :]
        if landmark.opening is not None:
            upper, lower, outer, inner = (mesh[..., vertex, :] for vertex in landmark.opening)
            lids, width = np.linalg.norm(upper - lower, axis=-1), np.linalg.norm(outer - inner, axis=-1)
            out[..., number, 2] = np.clip(OPENING_SHUT + OPENING_SCALE * lids / (width + 1e-6), OPENING_SHUT, 0.95)
    return out


def find_landmarks(pictures: Iterable[NDArray[np.uint8]]) -> NDArray[np.float32] | None:
    """Find landmarks (n, P, 3) in RGB pictures, NaN without a face. Returns None if MediaPipe is not installed."""
    try:
        from mediapipe.python.solutions.face_mesh import FaceMesh
    except ImportError:
        return None
    landmarks = []
    with FaceMesh(static_image_mode=True, max_num_faces=1, refine_landmarks=True, min_detection_confidence=0.4) as net:
        for picture in pictures:
            faces = net.process(np.ascontiguousarray(picture)).multi_face_landmarks
            vertices = [(v.x * 2 - 1, v.y * 2 - 1) for v in faces[0].landmark] if faces else [(np.nan, np.nan)] * MESH
            landmarks.append(landmarks_from_mesh(np.array(vertices, np.float32)))
    return np.stack(landmarks)


def through_window(landmarks: NDArray[np.float32], window: NDArray[np.float32], mirror: bool) -> NDArray[np.float32]:
    """Map landmarks (P, 3) of a picture into a window (cx, cy, half side) of it, optionally mirrored; NaN outside."""
    out = landmarks.copy()
    out[:, :2] = (landmarks[:, :2] - window[:2]) / window[2]
    if mirror:
        out = out[MIRRORED] * np.array([-1, 1, 1], np.float32)
    outside = ~(np.abs(out[:, :2]) < 1).all(-1)
    out[outside] = np.nan
    return out
