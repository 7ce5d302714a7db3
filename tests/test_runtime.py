"""The CPU runtime from several threads, as a call uses it."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from iwcodec.framing import Crop, crop_resize
from iwcodec.media import read_video
from iwcodec.models.runtime import load_runtime
from iwcodec.quality import psnr


class Together:
    """A session that two threads enter at the same time."""

    def __init__(self, session: Any) -> None:
        self._session, self._barrier = session, threading.Barrier(2, timeout=60)

    def run(self, *given: Any) -> Any:
        self._barrier.wait()
        return self._session.run(*given)


def test_pictures_rebuilt_at_once_are_those_rebuilt_in_turn(face_clip: Path) -> None:
    """Two links show different people with the same runtime."""
    runtime = load_runtime(kind="onnx", threads=1)
    picture = crop_resize(next(iter(read_video(face_clip))).picture, Crop(140, 0, 360), 256)
    sources = [[runtime.prepare(picture)], [runtime.prepare(picture[:, ::-1].copy())]]
    keypoints = runtime.detect(picture)
    in_turn = [runtime.reconstruct(keypoints, of_one) for of_one in sources]
    runtime._sessions["paint"] = Together(runtime._sessions["paint"])  # type: ignore[attr-defined]
    with ThreadPoolExecutor(2) as executor:
        at_once = list(executor.map(lambda of_one: runtime.reconstruct(keypoints, of_one), sources))
    assert all(np.array_equal(a, b) for a, b in zip(in_turn, at_once, strict=True))


def test_the_larger_model_shows_a_source_as_it_is(face_clip: Path) -> None:
    runtime = load_runtime("lite-512", "onnx", 1)
    picture = crop_resize(next(iter(read_video(face_clip))).picture, Crop(140, 0, 360), 512)
    source = runtime.prepare(picture)
    rebuilt = runtime.reconstruct(source.keypoints, [source])
    assert rebuilt.shape == (512, 512, 3)
    assert psnr(rebuilt, picture) > 30
