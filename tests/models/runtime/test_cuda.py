"""Batching, padding and paging of the CUDA receiver, on whatever device there is."""

import gc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from iwcodec.models.network.attention import topk_attention
from iwcodec.models.network.config import TINY
from iwcodec.models.network.network import ImplicitWarp, place_columns
from iwcodec.models.runtime import cuda as runtime_cuda
from iwcodec.models.runtime.cuda import CudaRuntime, Job, pack, padded
from iwcodec.models.runtime.onnx import resized
from iwcodec.models.training.export import save_weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network whose attention, nudge and decoder do something, though nothing is learnt."""
    torch.manual_seed(4)
    network = ImplicitWarp(TINY)
    with torch.no_grad():
        for layer in (network.key_net.parts, network.decoder.nudge, network.decoder.out):
            layer.weight.normal_(0, 0.2)
    larger = ImplicitWarp(replace(TINY, size=128, up_blocks=1))
    larger.load_state_dict(network.state_dict(), strict=False)
    torch.nn.init.normal_(larger.decoder.up[0].out.weight, std=0.1)
    target = tmp_path_factory.mktemp("weights")
    save_weights(network, target / "tiny.safetensors")
    save_weights(larger, target / "tiny-128.safetensors", "tiny")
    return target


@pytest.fixture
def runtime(folder: Path) -> CudaRuntime:
    return CudaRuntime("tiny", "cpu", folder)


def pictures(count: int, seed: int = 0, size: int = 64):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def jobs_of(runtime: CudaRuntime, counts: list[int]) -> list[Job]:
    jobs, size = [], runtime.info.size
    for seed, count in enumerate(counts):
        driving = runtime.detect(pictures(1, 100 + seed, size)[0])
        jobs.append(Job(driving, [runtime.prepare(picture) for picture in pictures(count, seed, size)]))
    return jobs


def test_callers_are_padded_to_powers_of_two():
    assert [padded(n) for n in (1, 2, 3, 4, 5, 8, 9)] == [1, 2, 4, 4, 8, 8, 16]


def test_padded_places_of_a_batch_name_valid_pages(runtime):
    jobs = jobs_of(runtime, [1, 3, 2])
    jobs[1] = replace(jobs[1], suppression=0.8)
    driving, table, counts, zones = pack(jobs, 4, 4)
    assert zones.tolist() == [0.0, np.float32(0.8), 0.0, 0.0]
    pages = [[source.features.number for source in job.sources] for job in jobs]
    assert counts.tolist() == [1, 3, 2, 1]
    assert table.dtype == np.int32
    assert table.tolist() == [pages[0] * 4, [*pages[1], pages[1][0]], [*pages[2], *pages[2][:1] * 2], pages[0] * 4]
    np.testing.assert_array_equal(driving[3], jobs[0].keypoints)


def test_callers_with_different_numbers_of_sources_get_what_they_get_alone(runtime):
    jobs = [replace(job, suppression=0.7 * n) for n, job in enumerate(jobs_of(runtime, [1, 4, 2]))]
    together = runtime.submit(jobs).pictures()
    assert len(together) == 3
    for picture, job in zip(together, jobs, strict=True):
        alone = runtime.reconstruct(job.keypoints, job.sources, job.suppression)
        assert np.abs(picture.astype(int) - alone).max() <= 1


@torch.inference_mode()
@pytest.mark.parametrize("model", ["tiny", "tiny-128"])
@pytest.mark.parametrize("count", [1, 3])
def test_the_frame_path_is_the_network_with_exact_topk(folder, model, count):
    runtime = CudaRuntime(model, "cpu", folder)
    job = jobs_of(runtime, [count])[0]
    network, side = runtime._network, 16
    full, seen = (
        torch.from_numpy(np.stack([resized(source.picture, size) for source in job.sources])).permute(0, 3, 1, 2) / 255
        for size in (runtime.info.size, 64)
    )
    known = torch.from_numpy(np.stack([source.keypoints for source in job.sources]))
    sources = network.encode_sources(full[None], known[None], seen[None])
    driving = torch.from_numpy(job.keypoints)[None]
    queries, unit = network.queries(driving, side)
    rows = place_columns(sources.rows, side)
    attended = topk_attention(
        queries, network.keys(driving, sources, side), rows, network.extras(rows.shape[-1]), 4 * TINY.top_k
    )
    for zone in (None, torch.tensor([1.5])):
        picture = network.decode(attended, unit, full[None], suppression=zone)[0][0]
        expected = runtime_cuda.to_uint8(picture.permute(1, 2, 0)).numpy()
        found = runtime.reconstruct(job.keypoints, job.sources, 0.0 if zone is None else float(zone))
        assert found.std() > 10
        assert np.abs(found.astype(int) - expected).max() <= 1


def test_the_pool_grows_and_takes_forgotten_pages_back(runtime):
    first = jobs_of(runtime, [3])[0]
    before = runtime.reconstruct(first.keypoints, first.sources)
    others = [runtime.prepare(picture) for picture in pictures(6, 9)]
    assert runtime._pool.capacity == 16
    assert len({source.features.number for source in [*first.sources, *others]}) == 9
    np.testing.assert_array_equal(runtime.reconstruct(first.keypoints, first.sources), before)
    freed = {source.features.number for source in others}
    del others
    gc.collect()
    assert len(runtime._pool.free) == 13
    assert freed <= set(runtime._pool.free)


def test_a_job_needs_sources(runtime):
    job = jobs_of(runtime, [1])[0]
    with pytest.raises(ValueError, match="1 to 4 sources"):
        runtime.reconstruct(job.keypoints, [])
    with pytest.raises(ValueError, match="1 to 4 sources"):
        runtime.reconstruct(job.keypoints, job.sources * 5)
    with pytest.raises(ValueError, match="at least one job"):
        runtime.submit([])


@torch.inference_mode()
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_triton_attends_to_pages_as_torch_does(runtime, dtype):
    pytest.importorskip("triton")
    if not torch.cuda.is_available():
        from triton import knobs

        assert knobs.runtime.interpret, "see conftest.py"
    batch = runtime_cuda.Batch(*map(torch.from_numpy, pack(jobs_of(runtime, [1, 3]), 2, 4)))
    pool = runtime._pool
    pool.keys, pool.rows = pool.keys.to(getattr(torch, dtype)), pool.rows.to(getattr(torch, dtype))
    seen = runtime._path._seen(batch, pool, runtime._network.query_net(batch.driving, 16), 16)
    extras = seen.extras._replace(keys=seen.extras.keys.to(getattr(torch, dtype)).float())
    seen = seen._replace(extras=extras)
    expected = runtime_cuda.attend_torch(seen, pool)
    found = runtime_cuda.attend_triton(seen, pool)
    assert found.shape == expected.shape == (2, 256, 8 + 8 + 3 + 3 * 4)
    assert (found[0, :, 22:] == 0).all()  # the first caller has one source: no mass, no places of the others
    close = (found - expected).abs() <= 1e-3 * expected.abs().amax((0, 1))
    assert close.float().mean() > 0.999  # ties aside: the 32nd key may be another of the same score


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_captured_graph_gives_what_the_cpu_gives(folder, runtime):
    device = CudaRuntime("tiny", "cuda", folder)
    expected = runtime.submit(jobs_of(runtime, [1, 4, 2])).pictures()
    jobs = jobs_of(device, [1, 4, 2])
    under_way = [device.submit(jobs) for _ in range(4)]
    for pending in under_way:
        for found, picture in zip(pending.pictures(), expected, strict=True):
            assert np.abs(found.astype(int) - picture).mean() < 1


def test_without_cuda_it_says_so(folder):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(RuntimeError, match="no CUDA device"):
        CudaRuntime("tiny", folder=folder)
