"""Batching and padding in the CUDA runtime, on whatever device there is."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from iwcodec.codec.media.crop.square import Crop, crop_resize
from iwcodec.codec.media.video import read_video, sample_clip
from iwcodec.models.runtime.cuda import CudaRuntime, Pending, pack, padded_callers
from iwcodec.models.runtime.load import load_runtime
from iwcodec.models.runtime.torch import TorchRuntime
from iwcodec.models.runtime.types import MAX_ACTIVE, Runtime
from support.models.cuda_jobs import noise_pictures, random_jobs


def test_number_of_callers_is_padded_to_a_power_of_two() -> None:
    assert [padded_callers(n) for n in (1, 2, 3, 4, 5, 8, 9)] == [1, 2, 4, 4, 8, 8, 16]


def test_padding_of_a_batch_names_valid_pages(runtime) -> None:
    jobs = random_jobs(runtime, [1, 3, 2])
    jobs[1] = replace(jobs[1], suppression=0.8)
    driving, table, counts, suppressions = pack(jobs, 4, 4)
    assert suppressions.tolist() == [0.0, np.float32(0.8), 0.0, 0.0]
    pages = [[source.features.number for source in job.sources] for job in jobs]
    assert counts.tolist() == [1, 3, 2, 1]
    assert table.dtype == np.int32
    assert table.tolist() == [pages[0] * 4, [*pages[1], pages[1][0]], [*pages[2], *pages[2][:1] * 2], pages[0] * 4]
    np.testing.assert_array_equal(driving[3], jobs[0].keypoints)


def test_batched_callers_get_the_same_pictures_as_alone(runtime) -> None:
    jobs = [replace(job, suppression=0.7 * n) for n, job in enumerate(random_jobs(runtime, [1, 4, 2]))]
    together = runtime.submit(jobs).pictures()
    assert len(together) == 3
    for picture, job in zip(together, jobs, strict=True):
        alone = runtime.reconstruct(job.keypoints, job.sources, job.suppression)
        assert np.abs(picture.astype(int) - alone).max() <= 1


def test_jobs_without_or_with_too_many_sources_are_refused(runtime) -> None:
    job = random_jobs(runtime, [1])[0]
    with pytest.raises(ValueError, match="1 to 4 sources"):
        runtime.reconstruct(job.keypoints, [])
    with pytest.raises(ValueError, match="1 to 4 sources"):
        runtime.reconstruct(job.keypoints, job.sources * 5)
    with pytest.raises(ValueError, match="at least one job"):
        runtime.submit([])


def with_dark_eyes(runtime: Runtime) -> list[np.ndarray]:
    """Reconstructions from a source, from it with a dark bar in its picture, from both, and again from the first."""
    frames = itertools.islice(read_video(sample_clip()), 24)
    first, *_, last = (crop_resize(frame.picture, Crop(140, 0, 360), 256) for frame in frames)
    source, keypoints = runtime.prepare(first), runtime.detect(last)
    dark = first.copy()
    dark[80:110, 60:190] = 20
    changed = runtime.with_picture(source, dark)
    assert changed.picture is dark
    sets = ([source], [changed], [changed, source], [source])
    return [runtime.reconstruct(keypoints, sources).astype(int) for sources in sets]


def test_sources_with_another_picture_agree_on_all_runtimes() -> None:
    kinds = [load_runtime(kind="onnx", threads=1), TorchRuntime("lite-256", "cpu"), CudaRuntime("lite-256", "cpu")]
    expected, *others = [with_dark_eyes(runtime) for runtime in kinds]
    assert np.array_equal(expected[3], expected[0])
    assert np.abs(expected[1] - expected[0])[80:110, 60:190].mean() > 20
    for pictures in others:
        for picture, onnx_picture in zip(pictures, expected, strict=True):
            assert np.abs(picture - onnx_picture).max() <= 2
        assert np.array_equal(pictures[3], pictures[0])


def test_pages_of_sources_with_another_picture_are_freed(untrained_models: Path) -> None:
    """Also when the pool has to grow first."""
    runtime = CudaRuntime("tiny", "cpu", untrained_models)
    pictures = noise_pictures(MAX_ACTIVE + 1)
    sources = [runtime.prepare(picture) for picture in pictures[:MAX_ACTIVE]]
    keypoints = sources[0].keypoints
    before = runtime.reconstruct(keypoints, sources[:1])
    assert not runtime._pool.free
    changed = runtime.with_picture(sources[0], pictures[-1])
    assert runtime._pool.capacity == 2 * MAX_ACTIVE
    assert len(runtime._pool.free) == MAX_ACTIVE - 1
    assert np.abs(runtime.reconstruct(keypoints, [changed]).astype(int) - before).mean() > 10
    assert np.array_equal(runtime.reconstruct(keypoints, sources[:1]), before)
    del changed
    assert len(runtime._pool.free) == MAX_ACTIVE


def test_pictures_are_copied_once_if_two_threads_wait_for_them() -> None:
    """The second is a later frame that is about to overwrite the lane's buffers."""
    both, copies = threading.Barrier(2, timeout=0.2), []

    def synchronize() -> None:
        copies.append(1)
        with suppress(threading.BrokenBarrierError):  # nobody else comes here
            both.wait()

    lane = SimpleNamespace(copied=SimpleNamespace(synchronize=synchronize), pictures=torch.ones(1, 2, 2, 3))
    pending = Pending([None], lane)
    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(lambda _: pending.pictures()[0], range(2))
    assert copies == [1]
    assert first is not None
    np.testing.assert_array_equal(first, second)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_captured_graph_matches_the_cpu(untrained_models, runtime) -> None:
    device = CudaRuntime("tiny", "cuda", untrained_models)
    expected = runtime.submit(random_jobs(runtime, [1, 4, 2])).pictures()
    jobs = random_jobs(device, [1, 4, 2])
    in_flight = [device.submit(jobs) for _ in range(4)]
    for pending in in_flight:
        for actual, picture in zip(pending.pictures(), expected, strict=True):
            assert np.abs(actual.astype(int) - picture).mean() < 1


def test_missing_cuda_device_is_reported(untrained_models) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(RuntimeError, match="no CUDA device"):
        CudaRuntime("tiny", folder=untrained_models)
