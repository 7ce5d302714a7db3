"""Contact sheet of expressions: the strongest blinks, glances and vowels of a clip, in several versions of it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from iwcodec.benchmarks.comparison_pictures import labelled_row
from iwcodec.benchmarks.quality.rivals import RivalResult, encode_rival
from iwcodec.codec.media.crop.face_detector import FaceDetector
from iwcodec.codec.media.types import Picture
from iwcodec.codec.sources.expression import expression
from iwcodec.codec.sources.face_mesh import face_box, landmarks
from iwcodec.models.runtime.types import Runtime

MAX_FRAMES = 600
"""Frames of a clip among which expressions are looked for, evenly spaced."""
MIN_GAP_S = 0.4
"""Seconds between two frames of the sheet."""
OPEN = 0.85
"""A glance is looked for where the eye opening is at least this share of its median."""
FACE_MARGIN = 1.25
"""Side of a cell's square in heights of the detected face."""
CELL = 192
"""Side of a cell in pixels."""
QUALITY = 88
"""JPEG quality, 0 to 100."""

Features = NDArray[np.float64]
"""(n, 4): eye opening, gaze, mouth opening and mouth width of frames; NaN without a face."""


@dataclass(frozen=True)
class Moment:
    """A frame that shows an expression."""

    frame: int
    expression: str


def expression_features(pictures: Sequence[Picture], runtime: Runtime) -> Features:
    """Measure pictures by the face mesh."""
    found = [landmarks(picture, face_box(picture, runtime.detect(picture))) for picture in pictures]
    return np.array([np.full(4, np.nan) if face is None else expression(face) for face in found])


def moments(features: Features, gap: int) -> list[Moment]:
    """Two blinks, a glance to either side, two open mouths, a wide and a narrow open one, each at least `gap` frames
    from the others. Fewer if the clip is short."""
    if np.isnan(features).all():
        return []
    eyes, gaze, opening, width = features.T
    awake, speaking = eyes > OPEN * np.nanmedian(eyes), opening > np.nanmedian(opening)
    wanted = (
        *(("blink", -eyes),) * 2,
        ("glance", np.where(awake, gaze, np.nan)),
        ("glance", np.where(awake, -gaze, np.nan)),
        *(("open mouth", opening),) * 2,
        ("wide mouth", width),
        ("narrow mouth", np.where(speaking, -width, np.nan)),
    )
    found: list[Moment] = []
    free = np.ones(len(features), bool)
    for name, strength in wanted:
        strength = np.where(free, strength, np.nan)
        if np.isfinite(strength).any():
            frame = int(np.nanargmax(strength))
            found.append(Moment(frame, name))
            free[max(0, frame - gap + 1) : frame + gap] = False
    return found


def expressive_moments(pictures: Sequence[Picture], fps: Fraction, runtime: Runtime) -> list[Moment]:
    """The `moments` of a clip."""
    step = -(-len(pictures) // MAX_FRAMES)
    found = moments(expression_features(pictures[::step], runtime), max(1, round(MIN_GAP_S * fps / step)))
    return [Moment(moment.frame * step, moment.expression) for moment in found]


def av1_versions(originals: Sequence[Picture], fps: Fraction, kbps: float) -> list[RivalResult]:
    """SVT-AV1 at about this rate, which it reaches at half size and frame rate, and asked for three times as much in
    full."""
    half = encode_rival("svtav1", originals, fps, kbps, shrink=2, skip=2)
    return [half, encode_rival("svtav1", originals, fps, 3 * kbps)]


def write_sheet(path: Path, shown: Iterable[tuple[str, Sequence[Picture]]], labels: Sequence[str]) -> None:
    """Write a JPEG with one row per (expression, its pictures, the original first), one column per version.

    Pictures are cut to the face that is found in the original."""
    detector, rows = FaceDetector(), list[Picture]()
    for name, pictures in shown:
        left, top, side = face_square(pictures[0], detector)
        cells = [
            cv2.resize(p[top : top + side, left : left + side], (CELL, CELL), interpolation=cv2.INTER_CUBIC)
            for p in pictures
        ]
        rows.append(labelled_row(cells, [f"{labels[0]}: {name}", *labels[1:]]))
    sheet = cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR)
    cv2.imwrite(str(path), sheet, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])


def face_square(picture: Picture, detector: FaceDetector) -> tuple[int, int, int]:
    """Left, top and side in pixels of the square around the best face, inside the picture; all of it without a face."""
    height, width = picture.shape[:2]
    most = min(height, width)
    faces = detector.detect(picture)
    if not faces:
        return (width - most) // 2, (height - most) // 2, most
    face = faces[0]
    side = min(most, round(FACE_MARGIN * max(face.w, face.h)))
    left, top = round(face.x + (face.w - side) / 2), round(face.y + (face.h - side) / 2)
    return min(max(left, 0), width - side), min(max(top, 0), height - side), side
