"""Expression of a decoded face against the original: eyes, gaze, mouth, blinks, and the places of lips and eyelids.

Measured on face mesh landmarks (see `face_mesh`), of original and decoded pictures alike. PSNR cannot see any of this:
eyes and mouth are a twentieth of the picture.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iwcodec.codec.media.types import Picture
from iwcodec.codec.sources.expression import expression
from iwcodec.codec.sources.face_mesh import (
    LEFT_CORNER,
    LEFT_EYE,
    LEFT_IRIS,
    LIPS,
    RIGHT_CORNER,
    RIGHT_EYE,
    RIGHT_IRIS,
    Landmarks,
)

MAX_FRAMES = 120
"""About as many frames of a clip are measured, evenly spaced."""
MIN_FACES = 10
"""Fewest frames with a face in both clips for which correlations and distances are computed."""
CLOSED = 0.6
"""An eye opening below this share of the original's median is a blink."""
MIN_SPREAD = (1e-4, 1e-6)
"""Standard deviations of a feature in the original and in the decoded clip at or below which its correlation is 0."""
LIP_CONTOURS = list(LIPS[:40])
EYELIDS = [*RIGHT_EYE[:16], *LEFT_EYE[:16], LEFT_IRIS[0], RIGHT_IRIS[0]]

Detector = Callable[[Picture], Landmarks | None]


@dataclass(frozen=True)
class Expression:
    """How well a decoded clip keeps the expression of the original; a score is None where it is undefined."""

    faces: int
    """Frames with a face in both clips."""
    eye_r: float | None
    """Correlation over time of the eye opening: distance of the lids over the width of the eye, mean of both eyes."""
    gaze_r: float | None
    """Correlation over time of the irises' places between the corners of the eyes."""
    mouth_open_r: float | None
    """Correlation over time of the distance of the lips' inner edges."""
    mouth_width_r: float | None
    """Correlation over time of the distance of the mouth's corners."""
    blink_recall: float | None
    """Share of the original's frames with closed eyes that are so in the decoded clip; None if there is none."""
    blink_false: float | None
    """Share of the original's frames with open eyes whose decoded frame has them closed."""
    lips_lmd: float | None
    """Mean distance of lip landmarks in % of the eyes' distance, both faces brought to the same eyes."""
    eyes_lmd: float | None
    """The same for the landmarks of eyelids and the centres of the irises."""


def measure(originals: Sequence[Landmarks | None], decoded: Sequence[Landmarks | None]) -> Expression:
    """Compare the landmarks of two clips frame by frame; frames without a face in either clip are left out.

    Raises ValueError for clips of different length.
    """
    pairs = [(a, b) for a, b in zip(originals, decoded, strict=True) if a is not None and b is not None]
    if len(pairs) < MIN_FACES:
        return Expression(len(pairs), *[None] * 8)
    expected, found = (np.array([expression(pair[side]) for pair in pairs]) for side in (0, 1))
    closed = CLOSED * np.median(expected[:, 0])
    blinks, decoded_blinks = expected[:, 0] < closed, found[:, 0] < closed
    distances = np.array([np.linalg.norm(to_eyes(a) - to_eyes(b), axis=1) for a, b in pairs])
    eye, gaze, mouth, width = (correlation(expected[:, n], found[:, n]) for n in range(4))
    return Expression(
        faces=len(pairs),
        eye_r=eye,
        gaze_r=gaze,
        mouth_open_r=mouth,
        mouth_width_r=width,
        blink_recall=float(decoded_blinks[blinks].mean()) if blinks.any() else None,
        blink_false=float(decoded_blinks[~blinks].mean()) if not blinks.all() else None,
        lips_lmd=float(100 * distances[:, LIP_CONTOURS].mean()),
        eyes_lmd=float(100 * distances[:, EYELIDS].mean()),
    )


def measure_clip(
    detect: Detector,
    originals: Sequence[Picture],
    decoded: Sequence[Picture],
    detect_original: Detector | None = None,
) -> Expression:
    """Compare every Nth frame of two clips of RGB pictures, so that about MAX_FRAMES are measured.

    `detect_original` is used on the originals if given (see CachedDetector).
    """
    if len(originals) != len(decoded):
        raise ValueError(f"{len(originals)} original frames against {len(decoded)} decoded ones.")
    frames = measured_frames(len(originals))
    expected = [(detect_original or detect)(originals[n]) for n in frames]
    return measure(expected, [detect(decoded[n]) for n in frames])


def measured_frames(count: int) -> range:
    """Indices of the frames of a clip that are measured: every Nth, about MAX_FRAMES."""
    return range(0, count, max(1, count // MAX_FRAMES))


def to_eyes(face: Landmarks) -> Landmarks:
    """Landmarks in a frame of reference whose origin is midway between the eyes' outer corners, which are 1 apart and
    level."""
    x, y = face[LEFT_CORNER] - face[RIGHT_CORNER]
    centred = face - (face[RIGHT_CORNER] + face[LEFT_CORNER]) / 2
    return centred @ np.array([[x, -y], [y, x]], np.float32) / (x * x + y * y)


def correlation(expected: NDArray[np.float64], found: NDArray[np.float64]) -> float:
    """Pearson's correlation; 0 where either clip stands still (see MIN_SPREAD)."""
    if expected.std() <= MIN_SPREAD[0] or found.std() <= MIN_SPREAD[1]:
        return 0.0
    return float(np.corrcoef(expected, found)[0, 1])
