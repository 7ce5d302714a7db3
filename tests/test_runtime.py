"""The CPU runtime from several threads, as a call uses it."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from iwcodec.framing import Crop, crop_resize
from iwcodec.media import read_video
from iwcodec.models.runtime import load_runtime


def test_pictures_rebuilt_at_once_are_those_rebuilt_in_turn(face_clip: Path) -> None:
    """Two links show different people with the same runtime."""
    runtime = load_runtime(kind="onnx", threads=1)
    pictures = [crop_resize(f.picture, Crop(140, 0, 360), 256) for f in read_video(face_clip)]
    sources = [[runtime.prepare(picture)] for picture in (pictures[0], pictures[-1][:, ::-1].copy())]
    keypoints = [runtime.detect(picture) for picture in pictures[:12]]
    in_turn = [[runtime.reconstruct(k, of_one) for k in keypoints] for of_one in sources]
    with ThreadPoolExecutor(2) as executor:
        work = [executor.submit(lambda s=s: [runtime.reconstruct(k, s) for k in keypoints]) for s in sources]
        at_once = [done.result() for done in work]
    for expected, got in zip(in_turn, at_once, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(expected, got, strict=True))
