"""Pages of sources on the device."""

import gc

import numpy as np
import pytest

pytest.importorskip("torch")

from support.models.cuda_jobs import noise_pictures, random_jobs


def test_pool_grows_and_reuses_pages_of_released_sources(runtime) -> None:
    first = random_jobs(runtime, [3])[0]
    before = runtime.reconstruct(first.keypoints, first.sources)
    others = [runtime.prepare(picture) for picture in noise_pictures(6, 9)]
    assert runtime._pool.capacity == 16
    assert len({source.features.number for source in [*first.sources, *others]}) == 9
    np.testing.assert_array_equal(runtime.reconstruct(first.keypoints, first.sources), before)
    freed = {source.features.number for source in others}
    del others
    gc.collect()
    assert len(runtime._pool.free) == 13
    assert freed <= set(runtime._pool.free)
