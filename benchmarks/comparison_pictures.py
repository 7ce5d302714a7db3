"""Pictures for looking at several decoded versions of a clip side by side: video, contact sheet, animation."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.stream import VideoStream

from iwcodec.codec.media.types import Picture
from iwcodec.codec.media.writer import VideoWriter

LABEL_HEIGHT = 28
"""Height in pixels of the label strip above a picture."""
SHEET_ROWS = 6
"""Rows of a contact sheet."""
ANIMATION_SIDE, ANIMATION_FPS, ANIMATION_S = 192, 12, 6.0
"""Pixels a side of each picture of an animation, frames per second and length: small enough for a README."""
ANIMATION_QUALITY = 85
"""libwebp's lossy quality, 0 to 100: 6 s of three faces take 0.8 MB."""


def labelled(picture: Picture, text: str) -> Picture:
    """The picture (H, W, 3) under a strip of LABEL_HEIGHT with the text; long texts are set smaller to fit."""
    width = picture.shape[1]
    strip = np.full((LABEL_HEIGHT, width, 3), 245, np.uint8)
    # OpenCV 5 draws wider than getTextSize returns, hence the 10 % margin.
    text_width = max(1, cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)[0][0])
    scale = min(0.45, 0.9 * 0.45 * (width - 8) / text_width)
    cv2.putText(strip, text, (4, 19), cv2.FONT_HERSHEY_SIMPLEX, scale, (20, 20, 20), 1, cv2.LINE_AA)
    return np.concatenate([strip, picture])


def labelled_row(pictures: Sequence[Picture], labels: Sequence[str]) -> Picture:
    """Labelled pictures of one height beside each other."""
    return np.concatenate([labelled(picture, text) for picture, text in zip(pictures, labels, strict=True)], axis=1)


def write_side_by_side(path: Path, columns: Sequence[Sequence[Picture]], labels: Sequence[str], fps: Fraction) -> None:
    """Write a video with one column per clip; `columns` are clips of equal length with square pictures of one size."""
    side = columns[0][0].shape[0]
    with VideoWriter(path, (side * len(columns), side + LABEL_HEIGHT), fps) as writer:
        for pictures in zip(*columns, strict=True):
            writer.write(labelled_row(pictures, labels))


def write_contact_sheet(path: Path, columns: Sequence[Sequence[Picture]], labels: Sequence[str]) -> None:
    """Write a picture of SHEET_ROWS frames evenly spaced in time, one column per clip, labels above the first row."""
    rows = []
    for n, frame in enumerate(evenly_spaced(len(columns[0]), SHEET_ROWS)):
        pictures = [column[frame] for column in columns]
        rows.append(np.concatenate(pictures, axis=1) if n else labelled_row(pictures, labels))
    cv2.imwrite(str(path), cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR))


def write_animation(path: Path, columns: Sequence[Sequence[Picture]], labels: Sequence[str], fps: Fraction) -> None:
    """Write an endlessly looping animated WebP of the first ANIMATION_S seconds, one column per clip.

    Pictures are reduced to ANIMATION_SIDE and the frame rate to ANIMATION_FPS by dropping frames.
    """
    rate = min(fps, Fraction(ANIMATION_FPS))
    count = min(int(ANIMATION_S * rate), int(len(columns[0]) * rate / fps)) or 1
    shape = ANIMATION_SIDE * len(columns), ANIMATION_SIDE + LABEL_HEIGHT
    with av.open(str(path), "w", format="webp", options={"loop": "0"}) as container:
        options = {"quality": str(ANIMATION_QUALITY), "compression_level": "4"}
        stream = container.add_stream("libwebp_anim", rate=rate, options=options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = shape
        stream.pix_fmt = "bgra"  # libwebp's own conversion to YUV
        for n in range(count):
            pictures = [column[int(n * fps / rate)] for column in columns]
            small = [cv2.resize(p, (ANIMATION_SIDE,) * 2, interpolation=cv2.INTER_AREA) for p in pictures]
            frame = av.VideoFrame.from_ndarray(labelled_row(small, labels), format="rgb24")
            frame.pts, frame.time_base = n, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def evenly_spaced(count: int, picks: int) -> Iterator[int]:
    """`picks` evenly spaced frame numbers below `count`, neither the first nor the last, which are often sources."""
    for n in range(picks):
        yield (2 * n + 1) * count // (2 * picks)
