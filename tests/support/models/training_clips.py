"""Small clips for the training tests: a textured square moving over a static background."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np


def moving_square(frames: int, seed: int, size: int = 64) -> list[np.ndarray]:
    """Pictures (size, size, 3) of the moving square."""
    rng = np.random.default_rng(seed)
    background = cv2.resize(
        rng.integers(0, 255, (6, 6, 3), dtype=np.uint8), (size, size), interpolation=cv2.INTER_CUBIC
    )
    face = cv2.resize(rng.integers(0, 255, (5, 5, 3), dtype=np.uint8), (24, 24), interpolation=cv2.INTER_CUBIC)
    pictures = []
    for n in range(frames):
        picture = background.copy()
        x, y = (int(20 + 14 * f(n / 5 + seed)) for f in (np.sin, np.cos))
        picture[y : y + 24, x : x + 24] = face
        pictures.append(picture)
    return pictures


def write_clip(path: Path, frames: int = 16, seed: int = 0, size: int = 64) -> Path:
    """Write the pictures as an H.264 video at 25 frames/s."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(25))
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "10"}
        for picture in moving_square(frames, seed, size):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def write_data(folder: Path, splits: Sequence[str], frames: int) -> Path:
    """Write a data folder with one clip per entry of `splits` ("train" or "val"), each of another person."""
    rows = ["id,split,identity"]
    for n, split in enumerate(splits):
        write_clip(folder / "clips" / f"c{n}.mp4", frames, n)
        rows.append(f"c{n},{split},p{n}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder
