"""Thread pools are pinned and restored."""

import cv2
from threadpoolctl import threadpool_info

from iwcodec.benchmarks.performance.threads import pinned, pools
from iwcodec.models.runtime.load import load_runtime


def test_every_pool_is_pinned_and_restored() -> None:
    def blas() -> set[int]:
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    cv2.setNumThreads(2)
    before = blas()
    runtime = load_runtime(kind="onnx", threads=1)
    with pinned(1):
        assert cv2.getNumThreads() == 1
        assert blas() == {1}
        assert {pools(runtime, 1)[name] for name in ("ONNX Runtime", "OpenCV", "libscipy_openblas")} == {1}
    assert cv2.getNumThreads() == 2
    assert blas() == before
