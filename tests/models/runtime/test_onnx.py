"""The ONNX runtime: reused buffers, threads, and small-shift suppression."""

import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from iwcodec.codec.media.crop.square import Crop, crop_resize
from iwcodec.codec.media.quality import psnr
from iwcodec.codec.media.video import read_video
from iwcodec.models.runtime.load import load_runtime
from iwcodec.models.runtime.onnx import MERGED, OnnxRuntime, suppress_small_shifts
from iwcodec.models.runtime.pictures import pixel_grid
from iwcodec.models.runtime.types import MAX_ACTIVE, Picture, Source


class BarrierSession:
    """A session in which two threads meet before they run it."""

    def __init__(self, session: Any) -> None:
        self._session, self._barrier = session, threading.Barrier(2, timeout=60)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run_with_iobinding(self, *arguments: Any) -> Any:
        self._barrier.wait()
        return self._session.run_with_iobinding(*arguments)


def test_concurrent_reconstruction_equals_sequential(face_clip: Path) -> None:
    """As in a call, where links of different people share a runtime."""
    runtime = load_runtime(kind="onnx", threads=1)
    picture = crop_resize(next(iter(read_video(face_clip))).picture, Crop(140, 0, 360), 256)
    sources = [[runtime.prepare(picture)], [runtime.prepare(picture[:, ::-1].copy())]]
    keypoints = runtime.detect(picture)
    sequential = [runtime.reconstruct(keypoints, one) for one in sources]
    runtime.sessions["refine"] = BarrierSession(runtime.sessions["refine"])
    with ThreadPoolExecutor(2) as executor:
        concurrent = list(executor.map(lambda one: runtime.reconstruct(keypoints, one), sources))
    assert all(np.array_equal(a, b) for a, b in zip(sequential, concurrent, strict=True))


def test_512_model_reproduces_a_source(face_clip: Path) -> None:
    runtime = load_runtime("lite-512", "onnx", 1)
    picture = crop_resize(next(iter(read_video(face_clip))).picture, Crop(140, 0, 360), 512)
    source = runtime.prepare(picture)
    picture_out = runtime.reconstruct(source.keypoints, [source])
    assert picture_out.shape == (512, 512, 3)
    assert psnr(picture_out, picture) > 30


SOURCE_INPUTS = ("keypoints", "membership", "basis")


def reconstruct_plainly(runtime: OnnxRuntime, keypoints: Any, sources: list[Source], suppression: float) -> Picture:
    """Reference implementation of `OnnxRuntime.reconstruct` with newly allocated arrays."""
    side, net_size = runtime.info.size, runtime.net_size
    inputs = {
        name: np.stack([getattr(s, name) for s in sources])[None] for name in ("keypoints", "membership", "basis")
    }
    merged = runtime.sessions["merge"].run(MERGED, {"features": np.stack([s.features for s in sources])[None]})
    inputs |= {"driving": keypoints[None], **dict(zip(MERGED, merged, strict=True))}
    fields, features = runtime.sessions["attend"].run(None, inputs)
    if suppression:
        length = np.linalg.norm(fields[..., :2], axis=-1, keepdims=True)
        fields[..., :2] *= np.clip(2 * length / np.float32(suppression) - 1, 0, 1)
    wide = [cv2.resize(field, (net_size, net_size), interpolation=cv2.INTER_LINEAR) for field in fields[0]]
    sampled, total = [], sum((field[..., 2] for field in wide[1:]), wide[0][..., 2])
    for source, field in zip(sources, wide, strict=True):
        shift = np.ascontiguousarray(field[..., :2])
        if net_size != side:
            shift = cv2.resize(shift, (side, side), interpolation=cv2.INTER_LINEAR) * np.float32(side / net_size)
        places = shift + pixel_grid(side)
        sampled.append(
            cv2.remap(source.picture, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).astype(
                np.float32
            )
        )
    shares = [cv2.resize(field[..., 2] / total, (side, side), interpolation=cv2.INTER_LINEAR) for field in wide]
    blended, share_so_far = sampled[0], shares[0]
    for picture, share in zip(sampled[1:], shares[1:], strict=True):
        blended, share_so_far = cv2.blendLinear(blended, picture, share_so_far, share), share_so_far + share
    fold = side // runtime.sessions["refine"].get_inputs()[0].shape[-1]
    folded = (blended * np.float32(1 / 255)).reshape(side // fold, fold, side // fold, fold, 3)
    base = folded.transpose(4, 1, 3, 0, 2).reshape(1, 3 * fold**2, side // fold, side // fold)
    planes = runtime.sessions["refine"].run(None, {"base": base, "features": features})[0][0]
    return planes.reshape(3, fold, fold, side // fold, side // fold).transpose(3, 1, 4, 2, 0).reshape(side, side, 3)


@pytest.mark.parametrize("size", [256, 512])
def test_reused_buffers_change_no_picture(face_clip: Path, size: int) -> None:
    runtime = load_runtime(f"lite-{size}", "onnx", 1)
    assert isinstance(runtime, OnnxRuntime)
    shown = [crop_resize(frame.picture, Crop(140, 0, 360), size) for frame in read_video(face_clip)][::6]
    sources = [runtime.prepare(picture) for picture in shown[:MAX_ACTIVE]]
    driving = [runtime.detect(picture[:, ::-1].copy()) for picture in shown[:2]]
    for count, suppression in ((3, 0.0), (1, 0.0), (4, 0.8), (2, 1.2), (3, 0.0)):
        for keypoints in driving:
            picture = runtime.reconstruct(keypoints, sources[:count], suppression)
            off = np.abs(picture.astype(int) - reconstruct_plainly(runtime, keypoints, sources[:count], suppression))
            assert off.max() <= (1 if suppression else 0)


def test_small_shifts_are_suppressed_and_large_ones_kept() -> None:
    shifts = np.array([[0.3, 0.0], [0.0, -0.39], [0.6, 0.0], [0.0, 0.8], [-3.0, 4.0]], np.float32)
    suppressed = shifts.copy()
    suppress_small_shifts(suppressed, 0.8)
    np.testing.assert_allclose(suppressed, shifts * np.array([0, 0, 0.5, 1, 1])[:, None], atol=1e-6)


def test_suppression_keeps_a_nearly_static_source_sharp(face_clip: Path) -> None:
    """Reconstruct it from its own keypoints, shifted by less than a pixel."""
    runtime = load_runtime(kind="onnx", threads=1)
    picture = crop_resize(next(iter(read_video(face_clip))).picture, Crop(140, 0, 360), 256)
    source = runtime.prepare(picture)
    shifted = source.keypoints + np.float32([0.3 / 128, 0.2 / 128, 0])
    plain, suppressed = (
        psnr(runtime.reconstruct(shifted, [source], suppression), picture) for suppression in (0.0, 1.2)
    )
    assert suppressed > plain + 1


def test_reconstruct_allocates_little_more_than_the_picture(face_clip: Path) -> None:
    runtime = load_runtime(kind="onnx", threads=1)
    picture = crop_resize(next(iter(read_video(face_clip))).picture, Crop(140, 0, 360), 256)
    sources = [runtime.prepare(picture), runtime.prepare(picture[:, ::-1].copy())]
    keypoints = sources[0].keypoints
    runtime.reconstruct(keypoints, sources)
    tracemalloc.start()
    try:
        peaks = []
        for _ in range(100):
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            runtime.reconstruct(keypoints, sources)
            peaks.append(tracemalloc.get_traced_memory()[1] - before)
        leaked = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert picture.nbytes <= np.median(peaks) < 1.2 * picture.nbytes
    assert leaked < 100_000


def test_too_many_sources_are_refused(exported_models: Path) -> None:
    runtime = OnnxRuntime("tiny-64", 1, exported_models)
    source = runtime.prepare(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(ValueError, match="sources"):
        runtime.reconstruct(source.keypoints, [source] * (MAX_ACTIVE + 1))


def test_a_source_with_another_picture_is_sampled_from_it(exported_models: Path) -> None:
    """And the one it is made from stays as it is."""
    runtime = OnnxRuntime("tiny-64", 1, exported_models)
    rng = np.random.default_rng(1)
    picture, other = rng.integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    source, keypoints = runtime.prepare(picture), runtime.detect(other)
    before = runtime.reconstruct(keypoints, [source])
    merged = runtime._buffers.attend
    changed = runtime.with_picture(source, other)
    assert changed.picture is other
    assert source.picture is picture
    assert np.array_equal(changed.keypoints, source.keypoints)
    shown = runtime.reconstruct(keypoints, [changed])
    assert np.abs(shown.astype(int) - before).mean() > 10
    assert np.array_equal(shown, reconstruct_plainly(runtime, keypoints, [changed], 0.0))
    assert np.array_equal(runtime.reconstruct(keypoints, [source]), before)
    assert runtime._buffers.attend is merged  # features are not merged again
    same = runtime.with_picture(changed, picture)
    assert np.array_equal(runtime.reconstruct(keypoints, [same]), before)
