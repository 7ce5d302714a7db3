"""Reading frames of clips, which are video files or folders of pictures."""

from collections.abc import Container, Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

PICTURE_SUFFIXES = {".png", ".jpg", ".jpeg"}
"""Suffixes of picture files, in lower case."""


def count_frames(path: Path) -> int:
    """Count the frames of a clip. A video is decoded for this, because frame counts in containers are unreliable."""
    if path.is_dir():
        return len(pictures_in(path))
    import av

    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def read_frames(path: Path, numbers: Container[int] | None = None) -> Iterator[NDArray[np.uint8]]:
    """Yield the RGB frames of a clip, or only those with the given frame numbers.

    Raises ValueError or OSError if the clip is not a video or a picture is damaged."""
    if path.is_dir():
        for number, picture in enumerate(pictures_in(path)):
            if numbers is None or number in numbers:
                yield read_picture(picture)
        return
    import av

    with av.open(str(path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if numbers is None or number in numbers:
                yield np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)


def pictures_in(folder: Path) -> list[Path]:
    """List the pictures of a folder in order of their names."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES)


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Read an RGB picture. Raises ValueError if it cannot be decoded."""
    picture = cv2.imread(str(path))
    if picture is None:
        raise ValueError(f"{path} is not a picture that can be read")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def evenly_spaced(count: int, limit: int) -> list[int]:
    """Return up to `limit` evenly spaced numbers of `count` frames, including the first and the last."""
    return np.unique(np.linspace(0, count - 1, min(limit, count)).round().astype(int)).tolist()


def square(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Crop the centre square and scale it to `size` pixels."""
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    picture = picture[top : top + side, left : left + side]
    return cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA) if side != size else picture
