"""The CPU runtime from several threads, as a call uses it."""

import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from iwcodec.codec.media.crop_tracking import Crop, crop_resize
from iwcodec.codec.media.quality import psnr
from iwcodec.codec.media.video import read_video
from iwcodec.models.runtime.load import load_runtime
from iwcodec.models.runtime.onnx import JOINED, MAX_ACTIVE, OnnxRuntime, leave_out_small, pixel_grid
from iwcodec.models.runtime.types import Picture, Source


class Together:
    """A session that two threads enter at the same time."""

    def __init__(self, session: Any) -> None:
        self._session, self._barrier = session, threading.Barrier(2, timeout=60)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run_with_iobinding(self, *given: Any) -> Any:
        self._barrier.wait()
        return self._session.run_with_iobinding(*given)


def test_pictures_rebuilt_at_once_are_those_rebuilt_in_turn(face_clip: Path) -> None:
    """Two links show different people with the same runtime."""
    runtime = load_runtime(kind="onnx", threads=1)
    picture = crop_resize(next(iter(read_video(face_clip))).picture, Crop(140, 0, 360), 256)
    sources = [[runtime.prepare(picture)], [runtime.prepare(picture[:, ::-1].copy())]]
    keypoints = runtime.detect(picture)
    in_turn = [runtime.reconstruct(keypoints, of_one) for of_one in sources]
    runtime._sessions["refine"] = Together(runtime._sessions["refine"])  # type: ignore[attr-defined]
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


def plainly(runtime: OnnxRuntime, keypoints: Any, sources: list[Source], suppression: float) -> Picture:
    """What `reconstruct` means, with new arrays for everything."""
    side, seen = runtime.info.size, runtime._seen
    given = {name: np.stack([getattr(s, name) for s in sources])[None] for name in ("keypoints", "membership", "basis")}
    joined = runtime._sessions["join"].run(JOINED, {"features": np.stack([s.features for s in sources])[None]})
    given |= {"driving": keypoints[None], **dict(zip(JOINED, joined, strict=True))}
    fields, features = runtime._sessions["attend"].run(None, given)
    if suppression:
        length = np.linalg.norm(fields[..., :2], axis=-1, keepdims=True)
        fields[..., :2] *= np.clip(2 * length / np.float32(suppression) - 1, 0, 1)
    wide = [cv2.resize(field, (seen, seen), interpolation=cv2.INTER_LINEAR) for field in fields[0]]
    sampled, total = [], sum((field[..., 2] for field in wide[1:]), wide[0][..., 2])
    for source, field in zip(sources, wide, strict=True):
        shift = np.ascontiguousarray(field[..., :2])
        if seen != side:
            shift = cv2.resize(shift, (side, side), interpolation=cv2.INTER_LINEAR) * np.float32(side / seen)
        places = shift + pixel_grid(side)
        sampled.append(
            cv2.remap(source.picture, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).astype(
                np.float32
            )
        )
    shares = [cv2.resize(field[..., 2] / total, (side, side), interpolation=cv2.INTER_LINEAR) for field in wide]
    blended, so_far = sampled[0], shares[0]
    for picture, share in zip(sampled[1:], shares[1:], strict=True):
        blended, so_far = cv2.blendLinear(blended, picture, so_far, share), so_far + share
    fold = side // runtime._sessions["refine"].get_inputs()[0].shape[-1]
    folded = (blended * np.float32(1 / 255)).reshape(side // fold, fold, side // fold, fold, 3)
    base = folded.transpose(4, 1, 3, 0, 2).reshape(1, 3 * fold**2, side // fold, side // fold)
    planes = runtime._sessions["refine"].run(None, {"base": base, "features": features})[0][0]
    return planes.reshape(3, fold, fold, side // fold, side // fold).transpose(3, 1, 4, 2, 0).reshape(side, side, 3)


@pytest.mark.parametrize("size", [256, 512])
def test_what_is_kept_from_frame_to_frame_changes_no_picture(face_clip: Path, size: int) -> None:
    runtime = load_runtime(f"lite-{size}", "onnx", 1)
    assert isinstance(runtime, OnnxRuntime)
    shown = [crop_resize(frame.picture, Crop(140, 0, 360), size) for frame in read_video(face_clip)][::9]
    sources = [runtime.prepare(picture) for picture in shown[:MAX_ACTIVE]]
    driving = [runtime.detect(picture[:, ::-1].copy()) for picture in shown[:2]]
    for count, zone in ((3, 0.0), (1, 0.0), (4, 0.8), (2, 1.2), (3, 0.0)):
        for keypoints in driving:
            found = runtime.reconstruct(keypoints, sources[:count], zone)
            off = np.abs(found.astype(int) - plainly(runtime, keypoints, sources[:count], zone))
            assert off.max() <= (1 if zone else 0)


def test_small_shifts_are_left_out_and_large_ones_made() -> None:
    shifts = np.array([[0.3, 0.0], [0.0, -0.39], [0.6, 0.0], [0.0, 0.8], [-3.0, 4.0]], np.float32)
    found = shifts.copy()
    leave_out_small(found, 0.8)
    np.testing.assert_allclose(found, shifts * np.array([0, 0, 0.5, 1, 1])[:, None], atol=1e-6)


def test_a_source_whose_shifts_are_left_out_is_shown_sharp(face_clip: Path) -> None:
    """From its own keypoints, moved by less than a pixel."""
    runtime = load_runtime(kind="onnx", threads=1)
    picture = crop_resize(next(iter(read_video(face_clip))).picture, Crop(140, 0, 360), 256)
    source = runtime.prepare(picture)
    nearly = source.keypoints + np.float32([0.3 / 128, 0.2 / 128, 0])
    with_shifts, without = (psnr(runtime.reconstruct(nearly, [source], zone), picture) for zone in (0.0, 1.2))
    assert without > with_shifts + 1


def test_a_frame_allocates_its_picture_and_little_else(face_clip: Path) -> None:
    runtime = load_runtime(kind="onnx", threads=1)
    picture = crop_resize(next(iter(read_video(face_clip))).picture, Crop(140, 0, 360), 256)
    sources = [runtime.prepare(picture), runtime.prepare(picture[:, ::-1].copy())]
    keypoints = sources[0].keypoints
    runtime.reconstruct(keypoints, sources)
    tracemalloc.start()
    try:
        most = []
        for _ in range(100):
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            runtime.reconstruct(keypoints, sources)
            most.append(tracemalloc.get_traced_memory()[1] - before)
        left = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert picture.nbytes <= np.median(most) < 1.2 * picture.nbytes
    assert left < 100_000
