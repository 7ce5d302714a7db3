"""Keypoints that miss the face: found, and put right for the encoder, by the landmarks of the face detector.

The network's keypoints miss some faces: irises are found on a lamp behind a dark face, lips on what is held before the
chin. Regions are placed by the keypoints of sources, at both ends, so that eyes and mouths of such sources are of a
wrong place and size, and bend a face. Only the encoder has landmarks: where it finds that the keypoints of a region are
wrong, it does not show it.
"""

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.file.rate_control.closed_loop import Stream
from iwcodec.codec.media.crop.face_detector import FaceDetector
from iwcodec.codec.media.types import Picture
from iwcodec.codec.sources.av1 import SourceDecoder
from iwcodec.codec.sources.regions import MOUTH, REGIONS
from iwcodec.models.runtime.types import Keypoints, Runtime

IRISES, LIPS = (0, 1), (7, 8, 9, 10)
"""Keypoints that training placed on the irises, and on the corners and lips of the mouth."""
CHECK_EVERY = 5
"""Check the keypoints of every Nth frame."""
MAX_OFF = 0.35
"""Distance of irises or mouth from the landmarks, in distances of the eyes, from which keypoints are wrong. On faces
that are found it is 0.03 to 0.2."""
MIN_UNIT = 1 / 16
"""Smallest distance of the eyes that counts, in [-1, 1] units."""


class FaceCheck:
    """Checks the keypoints of a clip's pictures: of the first of each group of them, and of the others if it is wrong.

    Safe to use from several threads."""

    def __init__(self) -> None:
        self._detector = FaceDetector()
        self._lock = threading.Lock()
        self._groups, self._wrong = 0, 0

    @property
    def wrong_share(self) -> float:
        """Share of the groups whose first keypoints are wrong."""
        return self._wrong / max(1, self._groups)

    def corrected(self, pictures: Sequence[Picture], keypoints: Sequence[Keypoints]) -> list[Keypoints]:
        """Return the keypoints (K, 3) of a group of pictures, with irises and mouth at the landmarks where they are
        wrong."""
        first = self._at_landmarks(pictures[0], keypoints[0])
        with self._lock:
            self._groups += 1
            self._wrong += first is not keypoints[0]
        if first is keypoints[0]:
            return list(keypoints)
        return [first, *map(self._at_landmarks, pictures[1:], keypoints[1:])]

    def _at_landmarks(self, picture: Picture, keypoints: Keypoints) -> Keypoints:
        """The same keypoints unless they are wrong."""
        right = at_landmarks(picture, keypoints, self._detector)
        return right if right is not None and off_regions(keypoints, right) else keypoints


def at_landmarks(picture: Picture, keypoints: Keypoints, detector: FaceDetector) -> Keypoints | None:
    """Return keypoints (K, 3) with irises and mouth at the landmarks of the face that is nearest to them; None without
    a face."""
    size, found = len(picture), []
    for face in detector.detect(picture):
        right_eye, left_eye, _, *corners = (np.array(face.landmarks) + 0.5) * (2 / size) - 1
        moved = keypoints.copy()
        moved[list(IRISES), :2] = right_eye, left_eye
        moved[list(LIPS), :2] = np.mean(corners, 0)
        found.append(moved)
    return min(found, key=lambda moved: float(np.abs(points(moved) - points(keypoints)).sum()), default=None)


def points(keypoints: Keypoints) -> Keypoints:
    """Return irises and middle of the mouth (3, 2) of keypoints (K, 3)."""
    return np.stack([*keypoints[list(IRISES), :2], keypoints[list(LIPS), :2].mean(0)])


def off_regions(keypoints: Keypoints, right: Keypoints) -> set[int]:
    """Return the regions whose keypoints (K, 3) are not where they should be. Irises also say how large a mouth is:
    where they are wrong, both regions are."""
    unit = max(float(np.linalg.norm(right[1, :2] - right[0, :2])), MIN_UNIT)
    *irises, mouth = np.linalg.norm(points(keypoints) - points(right), axis=1) > MAX_OFF * unit
    return set(REGIONS) if any(irises) else {MOUTH} if mouth else set()


def misleading_sources(stream: Stream, faces: NDArray[np.float32], runtime: Runtime) -> dict[int, set[int]]:
    """For each region the slots of the sources in whose decoded pictures the keypoints miss it. `faces`: keypoints
    (n, K, 3) of all frames that do not."""
    decoder, slots = SourceDecoder(runtime.info.size), dict[int, set[int]]({region: set() for region in REGIONS})
    for packet in stream.coded.packets:
        picture = decoder.add(packet.payload)
        if packet.frame is not None:
            for region in off_regions(runtime.detect(picture), faces[packet.frame]):
                slots[region].add(packet.slot)
    return slots
