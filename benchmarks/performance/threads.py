"""Thread pools of this process, pinned to a number of threads."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
from threadpoolctl import threadpool_limits


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
