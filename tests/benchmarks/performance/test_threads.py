"""Thread pools are pinned and restored."""

import cv2
from threadpoolctl import threadpool_info

from iwcodec.benchmarks.performance.threads import pinned


def test_every_pool_is_pinned_and_restored() -> None:
    def blas() -> set[int]:
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    cv2.setNumThreads(2)
    before = blas()
    with pinned(1):
        assert cv2.getNumThreads() == 1
        assert blas() == {1}
    assert cv2.getNumThreads() == 2
    assert blas() == before
