"""Thread pools of this process: pinned to a number of threads, and reported."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
from threadpoolctl import threadpool_info, threadpool_limits

from iwcodec.models.runtime.onnx import OnnxRuntime
from iwcodec.models.runtime.types import Runtime


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Set the size of the pools that ONNX Runtime's options do not cover: OpenCV, BLAS, and PyTorch if imported."""
    torch, opencv = sys.modules.get("torch"), cv2.getNumThreads()
    torch_threads = None if torch is None else torch.get_num_threads()
    cv2.setNumThreads(threads)
    if torch is not None:
        torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads):
            yield
    finally:
        cv2.setNumThreads(opencv)
        if torch is not None:
            torch.set_num_threads(torch_threads)


def pools(runtime: Runtime, threads: int) -> dict[str, int]:
    """Library -> current number of threads, for everything that computes in this process."""
    counts = {"OpenCV": cv2.getNumThreads(), "face search": 1, "SVT-AV1": 1, "dav1d": 1}
    if isinstance(runtime, OnnxRuntime):
        counts["ONNX Runtime"] = threads
    if "torch" in sys.modules:
        counts["PyTorch"] = sys.modules["torch"].get_num_threads()
    return counts | {pool["prefix"]: pool["num_threads"] for pool in threadpool_info()}
