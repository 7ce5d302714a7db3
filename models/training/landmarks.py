"""Facial landmarks that teach the first keypoints where to be, from MediaPipe's face mesh.

A detector left to itself takes very long to find keypoints that stay on the same spot of any face. So the first
`len(LANDMARKS)` keypoints are taught to follow landmarks, and the rest find hair, shoulders and background by
themselves. Only training needs the mesh: `pip install mediapipe==0.10.14` (the wheel carries the model); without it
nothing is taught and training goes on.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MESH = 478
OPENING_SCALE = 2.2
"""Strength of an eye's keypoint for each unit of lid distance by eye width: about 0.8 when wide open."""
OPENING_SHUT = 0.1


class Landmark(NamedTuple):
    name: str
    vertex: int
    mirror: int
    """Number of the landmark that it becomes in a mirrored picture."""
    opening: tuple[int, int, int, int] | None = None
    """Vertices of the two lids and the two corners of an eye: how far it is open is taught as strength."""


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


def from_mesh(mesh: NDArray[np.floating]) -> NDArray[np.float32]:
    """Mesh vertices (..., MESH, 2) in [-1, 1] -> landmarks (..., P, 3): x, y and, where there is one, strength; NaN
    where nothing is known."""
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
    """Landmarks (n, P, 3) of RGB pictures, NaN where there is no face; None where MediaPipe is not installed."""
    try:
        from mediapipe.python.solutions.face_mesh import FaceMesh
    except ImportError:
        return None
    found = []
    with FaceMesh(static_image_mode=True, max_num_faces=1, refine_landmarks=True, min_detection_confidence=0.4) as net:
        for picture in pictures:
            faces = net.process(np.ascontiguousarray(picture)).multi_face_landmarks
            vertices = [(v.x * 2 - 1, v.y * 2 - 1) for v in faces[0].landmark] if faces else [(np.nan, np.nan)] * MESH
            found.append(from_mesh(np.array(vertices, np.float32)))
    return np.stack(found)


def seen_through(landmarks: NDArray[np.float32], window: NDArray[np.float32], mirror: bool) -> NDArray[np.float32]:
    """Landmarks (P, 3) of a whole picture as a window (cx, cy, half side) of it shows them; NaN outside."""
    out = landmarks.copy()
    out[:, :2] = (landmarks[:, :2] - window[:2]) / window[2]
    if mirror:
        out = out[MIRRORED] * np.array([-1, 1, 1], np.float32)
    outside = ~(np.abs(out[:, :2]) < 1).all(-1)
    out[outside] = np.nan
    return out
