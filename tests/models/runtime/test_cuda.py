"""Batching and padding in the CUDA runtime, on whatever device there is."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cuda_jobs import random_jobs
from iwcodec.models.runtime.cuda import CudaRuntime, pack, padded_callers


def test_number_of_callers_is_padded_to_a_power_of_two():
    assert [padded_callers(n) for n in (1, 2, 3, 4, 5, 8, 9)] == [1, 2, 4, 4, 8, 8, 16]


def test_padding_of_a_batch_names_valid_pages(runtime):
    jobs = random_jobs(runtime, [1, 3, 2])
    jobs[1] = replace(jobs[1], suppression=0.8)
    driving, table, counts, suppressions = pack(jobs, 4, 4)
    assert suppressions.tolist() == [0.0, np.float32(0.8), 0.0, 0.0]
    pages = [[source.features.number for source in job.sources] for job in jobs]
    assert counts.tolist() == [1, 3, 2, 1]
    assert table.dtype == np.int32
    assert table.tolist() == [pages[0] * 4, [*pages[1], pages[1][0]], [*pages[2], *pages[2][:1] * 2], pages[0] * 4]
    np.testing.assert_array_equal(driving[3], jobs[0].keypoints)


def test_batched_callers_get_the_same_pictures_as_alone(runtime):
    jobs = [replace(job, suppression=0.7 * n) for n, job in enumerate(random_jobs(runtime, [1, 4, 2]))]
    together = runtime.submit(jobs).pictures()
    assert len(together) == 3
    for picture, job in zip(together, jobs, strict=True):
        alone = runtime.reconstruct(job.keypoints, job.sources, job.suppression)
        assert np.abs(picture.astype(int) - alone).max() <= 1


def test_jobs_without_or_with_too_many_sources_are_refused(runtime):
    job = random_jobs(runtime, [1])[0]
    with pytest.raises(ValueError, match="1 to 4 sources"):
        runtime.reconstruct(job.keypoints, [])
    with pytest.raises(ValueError, match="1 to 4 sources"):
        runtime.reconstruct(job.keypoints, job.sources * 5)
    with pytest.raises(ValueError, match="at least one job"):
        runtime.submit([])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_captured_graph_matches_the_cpu(untrained_models, runtime):
    device = CudaRuntime("tiny", "cuda", untrained_models)
    expected = runtime.submit(random_jobs(runtime, [1, 4, 2])).pictures()
    jobs = random_jobs(device, [1, 4, 2])
    in_flight = [device.submit(jobs) for _ in range(4)]
    for pending in in_flight:
        for actual, picture in zip(pending.pictures(), expected, strict=True):
            assert np.abs(actual.astype(int) - picture).mean() < 1


def test_missing_cuda_device_is_reported(untrained_models):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(RuntimeError, match="no CUDA device"):
        CudaRuntime("tiny", folder=untrained_models)
