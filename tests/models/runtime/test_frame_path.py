"""The computation of a frame on the device, on whatever device there is."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from iwcodec.models.network.attention import topk_attention
from iwcodec.models.network.config import TINY
from iwcodec.models.network.warp import place_columns
from iwcodec.models.runtime.cuda import CudaRuntime, pack
from iwcodec.models.runtime.frame_path import Batch, attend_torch, attend_triton
from iwcodec.models.runtime.pictures import resize_area
from iwcodec.models.runtime.torch import to_uint8
from support.models.cuda_jobs import random_jobs


@torch.inference_mode()
@pytest.mark.parametrize("model", ["tiny", "tiny-128"])
@pytest.mark.parametrize("count", [1, 3])
def test_frame_path_equals_the_network_with_exact_topk(untrained_models, model, count) -> None:
    runtime = CudaRuntime(model, "cpu", untrained_models)
    job = random_jobs(runtime, [count])[0]
    network, side = runtime.network, 16
    full, net_pictures = (
        torch.from_numpy(np.stack([resize_area(source.picture, size) for source in job.sources])).permute(0, 3, 1, 2)
        / 255
        for size in (runtime.info.size, 64)
    )
    keypoints = torch.from_numpy(np.stack([source.keypoints for source in job.sources]))
    sources = network.encode_sources(full[None], keypoints[None], net_pictures[None])
    driving = torch.from_numpy(job.keypoints)[None]
    queries, unit = network.queries(driving, side)
    rows = place_columns(sources.rows, side)
    attended = topk_attention(
        queries, network.keys(driving, sources, side), rows, network.extras(rows.shape[-1]), 4 * TINY.top_k
    )
    for suppression in (None, torch.tensor([1.5])):
        picture = network.decode(attended, unit, full[None], suppression=suppression)[0][0]
        expected = to_uint8(picture.permute(1, 2, 0)).numpy()
        actual = runtime.reconstruct(job.keypoints, job.sources, 0.0 if suppression is None else float(suppression))
        assert actual.std() > 10
        assert np.abs(actual.astype(int) - expected).max() <= 1


@torch.inference_mode()
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_triton_and_torch_attend_alike(runtime, dtype) -> None:
    pytest.importorskip("triton")
    if not torch.cuda.is_available():
        from triton import knobs

        assert knobs.runtime.interpret, "see conftest.py"
    batch = Batch(*map(torch.from_numpy, pack(random_jobs(runtime, [1, 3]), 2, 4)))
    pool = runtime._pool
    pool.keys, pool.rows = pool.keys.to(getattr(torch, dtype)), pool.rows.to(getattr(torch, dtype))
    inputs = runtime._path.attention_inputs(batch, pool, runtime.network.query_net(batch.driving, 16), 16)
    extras = inputs.extras._replace(keys=inputs.extras.keys.to(getattr(torch, dtype)).float())
    inputs = inputs._replace(extras=extras)
    expected = attend_torch(inputs, pool)
    actual = attend_triton(inputs, pool)
    assert actual.shape == expected.shape == (2, 256, 8 + 8 + 3 + 3 * 4)
    assert (actual[0, :, 22:] == 0).all()  # the first caller has one source: the others have no mass
    close = (actual - expected).abs() <= 1e-3 * expected.abs().amax((0, 1))
    assert close.float().mean() > 0.999  # except for ties: the 32nd key may be another of the same score
