"""Video and contact sheet of a measured call: each camera, and what the other side saw at the same time."""

from fractions import Fraction
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from iwcodec.client.demo.measurement import Side
from iwcodec.codec.media.types import AUDIO_RATE, Picture, Samples
from iwcodec.codec.media.writer import VideoWriter

FPS: Final = Fraction(25)
"""Frame rate of the video."""
ROWS: Final = 6
"""Rows of the contact sheet."""
LABEL_HEIGHT: Final = 28

Column = tuple[str, list[float], list[Picture]]
"""A label, and times and pictures of one sequence."""


def write_side_by_side(path: Path, sides: list[Side], seconds: float) -> None:
    """Write all columns side by side on a common time line, with the sound that the first side heard."""
    shown = columns(sides)
    began_s = sides[0].began_s
    size = sum(pictures[0].shape[1] for _, _, pictures in shown), shown[0][2][0].shape[0] + LABEL_HEIGHT
    heard = sound_from(sides[0], began_s, seconds)
    with VideoWriter(path, size, FPS, audio=len(heard) > 0) as writer:
        for number in range(round(seconds * FPS)):
            at_s = began_s + float(number / FPS)
            row = [labelled(picture_at(times, pictures, at_s), label) for label, times, pictures in shown]
            writer.write(np.ascontiguousarray(np.concatenate(row, axis=1)))
            first, end = (round(AUDIO_RATE * n / FPS) for n in (number, number + 1))
            writer.write_audio(heard[first:end])


def write_contact_sheet(path: Path, sides: list[Side], seconds: float) -> None:
    """Write all columns at ROWS evenly spaced times as a PNG."""
    shown = columns(sides)
    rows = []
    for number in range(ROWS):
        at_s = sides[0].began_s + seconds * (2 * number + 1) / (2 * ROWS)
        pictures = [picture_at(times, sequence, at_s) for _, times, sequence in shown]
        if number == 0:
            pictures = [labelled(picture, label) for picture, (label, _, _) in zip(pictures, shown, strict=True)]
        rows.append(np.concatenate(pictures, axis=1))
    cv2.imwrite(str(path), cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR))


def columns(sides: list[Side]) -> list[Column]:
    """Each camera, followed by what the other side saw of it."""
    result = []
    for side, other in (sides, sides[::-1]):
        times, pictures = [frame.captured_s for frame in side.sent], [frame.picture for frame in side.sent]
        result.append((f"{side.name}'s camera", times, pictures))
        seen = [(at_s, frame.picture) for at_s, frame in other.seen]
        label = f"as {other.name} saw it, reconstructed"
        result.append((label, [at_s for at_s, _ in seen], [picture for _, picture in seen]))
    return result


def picture_at(times: list[float], pictures: list[Picture], at_s: float) -> Picture:
    """The latest picture at the given time; grey before the first one."""
    index = int(np.searchsorted(times, at_s, side="right")) - 1
    return pictures[index] if index >= 0 else np.full_like(pictures[0], 60)


def labelled(picture: Picture, text: str) -> Picture:
    strip = np.full((LABEL_HEIGHT, picture.shape[1], 3), 245, np.uint8)
    cv2.putText(strip, text, (4, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (20, 20, 20), 1, cv2.LINE_AA)
    return np.concatenate([strip, picture])


def sound_from(side: Side, began_s: float, seconds: float) -> Samples:
    """The sound that a side heard from `began_s` on; empty in a call without sound."""
    blocks = [block for at_s, block in side.heard if at_s >= began_s]
    return np.concatenate(blocks)[: round(seconds * AUDIO_RATE)] if blocks else np.zeros(0, np.int16)
